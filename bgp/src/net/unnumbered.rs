//! Who is at the other end of a link: a router's link-local address, found by router advertisements, so that a
//! peer is known by its interface alone.
//!
//! ```text
//!  socket (ICMPv6, hop limit 255) ──▶ message::decode ──▶ machine (who was heard, when we speak) ──▶ watch: Links
//!                                 ◀── advertisement, solicitation ◀──┘
//! ```
//!
//! We send advertisements too, because routers such as FRR find *us* by them (RFC 4861 §6.2). They have a router
//! lifetime of 0: this host is no default router. A solicitation goes with them until somebody was heard, so that a
//! router answers at once and not after its own interval.
//!
//! Only packets with hop limit 255 count, which no router forwards (RFC 4861 §6.1). What is remembered is bounded:
//! some addresses for each link that was asked for.

mod machine;
mod message;
mod socket;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv6Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::unix::AsyncFd, sync::watch, time::sleep_until};

use machine::Machine;
pub use machine::{Ignored, Neighbours};
pub use message::{DecodeError, Message};
use socket::Socket;

/// What is known of each link that was asked for.
pub type Links = Arc<BTreeMap<String, Neighbours>>;

/// Packets read before anything else gets its turn.
const BATCH: usize = 32;

/// A handle to a running discovery; cheap to clone.
#[derive(Debug, Clone)]
pub struct Discovery {
    wanted: Arc<watch::Sender<BTreeSet<String>>>,
    links: watch::Receiver<Links>,
}

/// Discovery has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the discovery of neighbours has ended")]
pub struct Ended;

impl Discovery {
    /// Discovery on no link yet. The future runs it and ends when every handle is gone; dropping it ends it too. The
    /// socket is opened with the first link, in the network namespace of the thread that runs the future.
    pub fn start() -> (Self, impl Future<Output = ()> + Send) {
        let (wanted, inbox) = watch::channel(BTreeSet::new());
        let (publish, links) = watch::channel(Links::default());
        (Self { wanted: Arc::new(wanted), links }, run(inbox, publish))
    }

    /// Looks for neighbours on these interfaces and on no others.
    pub fn set_links(&self, interfaces: BTreeSet<String>) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != interfaces;
            *wanted = interfaces;
            changed
        });
    }

    /// What is known of each; newest wins.
    pub fn links(&self) -> watch::Receiver<Links> {
        self.links.clone()
    }
}

async fn run(mut wanted: watch::Receiver<BTreeSet<String>>, publish: watch::Sender<Links>) {
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let mut machine = Machine::new(seed);
    let mut socket: Option<AsyncFd<Socket>> = None;
    loop {
        speak(&mut machine, &mut socket);
        if let Some(links) = machine.take_changed() {
            publish.send_replace(Arc::new(links));
        }
        let deadline = machine.deadline().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => machine.want(Instant::now(), &wanted.borrow_and_update()),
                Err(_) => return,
            },
            result = readable(socket.as_ref()) => match result {
                Ok(()) => {
                    if let Some(socket) = &socket {
                        listen(&mut machine, socket);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "socket for router advertisements failed; it is opened anew");
                    socket = None;
                }
            },
            () = sleep_until(deadline.into()) => {}
        }
    }
}

/// Never ready without a socket.
async fn readable(socket: Option<&AsyncFd<Socket>>) -> io::Result<()> {
    match socket {
        // Readiness is cleared where the queue is found empty.
        Some(socket) => socket.readable().await.map(|mut guard| guard.retain_ready()),
        None => std::future::pending().await,
    }
}

fn listen(machine: &mut Machine, socket: &AsyncFd<Socket>) {
    for _ in 0..BATCH {
        let mut buffer = [0; socket::BUFFER];
        let received = socket.try_io(tokio::io::Interest::READABLE, |socket| socket.receive(&mut buffer));
        match received {
            Ok((length, arrival)) => {
                if let Err(ignored) = machine.handle(Instant::now(), &arrival, &buffer[..length]) {
                    tracing::debug!(source = %arrival.source, %ignored, "router advertisement ignored");
                }
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "router advertisement not read");
                }
                return;
            }
        }
    }
}

/// Sends what is due.
fn speak(machine: &mut Machine, socket: &mut Option<AsyncFd<Socket>>) {
    let now = Instant::now();
    while let Some(due) = machine.due(now) {
        let result = say(socket, &due.interface, due.solicit);
        machine.sent(now, &due.interface, result.map_err(|error| error.to_string()));
    }
}

/// Speaks on a link and returns its index.
fn say(socket: &mut Option<AsyncFd<Socket>>, interface: &str, solicit: bool) -> io::Result<u32> {
    let index = super::sockopt::interface_index(interface)
        .map_err(|e| io::Error::new(e.kind(), format!("interface {interface}: {e}")))?;
    let socket = match socket {
        Some(socket) => socket,
        None => {
            let opened = Socket::open().map_err(|e| {
                io::Error::new(e.kind(), format!("socket for router advertisements: {e}; it needs CAP_NET_RAW"))
            })?;
            socket.insert(opened)
        }
    };
    let socket = socket.get_ref();
    socket.join(index)?;
    let named = |e: io::Error| io::Error::new(e.kind(), format!("send on {interface}: {e}"));
    socket.send(index, Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1), &Message::OURS.encode()).map_err(named)?;
    if solicit {
        let all_routers = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 2);
        socket.send(index, all_routers, &Message::Solicitation.encode()).map_err(named)?;
    }
    Ok(index)
}
