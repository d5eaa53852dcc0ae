//! Who was heard on which link, and when we speak there. No I/O; time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use super::message::{DecodeError, Message};
use crate::jitter::Jitter;

/// Between our advertisements: short against RFC 4861 §6.2.1, as routers do on such links, because it is how long a
/// router that has restarted looks for us.
const INTERVAL: Duration = Duration::from_secs(10);
/// The first ones, and after something has failed.
const QUICK: Duration = Duration::from_secs(1);
/// So many advertisements are quick (RFC 4861 §10, MAX_INITIAL_RTR_ADVERTISEMENTS).
const INITIAL: u32 = 3;
/// Least time between two advertisements, whoever asks (RFC 4861 §10, MIN_DELAY_BETWEEN_RAS).
const APART: Duration = Duration::from_secs(3);
/// Addresses remembered for a link. One is what the link is for; more shows what is wrong.
const REMEMBERED: usize = 4;

/// What is known of one link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Neighbours {
    /// Link-local addresses of routers, who was heard last first; four at most.
    pub heard: Vec<Ipv6Addr>,
    /// Why nobody can be heard.
    pub problem: Option<String>,
}

/// Why a packet was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It may come from beyond the link.
    #[error("its hop limit is {0}, not 255")]
    HopLimit(u8),
    /// An advertisement from an address that is not link-local.
    #[error("its source is not link-local")]
    Source,
    /// Nobody asked for this link.
    #[error("it came in on another link")]
    Link,
    /// It breaks a rule of its format.
    #[error("it is malformed: {0}")]
    Malformed(#[from] DecodeError),
}

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) source: Ipv6Addr,
    /// Index of the interface.
    pub(super) interface: u32,
    pub(super) hop_limit: u8,
}

/// A link on which we have to speak now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) interface: String,
    /// Ask for answers too.
    pub(super) solicit: bool,
}

#[derive(Debug)]
struct Link {
    index: Option<u32>,
    neighbours: Neighbours,
    next: Instant,
    last: Option<Instant>,
    said: u32,
}

#[derive(Debug)]
pub(super) struct Machine {
    links: BTreeMap<String, Link>,
    jitter: Jitter,
    changed: bool,
}

impl Machine {
    pub(super) fn new(seed: u64) -> Self {
        Self { links: BTreeMap::new(), jitter: Jitter::new(seed), changed: false }
    }

    /// Makes the links those of `wanted`; new ones are spoken on at once.
    pub(super) fn want(&mut self, now: Instant, wanted: &BTreeSet<String>) {
        self.links.retain(|name, _| wanted.contains(name));
        for name in wanted {
            self.links.entry(name.clone()).or_insert_with(|| Link {
                index: None,
                neighbours: Neighbours::default(),
                next: now,
                last: None,
                said: 0,
            });
        }
        self.changed = true;
    }

    /// A packet with its ICMPv6 message.
    pub(super) fn handle(&mut self, now: Instant, arrival: &Arrival, octets: &[u8]) -> Result<(), Ignored> {
        if arrival.hop_limit != 255 {
            return Err(Ignored::HopLimit(arrival.hop_limit));
        }
        let link = self.links.values_mut().find(|link| link.index == Some(arrival.interface));
        let link = link.ok_or(Ignored::Link)?;
        match Message::decode(octets)? {
            Message::Advertisement { .. } if !arrival.source.is_unicast_link_local() => return Err(Ignored::Source),
            Message::Advertisement { .. } => self.changed |= link.hear(arrival.source),
            Message::Solicitation => {
                let soonest = link.last.map_or(now, |last| last + APART);
                link.next = link.next.min(soonest.max(now));
            }
        }
        Ok(())
    }

    /// A link whose time to speak has come; [`Machine::sent`] must follow.
    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        let (interface, link) = self.links.iter().find(|(_, link)| link.next <= now)?;
        Some(Due { interface: interface.clone(), solicit: link.neighbours.heard.is_empty() })
    }

    /// What became of it: the index of the interface, or why nothing was sent.
    pub(super) fn sent(&mut self, now: Instant, interface: &str, result: Result<u32, String>) {
        let Some(link) = self.links.get_mut(interface) else { return };
        let problem = match result {
            Ok(index) => {
                // Another index is another interface of the same name: who was heard on the old one is not there.
                if link.index.replace(index).is_some_and(|before| before != index) {
                    link.neighbours.heard.clear();
                    link.said = 0;
                    self.changed = true;
                }
                link.said += 1;
                link.last = Some(now);
                None
            }
            Err(problem) => Some(problem),
        };
        let quick = problem.is_some() || link.said < INITIAL;
        link.next = now + if quick { QUICK } else { self.jitter.shorten(INTERVAL) };
        self.changed |= link.neighbours.problem != problem;
        link.neighbours.problem = problem;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.links.values().map(|link| link.next).min()
    }

    /// What is known, if it has changed since the last call.
    pub(super) fn take_changed(&mut self) -> Option<BTreeMap<String, Neighbours>> {
        let known = || self.links.iter().map(|(name, link)| (name.clone(), link.neighbours.clone())).collect();
        std::mem::take(&mut self.changed).then(known)
    }
}

impl Link {
    /// Whether that is news.
    fn hear(&mut self, source: Ipv6Addr) -> bool {
        let heard = &mut self.neighbours.heard;
        if heard.first() == Some(&source) {
            return false;
        }
        heard.retain(|known| *known != source);
        heard.insert(0, source);
        heard.truncate(REMEMBERED);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH0: u32 = 7;

    fn router(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, n)
    }

    fn arrival(source: Ipv6Addr) -> Arrival {
        Arrival { source, interface: ETH0, hop_limit: 255 }
    }

    fn started(now: Instant) -> Machine {
        let mut machine = Machine::new(1);
        machine.want(now, &["eth0".to_owned()].into());
        assert_eq!(machine.due(now), Some(Due { interface: "eth0".into(), solicit: true }));
        machine.sent(now, "eth0", Ok(ETH0));
        machine.take_changed();
        machine
    }

    fn heard(machine: &mut Machine) -> Option<Vec<Ipv6Addr>> {
        Some(machine.take_changed()?["eth0"].heard.clone())
    }

    #[test]
    fn advertisement_makes_a_neighbour_and_ends_the_asking() {
        let now = Instant::now();
        let mut machine = started(now);
        machine.handle(now, &arrival(router(1)), &Message::OURS.encode()).expect("counts");
        assert_eq!(heard(&mut machine), Some(vec![router(1)]));
        machine.handle(now, &arrival(router(1)), &Message::OURS.encode()).expect("counts");
        assert_eq!(heard(&mut machine), None, "no news");
        let due = machine.due(now + QUICK).expect("the second one is quick");
        assert!(!due.solicit);
    }

    #[test]
    fn packets_from_beyond_the_link_or_another_link_are_ignored() {
        let now = Instant::now();
        let mut machine = started(now);
        let ours = Message::OURS.encode();
        let far = Arrival { hop_limit: 254, ..arrival(router(1)) };
        assert_eq!(machine.handle(now, &far, &ours), Err(Ignored::HopLimit(254)));
        let other = Arrival { interface: ETH0 + 1, ..arrival(router(1)) };
        assert_eq!(machine.handle(now, &other, &ours), Err(Ignored::Link));
        let global = Ipv6Addr::new(0x2001, 0xDB8, 0, 0, 0, 0, 0, 1);
        assert_eq!(machine.handle(now, &arrival(global), &ours), Err(Ignored::Source));
        assert_eq!(machine.handle(now, &arrival(router(1)), &[134]), Err(Ignored::Malformed(DecodeError::Length(1))));
        assert_eq!(heard(&mut machine), None);
    }

    #[test]
    fn a_thousand_routers_are_no_more_than_four_and_the_newest_is_first() {
        let now = Instant::now();
        let mut machine = started(now);
        for n in 1..=1000 {
            machine.handle(now, &arrival(router(n)), &Message::OURS.encode()).expect("counts");
        }
        assert_eq!(heard(&mut machine), Some([1000, 999, 998, 997].map(router).to_vec()));
    }

    #[test]
    fn we_speak_quickly_at_first_and_then_every_ten_seconds() {
        let start = Instant::now();
        let mut machine = started(start);
        let mut times = vec![];
        for _ in 0..5 {
            let at = machine.deadline().expect("goes on");
            assert_eq!(machine.due(at - Duration::from_millis(1)), None);
            machine.sent(at, "eth0", Ok(ETH0));
            times.push((at - start).as_secs_f64());
        }
        assert_eq!(times[..2], [1.0, 2.0]);
        let pauses: Vec<f64> = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (7.5..=10.0).contains(pause)), "{times:?}");
    }

    #[test]
    fn solicitation_is_answered_but_not_more_often_than_every_three_seconds() {
        let start = Instant::now();
        let mut machine = started(start);
        for n in 1..=2 {
            machine.sent(start + n * QUICK, "eth0", Ok(ETH0));
        }
        let last = start + 2 * QUICK;
        let ask = Message::Solicitation.encode();
        let host = arrival(Ipv6Addr::UNSPECIFIED);
        machine.handle(last, &host, &ask).expect("a host that has no address yet may ask");
        assert_eq!(machine.deadline(), Some(last + APART));
        let mut machine = started(start);
        for n in 1..=2 {
            machine.sent(start + n * QUICK, "eth0", Ok(ETH0));
        }
        machine.handle(last + Duration::from_secs(5), &host, &ask).expect("counts");
        assert_eq!(machine.deadline(), Some(last + Duration::from_secs(5)));
    }

    #[test]
    fn link_that_is_missing_says_why_and_is_tried_again() {
        let now = Instant::now();
        let mut machine = started(now);
        machine.handle(now, &arrival(router(1)), &Message::OURS.encode()).expect("counts");
        machine.sent(now, "eth0", Err("interface eth0: no such device".into()));
        let known = machine.take_changed().expect("news");
        assert_eq!(known["eth0"].problem.as_deref(), Some("interface eth0: no such device"));
        assert_eq!(known["eth0"].heard, [router(1)], "a session may still run");
        assert_eq!(machine.deadline(), Some(now + QUICK));
        machine.sent(now + QUICK, "eth0", Ok(ETH0 + 1));
        let known = machine.take_changed().expect("news");
        assert_eq!(known["eth0"], Neighbours::default(), "it is another interface now");
    }

    #[test]
    fn link_that_nobody_wants_is_forgotten() {
        let now = Instant::now();
        let mut machine = started(now);
        machine.want(now, &BTreeSet::new());
        assert_eq!((machine.take_changed(), machine.deadline()), (Some(BTreeMap::new()), None));
    }
}
