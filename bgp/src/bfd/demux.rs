//! Which session a packet belongs to (RFC 5880 §6.3, RFC 5881 §3, RFC 5883 §4).

use std::{collections::HashMap, net::IpAddr};

use super::{Discriminator, Header, Path, State};

/// Finds the session of a packet: by its Your Discriminator, and while the peer does not know ours, by where it
/// came from. `K` is the caller's name for a session.
#[derive(Debug, Clone, Default)]
pub struct Demux<K> {
    by_discr: HashMap<u32, Entry<K>>,
    by_source: HashMap<(IpAddr, bool), Vec<Entry<K>>>,
}

#[derive(Debug, Clone)]
struct Entry<K> {
    key: K,
    discr: Discriminator,
    interface: Option<u32>,
    path: Path,
}

/// Why a packet belongs to no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unmatched {
    /// Nobody here has this discriminator, or not on this interface, or not at this distance.
    #[error("no session has this discriminator on this path")]
    Discriminator,
    /// No session with this peer is configured on this interface.
    #[error("no session is configured with this source")]
    Source,
    /// The TTL is below 255 (RFC 5881 §5), or below a multi-hop session's minimum.
    #[error("TTL is too small")]
    Ttl,
}

/// Where a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its source address.
    pub source: IpAddr,
    /// Index of the interface that it came in on; 0 where unknown.
    pub interface: u32,
    /// Its TTL or hop limit.
    pub ttl: u8,
    /// It came to the multi-hop port.
    pub multi_hop: bool,
}

impl<K: Clone> Demux<K> {
    /// An empty one.
    pub fn new() -> Self {
        Self { by_discr: HashMap::new(), by_source: HashMap::new() }
    }

    /// Adds a session. `interface`: index that packets must come in on, `None` for any.
    pub fn insert(&mut self, key: K, discr: Discriminator, peer: IpAddr, interface: Option<u32>, path: Path) {
        let entry = Entry { key, discr, interface, path };
        self.by_source.entry((peer, entry.multi_hop())).or_default().push(entry.clone());
        self.by_discr.insert(discr.0.get(), entry);
    }

    /// Removes the session with this discriminator.
    pub fn remove(&mut self, discr: Discriminator) {
        self.by_discr.remove(&discr.0.get());
        self.by_source.retain(|_, entries| {
            entries.retain(|entry| entry.discr != discr);
            !entries.is_empty()
        });
    }

    /// A discriminator that no session has, made from random words.
    pub fn free(&self, mut random: impl FnMut() -> u32) -> Discriminator {
        loop {
            let candidate = random();
            if let Some(discr) = std::num::NonZeroU32::new(candidate)
                && !self.by_discr.contains_key(&candidate)
            {
                return Discriminator(discr);
            }
        }
    }

    /// The session of a packet. With a discriminator the source address does not count (RFC 5880 §6.3), but the
    /// interface and the distance do: whoever guesses the number still has to stand on the right link.
    pub fn find(&self, header: &Header, arrival: &Arrival) -> Result<K, Unmatched> {
        if !arrival.multi_hop && arrival.ttl != 255 {
            return Err(Unmatched::Ttl);
        }
        let entry = match header.your_discr {
            0 if !matches!(header.state, State::Down | State::AdminDown) => return Err(Unmatched::Discriminator),
            0 => self.by_arrival(arrival).ok_or(Unmatched::Source)?,
            discr => self.by_discr.get(&discr).filter(|e| e.fits(arrival)).ok_or(Unmatched::Discriminator)?,
        };
        match entry.path {
            Path::MultiHop { minimum_ttl } if arrival.ttl < minimum_ttl => Err(Unmatched::Ttl),
            _ => Ok(entry.key.clone()),
        }
    }

    /// A session that names the interface goes before one that takes any.
    fn by_arrival(&self, arrival: &Arrival) -> Option<&Entry<K>> {
        let entries = self.by_source.get(&(arrival.source, arrival.multi_hop))?;
        entries.iter().filter(|entry| entry.fits(arrival)).max_by_key(|entry| entry.interface.is_some())
    }
}

impl<K> Entry<K> {
    fn multi_hop(&self) -> bool {
        matches!(self.path, Path::MultiHop { .. })
    }

    fn fits(&self, arrival: &Arrival) -> bool {
        self.multi_hop() == arrival.multi_hop && self.interface.is_none_or(|index| index == arrival.interface)
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU8, NonZeroU32};

    use super::*;
    use crate::bfd::Diag;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn discr(value: u32) -> Discriminator {
        Discriminator(NonZeroU32::new(value).expect("not 0"))
    }

    fn header(state: State, your_discr: u32) -> Header {
        Header {
            diag: Diag::NONE,
            state,
            poll: false,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_mult: NonZeroU8::MIN,
            my_discr: NonZeroU32::MIN,
            your_discr,
            desired_min_tx: 0,
            required_min_rx: 0,
            required_min_echo_rx: 0,
        }
    }

    fn arrival(interface: u32) -> Arrival {
        Arrival { source: PEER, interface, ttl: 255, multi_hop: false }
    }

    fn two_links() -> Demux<&'static str> {
        let mut demux = Demux::new();
        demux.insert("any", discr(7), PEER, None, Path::SingleHop);
        demux.insert("eth1", discr(8), PEER, Some(1), Path::SingleHop);
        demux.insert("far", discr(9), PEER, None, Path::MultiHop { minimum_ttl: 250 });
        demux
    }

    #[test]
    fn first_packet_is_matched_by_source_and_interface() {
        let demux = two_links();
        let down = header(State::Down, 0);
        assert_eq!(demux.find(&down, &arrival(1)), Ok("eth1"));
        assert_eq!(demux.find(&down, &arrival(2)), Ok("any"));
        let stranger = Arrival { source: "192.0.2.9".parse().expect("address"), ..arrival(1) };
        assert_eq!(demux.find(&down, &stranger), Err(Unmatched::Source));
    }

    #[test]
    fn later_packets_are_matched_by_discriminator_alone_but_on_their_link() {
        let demux = two_links();
        let moved = Arrival { source: "192.0.2.9".parse().expect("address"), ..arrival(1) };
        assert_eq!(demux.find(&header(State::Up, 8), &moved), Ok("eth1"));
        assert_eq!(demux.find(&header(State::Up, 8), &arrival(2)), Err(Unmatched::Discriminator));
        assert_eq!(demux.find(&header(State::Up, 99), &arrival(1)), Err(Unmatched::Discriminator));
        assert_eq!(demux.find(&header(State::Up, 9), &arrival(1)), Err(Unmatched::Discriminator));
        assert_eq!(demux.find(&header(State::Up, 0), &arrival(1)), Err(Unmatched::Discriminator));
    }

    #[test]
    fn ttl_is_255_on_one_hop_and_at_least_the_minimum_on_many() {
        let demux = two_links();
        let low = Arrival { ttl: 254, ..arrival(1) };
        assert_eq!(demux.find(&header(State::Up, 8), &low), Err(Unmatched::Ttl));
        let far = |ttl| Arrival { ttl, multi_hop: true, ..arrival(5) };
        assert_eq!(demux.find(&header(State::Up, 9), &far(250)), Ok("far"));
        assert_eq!(demux.find(&header(State::Up, 9), &far(249)), Err(Unmatched::Ttl));
    }

    #[test]
    fn removed_session_is_found_no_more_and_numbers_are_never_given_twice() {
        let mut demux = two_links();
        demux.remove(discr(8));
        assert_eq!(demux.find(&header(State::Up, 8), &arrival(1)), Err(Unmatched::Discriminator));
        assert_eq!(demux.find(&header(State::Down, 0), &arrival(1)), Ok("any"));
        let mut random = [0, 7, 9, 10].into_iter();
        assert_eq!(demux.free(|| random.next().expect("stops at 10")), discr(10));
    }
}
