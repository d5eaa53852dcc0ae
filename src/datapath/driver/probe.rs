//! Which other nodes take encapsulated packets: each is asked over the way that packets would go, and its program
//! answers, not its daemon. A node without the program (another version, an older kernel, a daemon not there yet)
//! stays silent, and packets for its pods are left to kube-proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::select_all;
use tokio::{
    net::UdpSocket,
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use crate::datapath::types::{FLAG_ANSWER, FLAG_PROBE, PORT, VERSION};

/// Nodes that have not answered are asked so often, at first.
const SOON: Duration = Duration::from_millis(100);
/// For so long after there was a new one.
const AT_FIRST: Duration = Duration::from_secs(10);
/// Everybody is asked so often.
const EVERY: Duration = Duration::from_secs(2);
/// Silent for longer, a node has lost its program. Longer than links take to come back.
const LOST: Duration = Duration::from_secs(15);

/// Who is asked: destination and source.
pub(super) type Ways = BTreeSet<(IpAddr, IpAddr)>;

/// Asks until cancelled; `answering` are the destinations that answer.
pub(super) async fn run(mut ways: watch::Receiver<Ways>, answering: watch::Sender<BTreeSet<IpAddr>>) -> Infallible {
    let mut probes = Probes::default();
    loop {
        let due = probes.ask(Instant::now()).await;
        let now = probes.answering(Instant::now());
        answering.send_if_modified(|before| {
            for address in now.difference(before) {
                info!(%address, "node takes encapsulated packets");
            }
            let lost = before.difference(&now).filter(|a| probes.ways.iter().any(|(to, _)| to == *a));
            for address in lost {
                warn!(%address, "node takes no encapsulated packets any more; kube-proxy has what is for its pods");
            }
            let changed = *before != now;
            before.clone_from(&now);
            changed
        });
        tokio::select! {
            changed = ways.changed() => {
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
                let wanted = ways.borrow_and_update().clone();
                probes.follow(&wanted).await;
            }
            () = probes.hear() => {}
            () = sleep_until(due) => {}
        }
    }
}

#[derive(Debug)]
struct Probes {
    /// By source.
    sockets: BTreeMap<IpAddr, UdpSocket>,
    ways: Ways,
    heard: BTreeMap<IpAddr, Instant>,
    /// Cannot be asked: the benefit of the doubt.
    unasked: BTreeSet<IpAddr>,
    /// There was a new one then.
    news: Instant,
    all_asked: Instant,
}

impl Default for Probes {
    fn default() -> Self {
        let now = Instant::now();
        let (sockets, heard) = (BTreeMap::new(), BTreeMap::new());
        Self { sockets, ways: Ways::new(), heard, unasked: BTreeSet::new(), news: now, all_asked: now - EVERY }
    }
}

impl Probes {
    async fn follow(&mut self, ways: &Ways) {
        if !ways.is_subset(&self.ways) {
            self.news = Instant::now();
        }
        self.ways.clone_from(ways);
        self.unasked.clear();
        let sources: BTreeSet<IpAddr> = ways.iter().map(|(_, source)| *source).collect();
        self.sockets.retain(|source, _| sources.contains(source));
        for source in sources {
            if self.sockets.contains_key(&source) {
                continue;
            }
            match UdpSocket::bind((source, PORT)).await {
                Ok(socket) => drop(self.sockets.insert(source, socket)),
                Err(error) => {
                    warn!(%source, port = PORT, %error, "nodes cannot be asked whether they take encapsulated packets");
                    self.unasked.extend(ways.iter().filter(|(_, s)| *s == source).map(|(to, _)| *to));
                }
            }
        }
        self.heard.retain(|to, _| ways.iter().any(|(destination, _)| destination == to));
    }

    /// Asks whose turn it is, and says when the next turn is.
    async fn ask(&mut self, now: Instant) -> Instant {
        let everybody = now >= self.all_asked + EVERY;
        let young = now < self.news + AT_FIRST;
        let probe = [VERSION, FLAG_PROBE << 4, 0, 0, 0, 0, 0, 0];
        for (to, source) in &self.ways {
            if (everybody || (young && !self.heard.contains_key(to)))
                && let Some(socket) = self.sockets.get(source)
            {
                // What cannot be sent is not answered.
                let _ = socket.try_send_to(&probe, SocketAddr::new(*to, PORT));
            }
        }
        if everybody {
            self.all_asked = now;
        }
        let missing = self.ways.iter().any(|(to, _)| !self.heard.contains_key(to) && !self.unasked.contains(to));
        if young && missing { now + SOON } else { self.all_asked + EVERY }
    }

    fn answering(&self, now: Instant) -> BTreeSet<IpAddr> {
        let heard = self.heard.iter().filter(|(_, at)| now.saturating_duration_since(**at) < LOST);
        heard.map(|(to, _)| *to).chain(self.unasked.iter().copied()).collect()
    }

    /// Waits until something came, and takes it.
    async fn hear(&mut self) {
        if self.sockets.is_empty() {
            std::future::pending::<()>().await;
        }
        let _ = select_all(self.sockets.values().map(|socket| Box::pin(socket.readable()))).await;
        let mut buffer = [0; 64];
        for socket in self.sockets.values() {
            while let Ok((length, from)) = socket.try_recv_from(&mut buffer) {
                let to = from.ip().to_canonical();
                let known = self.ways.iter().any(|(destination, _)| *destination == to);
                if known && buffer[..length] == [VERSION, FLAG_ANSWER << 4, 0, 0, 0, 0, 0, 0] {
                    self.heard.insert(to, Instant::now());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address of the loopback network that no other process of these tests has.
    fn loopback(host: u8) -> IpAddr {
        let id = std::process::id().to_be_bytes();
        [127, 1 + id[2] % 250, id[3], host].into()
    }

    #[tokio::test]
    async fn node_that_answers_is_told_from_one_that_is_silent_or_says_something_else() {
        let (own, good, silent, odd) = (loopback(1), loopback(2), loopback(3), loopback(4));
        let wanted: Ways = [good, silent, odd].map(|to| (to, own)).into();
        let (_ways, for_probes) = watch::channel(wanted);
        let mut for_probes = for_probes;
        for_probes.mark_changed();
        let (to_answering, mut answering) = watch::channel(BTreeSet::new());
        let answer = |at: IpAddr, flags: u8| async move {
            let socket = UdpSocket::bind((at, PORT)).await.expect("a free address");
            let mut buffer = [0; 64];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.expect("a probe");
                assert_eq!(buffer[..length], [2, 0x20, 0, 0, 0, 0, 0, 0]);
                socket.send_to(&[2, flags << 4, 0, 0, 0, 0, 0, 0], from).await.expect("sent");
            }
        };
        let told = async {
            answering.wait_for(|now| !now.is_empty()).await.expect("it runs");
            tokio::time::sleep(3 * SOON).await;
            answering.borrow().clone()
        };
        let told = tokio::select! {
            never = run(for_probes, to_answering) => match never {},
            () = answer(good, 4) => unreachable!("it answers for ever"),
            () = answer(odd, 6) => unreachable!("it answers for ever"),
            told = told => told,
        };
        assert_eq!(told, [good].into());
    }

    #[tokio::test(start_paused = true)]
    async fn node_that_falls_silent_is_given_up_after_a_while() {
        let mut probes = Probes::default();
        let (to, start) = (loopback(2), Instant::now());
        probes.heard.insert(to, start);
        assert_eq!(probes.answering(start + LOST / 2), [to].into());
        assert!(probes.answering(start + LOST).is_empty());
    }
}
