//! Connections that stay open: each says something every half second and must get the same bytes back from the
//! pod that it began with. What a rehash breaks shows here and nowhere else.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::netns::Inside;

/// Between two rounds of a connection.
const PAUSE: Duration = Duration::from_millis(500);
/// Three retransmissions; whoever is silent for longer hangs.
const STALLED: Duration = Duration::from_secs(5);
/// A SYN may be lost while tables change.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// Handshakes under way at once.
const ABREAST: usize = 100;
/// Bytes of a round.
const LENGTH: usize = 128;
/// File descriptors beside the connections.
const SPARE_FILES: u64 = 512;

/// How a connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Fate {
    Alive,
    /// The other end, or somebody in its name, ended it.
    Reset,
    /// Nothing came back.
    Stalled,
    /// Other bytes came back.
    Damaged,
}

const FATES: [Fate; 4] = [Fate::Alive, Fate::Reset, Fate::Stalled, Fate::Damaged];

#[derive(Debug, Default)]
struct One {
    fate: AtomicU8,
    rounds: AtomicU64,
    pod: OnceLock<String>,
}

impl One {
    fn fate(&self) -> Fate {
        FATES[usize::from(self.fate.load(Relaxed))]
    }
}

/// Open connections; they end when this is dropped.
#[derive(Debug)]
pub(crate) struct Connections {
    all: Arc<Vec<One>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Connections {
    /// Opens so many connections to these addresses in turn, in the namespace of `inside`.
    ///
    /// # Errors
    /// One could not be opened.
    pub(crate) async fn open(inside: &Inside, to: Vec<SocketAddr>, count: usize) -> anyhow::Result<Self> {
        let wanted = count as u64 + SPARE_FILES;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        if limit.current.is_some_and(|now| now < wanted) {
            let raised = rustix::process::Rlimit { current: Some(wanted), maximum: limit.maximum };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)
                .with_context(|| format!("open {wanted} files at once"))?;
        }
        let connections = Self { all: Arc::new((0..count).map(|_| One::default()).collect()), stop: Arc::default() };
        let (all, stop) = (connections.all.clone(), connections.stop.clone());
        inside.spawn(open_all(all, stop, to)).await??;
        Ok(connections)
    }

    /// How many fared how, so far.
    pub(crate) fn fates(&self) -> BTreeMap<Fate, usize> {
        let mut fates = BTreeMap::new();
        for one in self.all.iter() {
            *fates.entry(one.fate()).or_default() += 1;
        }
        fates
    }

    /// How many live, and how all fare in words.
    pub(crate) fn census(&self) -> (usize, String) {
        let fates = self.fates();
        let [alive, reset, stalled, damaged] = FATES.map(|fate| fates.get(&fate).copied().unwrap_or_default());
        (alive, format!("{alive} alive, {reset} reset, {stalled} stalled, {damaged} damaged"))
    }

    /// Rounds of every connection until now.
    pub(crate) fn mark(&self) -> Vec<u64> {
        self.all.iter().map(|one| one.rounds.load(Relaxed)).collect()
    }

    /// Living connections that have not gone this many rounds since the mark.
    pub(crate) fn behind(&self, mark: &[u64], rounds: u64) -> usize {
        let is_behind = |(one, since): (&One, &u64)| {
            one.fate() == Fate::Alive && one.rounds.load(Relaxed) < since.saturating_add(rounds)
        };
        self.all.iter().zip(mark).filter(|pair| is_behind(*pair)).count()
    }

    /// How many of those to the `n`th of so many addresses are not alive.
    pub(crate) fn broken(&self, n: usize, addresses: usize) -> usize {
        self.all.iter().skip(n).step_by(addresses).filter(|one| one.fate() != Fate::Alive).count()
    }

    /// Pods with the numbers of their connections that are alive and dead.
    pub(crate) fn by_pod(&self) -> BTreeMap<String, [usize; 2]> {
        let mut pods: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for one in self.all.iter() {
            let pod = one.pod.get().cloned().unwrap_or_default();
            pods.entry(pod).or_default()[usize::from(one.fate() != Fate::Alive)] += 1;
        }
        pods
    }
}

async fn open_all(all: Arc<Vec<One>>, stop: Arc<AtomicBool>, to: Vec<SocketAddr>) -> anyhow::Result<()> {
    let mut opening = JoinSet::new();
    for (n, to) in (0..all.len()).zip(to.into_iter().cycle()) {
        if opening.len() >= ABREAST
            && let Some(done) = opening.join_next().await
        {
            done??;
        }
        let (all, stop) = (all.clone(), stop.clone());
        opening.spawn(async move {
            let opened = timeout(CONNECT_WITHIN, greeted(to)).await;
            let (pod, stream) = opened.with_context(|| format!("{to} does not answer"))??;
            let _ = all[n].pod.set(pod);
            tokio::spawn(async move {
                let fate = talk(stream, &all[n], n as u64, &stop).await;
                all[n].fate.store(fate as u8, Relaxed);
            });
            anyhow::Ok(())
        });
    }
    while let Some(done) = opening.join_next().await {
        done??;
    }
    Ok(())
}

/// The pod says its name first.
async fn greeted(to: SocketAddr) -> anyhow::Result<(String, BufReader<TcpStream>)> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let mut name = String::new();
    stream.read_line(&mut name).await.with_context(|| format!("read the greeting of {to}"))?;
    Ok((name.trim().to_owned(), stream))
}

/// Rounds until it breaks; one that is stopped is alive.
async fn talk(mut stream: BufReader<TcpStream>, one: &One, id: u64, stop: &AtomicBool) -> Fate {
    // Spread over the pause, as clients are.
    sleep(PAUSE.mul_f64((id % 97) as f64 / 97.0)).await;
    for round in 0_u64.. {
        if stop.load(Relaxed) {
            break;
        }
        let said = words(id, round);
        let exchange = async {
            stream.write_all(&said).await?;
            let mut heard = [0; LENGTH];
            stream.read_exact(&mut heard).await.map(|_| heard)
        };
        match timeout(STALLED, exchange).await {
            Err(_) => return Fate::Stalled,
            Ok(Err(_)) => return Fate::Reset,
            Ok(Ok(heard)) if heard != said => return Fate::Damaged,
            Ok(Ok(_)) => drop(one.rounds.fetch_add(1, Relaxed)),
        }
        sleep(PAUSE).await;
    }
    Fate::Alive
}

/// Bytes that no other connection and no other round has.
fn words(id: u64, round: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    for (n, word) in (0_u64..).zip(bytes.chunks_exact_mut(8)) {
        let mixed = (id << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n as u32) ^ n;
        word.copy_from_slice(&mixed.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_of_every_connection_has_bytes_of_its_own() {
        let all: std::collections::BTreeSet<_> = (0..50).flat_map(|id| (0..50).map(move |r| words(id, r))).collect();
        assert_eq!(all.len(), 2500);
    }
}
