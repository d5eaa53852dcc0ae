//! Datagrams at a steady pace, each to come back once: unlike TCP they show every single packet that is lost.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{MissedTickBehavior, timeout},
};

use super::{netns::Inside, pod};

/// Between two datagrams to one address.
const PACE: Duration = Duration::from_millis(1);
/// The last ones come back within this.
const LAST: Duration = Duration::from_millis(500);

/// Streams that go on in the background.
#[derive(Debug)]
pub(crate) struct Datagrams {
    stop: Arc<AtomicBool>,
    streams: Vec<tokio::task::JoinHandle<std::io::Result<Count>>>,
}

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) sent: u64,
    pub(crate) back: u64,
}

impl Datagrams {
    /// So many streams to each address, each from a port of its own.
    pub(crate) fn start(inside: &Inside, to: &[SocketAddr], streams: usize) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let each = |to: &SocketAddr| (0..streams).map(|_| inside.spawn(stream(*to, stop.clone()))).collect::<Vec<_>>();
        let streams = to.iter().flat_map(each).collect();
        Self { stop, streams }
    }

    /// Sends nothing more, and waits for what is under way.
    ///
    /// # Errors
    /// A socket could not be used.
    pub(crate) async fn stop(self) -> anyhow::Result<Count> {
        self.stop.store(true, Relaxed);
        let mut all = Count::default();
        for stream in self.streams {
            let count = stream.await??;
            all = Count { sent: all.sent + count.sent, back: all.back + count.back };
        }
        Ok(all)
    }
}

async fn stream(to: SocketAddr, stop: Arc<AtomicBool>) -> std::io::Result<Count> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    pod::give_room(&socket)?;
    // Connected: only what comes from the address that was asked is taken.
    socket.connect(to).await?;
    let (sent, mut back) = (AtomicU64::new(0), 0);
    let send = async {
        let mut tick = tokio::time::interval(PACE);
        // After a pause of ours no burst: that a queue of 256 frames overflows says nothing about daemons.
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !stop.load(Relaxed) {
            tick.tick().await;
            socket.send(&sent.fetch_add(1, Relaxed).to_be_bytes()).await?;
        }
        tokio::time::sleep(LAST).await;
        std::io::Result::Ok(())
    };
    let receive = async {
        let mut buffer = [0; 64];
        loop {
            if let Ok(Ok(8)) = timeout(LAST, socket.recv(&mut buffer)).await {
                back += 1;
            }
        }
    };
    tokio::select! {
        sent = send => sent?,
        () = receive => {}
    }
    Ok(Count { sent: sent.load(Relaxed), back })
}
