//! The task that owns a speaker: one `select` over sockets, the speaker's deadline and commands.
//!
//! It ends after a shutdown; dropping its future closes every connection without a word. A connection that is
//! over is handed to a task of its own that writes the last message and waits, a second at most, until the peer
//! has read it; all such tasks belong to this one.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep_until, timeout},
};

use super::{
    Command,
    bmp::{StationStatus, Stations},
    dial,
    listen::{self, Listener},
    sockopt,
};
use crate::speaker::{
    ConnectionId, DynamicPeers, Output, PeerConfig, PeerId, PeerStatus, Received, Speaker, SpeakerConfig, Unreached,
};

/// Octets read at once; a message of any size fits beside what was left of the last read.
const READ: usize = 64 * 1024;
const SCRATCH: usize = 2 * READ;
/// How long a last message may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Last messages that are under way at once; a peer that connects and errs without end gets no more of them.
const MAX_FAREWELLS: usize = 1024;
/// Statuses are published at most this often.
const PUBLISH: Duration = Duration::from_millis(2);

type Dialled = (ConnectionId, Result<TcpStream, Unreached>);

/// A TCP connection with what has been read and not understood yet, and what has not been written yet.
struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    unwritten: Bytes,
}

/// What the sockets have to say.
enum Ready {
    Accepted(TcpStream),
    Connection(ConnectionId),
}

pub(super) struct Driver {
    speaker: Speaker,
    listeners: Vec<Listener>,
    dynamic: Vec<DynamicPeers>,
    connections: BTreeMap<ConnectionId, Connection>,
    dialling: JoinSet<Dialled>,
    attempts: HashMap<ConnectionId, AbortHandle>,
    farewells: JoinSet<()>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Arc<BTreeMap<PeerId, PeerStatus>>>,
    stations: Stations,
    published: Instant,
    received: Option<mpsc::Sender<Received>>,
    /// Waits for room in `received`; while it is not empty nothing is read.
    undelivered: VecDeque<Received>,
    scratch: Box<[u8]>,
    /// Where the next look at the sockets starts, so that a busy one does not starve the others.
    turn: ConnectionId,
}

impl Driver {
    pub(super) fn new(
        config: &SpeakerConfig,
        listeners: Vec<Listener>,
        commands: mpsc::Receiver<Command>,
        status: watch::Sender<Arc<BTreeMap<PeerId, PeerStatus>>>,
        stations: watch::Sender<Arc<BTreeMap<std::net::SocketAddr, StationStatus>>>,
        received: Option<mpsc::Sender<Received>>,
    ) -> Self {
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), config.router_id);
        let mut driver = Self {
            speaker: Speaker::new(config, received.is_some(), seed),
            listeners,
            dynamic: config.dynamic.clone(),
            connections: BTreeMap::new(),
            dialling: JoinSet::new(),
            attempts: HashMap::new(),
            farewells: JoinSet::new(),
            commands,
            stations: Stations::new(status.subscribe(), stations, !seed),
            status,
            published: Instant::now(),
            received,
            undelivered: VecDeque::new(),
            scratch: vec![0; SCRATCH].into(),
            turn: ConnectionId(0),
        };
        driver.update_listeners(&BTreeMap::new());
        driver
    }

    /// Runs until a shutdown is over, or until every handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.flush();
            let wake = self.wake();
            let reads = self.undelivered.is_empty();
            let room = self.received.clone().filter(|_| !reads);
            tokio::select! {
                biased;
                ready = poll_fn(|cx| poll_sockets(&self.listeners, &self.connections, self.turn, reads, cx)) => self.on_ready(ready),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown(how)) => return self.shutdown(&how).await,
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(dialled) = self.dialling.join_next(), if !self.dialling.is_empty() => {
                    if let Ok((id, result)) = dialled {
                        self.on_dialled(id, result);
                    }
                }
                note = self.stations.note() => self.stations.on_note(note, &mut self.speaker),
                Some(_) = self.farewells.join_next(), if !self.farewells.is_empty() => {}
                delivered = deliver(room, &mut self.undelivered) => if !delivered {
                    self.received = None;
                    self.undelivered.clear();
                },
                () = sleep_until(wake.into()) => self.on_timeout(reads),
            }
        }
    }

    fn on_timeout(&mut self, reads: bool) {
        let now = Instant::now();
        if !reads {
            self.speaker.not_reading(now);
        }
        self.speaker.handle_timeout(now);
    }

    fn wake(&self) -> Instant {
        let unpublished = self.speaker.is_changed().then_some(self.published + PUBLISH);
        let idle = Instant::now() + Duration::from_secs(3600);
        [self.speaker.deadline(), unpublished].into_iter().flatten().min().unwrap_or(idle)
    }

    /// Carries out what the speaker says, writes what can be written, tells who listens.
    fn flush(&mut self) {
        let now = Instant::now();
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            self.write(now, id);
        }
        while let Some(output) = self.speaker.poll() {
            self.carry_out(output);
        }
        while let Some(event) = self.speaker.poll_monitor() {
            self.stations.tell(&event);
        }
        if self.speaker.is_changed() && now >= self.published + PUBLISH {
            self.speaker.take_changed();
            self.published = now;
            self.status.send_replace(Arc::new(self.speaker.status()));
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect { id, config, .. } => {
                let attempt = self.dialling.spawn(async move { (id, dial::dial(&config).await) });
                self.attempts.insert(id, attempt);
            }
            Output::Close { id, farewell } => {
                if let Some(attempt) = self.attempts.remove(&id) {
                    attempt.abort();
                }
                if let (Some(connection), Some(farewell)) = (self.connections.remove(&id), farewell)
                    && self.farewells.len() < MAX_FAREWELLS
                {
                    self.farewells.spawn(say_farewell(connection, farewell));
                }
            }
            Output::Ttl { id, ttl } => {
                if let (Some(connection), Some(config)) = (self.connections.get(&id), self.speaker.config(id))
                    && let Err(error) = dial::distance(&SockRef::from(&connection.stream), config.address, ttl)
                {
                    tracing::warn!(peer = %config.address, %error, "TTL not changed");
                }
            }
            Output::Received(received) => {
                if self.received.is_some() {
                    self.undelivered.push_back(received);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Peers(peers) => {
                self.update_listeners(&peers);
                self.speaker.set_peers(now, peers);
                for (prefix, why) in self.listeners.iter().flat_map(Listener::refused) {
                    self.speaker.blame(prefix, why);
                }
            }
            Command::Exports(exports) => self.speaker.set_exports(now, exports),
            Command::Stations(identity, wanted) => self.stations.set(&identity, &wanted),
            Command::Path { peer, up } => self.speaker.path(now, &peer, up),
            // Who asked may have gone.
            Command::Unacknowledged(answer) => drop(answer.send(self.unacknowledged())),
            Command::Shutdown(_) => {}
        }
    }

    /// What stands between us and each peer: not written yet, or not acknowledged.
    fn unacknowledged(&self) -> BTreeMap<PeerId, u64> {
        let of = |(id, connection): (&ConnectionId, &Connection)| {
            let octets = sockopt::unacknowledged(&connection.stream).ok()?;
            Some((self.speaker.peer(*id)?.clone(), octets + connection.unwritten.len() as u64))
        };
        self.connections.iter().filter_map(of).collect()
    }

    fn update_listeners(&mut self, peers: &BTreeMap<PeerId, PeerConfig>) {
        for listener in &mut self.listeners {
            listener.update(peers, &self.dynamic);
        }
    }

    async fn shutdown(mut self, how: &crate::speaker::Shutdown) {
        self.speaker.shutdown(Instant::now(), how);
        self.published -= PUBLISH;
        self.flush();
        let farewells = async { while self.farewells.join_next().await.is_some() {} };
        tokio::join!(farewells, self.stations.end());
    }

    fn on_dialled(&mut self, id: ConnectionId, result: Result<TcpStream, Unreached>) {
        // Given up meanwhile: nobody would ever close the connection.
        if self.attempts.remove(&id).is_none() {
            return;
        }
        let now = Instant::now();
        let made = result.and_then(|stream| match dial::endpoint(&stream) {
            Ok(endpoint) => Ok((stream, endpoint)),
            Err(e) => Err(Unreached::Local(e.to_string())),
        });
        match made {
            Ok((stream, endpoint)) => {
                self.connections.insert(id, Connection { stream, unread: Vec::new(), unwritten: Bytes::new() });
                self.speaker.connected(now, id, endpoint);
            }
            Err(why) => self.speaker.unreached(now, id, &why),
        }
    }

    fn on_accepted(&mut self, stream: TcpStream) {
        let Ok(endpoint) = dial::endpoint(&stream) else { return };
        let Some(id) = self.speaker.accept(Instant::now(), endpoint) else {
            tracing::debug!(remote = %endpoint.remote, "connection refused: no such peer, or it is connected");
            return;
        };
        if let Some(config) = self.speaker.config(id)
            && let Err(error) = listen::apply(&stream, config)
        {
            tracing::warn!(remote = %endpoint.remote, %error, "socket options not set");
        }
        self.connections.insert(id, Connection { stream, unread: Vec::new(), unwritten: Bytes::new() });
    }

    fn on_ready(&mut self, ready: Ready) {
        match ready {
            Ready::Accepted(stream) => self.on_accepted(stream),
            Ready::Connection(id) => {
                self.turn = ConnectionId(id.0 + 1);
                self.write(Instant::now(), id);
                if self.undelivered.is_empty() {
                    self.read(id);
                }
            }
        }
        // What had arrived before a deadline was read before it; only now may the deadline fire.
        let now = Instant::now();
        if self.speaker.deadline().is_some_and(|at| at <= now) {
            self.on_timeout(self.undelivered.is_empty());
        }
    }

    /// Reads once and hands over what is complete; the rest waits beside the connection, usually nothing.
    fn read(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let kept = connection.unread.len();
        self.scratch[..kept].copy_from_slice(&connection.unread);
        let result = connection.stream.try_read(&mut self.scratch[kept..kept + READ]);
        let now = Instant::now();
        match result {
            Ok(0) => self.speaker.closed(now, id, "closed by the router"),
            Ok(length) => {
                let octets = &self.scratch[..kept + length];
                let taken = self.speaker.receive(now, id, octets);
                connection.unread.clear();
                connection.unread.extend_from_slice(&octets[taken..]);
                // A session that is over reads no more; what it did not read must not pile up.
                connection.unread.truncate(READ);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => self.speaker.closed(now, id, &e.to_string()),
        }
    }

    /// Writes until the speaker has nothing more or the socket takes nothing more.
    fn write(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        loop {
            if connection.unwritten.is_empty() {
                let Some(octets) = self.speaker.transmit(now, id) else { return };
                connection.unwritten = octets;
            }
            match connection.stream.try_write(&connection.unwritten) {
                Ok(length) => connection.unwritten.advance(length),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) => {
                    connection.unwritten.clear();
                    return self.speaker.closed(now, id, &e.to_string());
                }
            }
        }
    }
}

/// The first socket, from the one whose turn it is, that has something to do.
fn poll_sockets(
    listeners: &[Listener],
    connections: &BTreeMap<ConnectionId, Connection>,
    turn: ConnectionId,
    reads: bool,
    cx: &mut Context<'_>,
) -> Poll<Ready> {
    for listener in listeners {
        while let Poll::Ready(Ok((stream, remote))) = listener.socket.poll_accept(cx) {
            if listener.admits(remote.ip().to_canonical()) {
                return Poll::Ready(Ready::Accepted(stream));
            }
            tracing::debug!(%remote, "connection refused: the keys of its peer are not set");
        }
    }
    let after = connections.range(turn..).chain(connections.range(..turn));
    for (id, connection) in after {
        let readable = reads && connection.stream.poll_read_ready(cx).is_ready();
        let writable = connection.unwritten.has_remaining() && connection.stream.poll_write_ready(cx).is_ready();
        if readable || writable {
            return Poll::Ready(Ready::Connection(*id));
        }
    }
    Poll::Pending
}

/// Hands over one received route; false when nobody takes them any more. Never ready without a taker.
async fn deliver(to: Option<mpsc::Sender<Received>>, waiting: &mut VecDeque<Received>) -> bool {
    let Some(to) = to else { return std::future::pending().await };
    let Ok(permit) = to.reserve().await else { return false };
    if let Some(received) = waiting.pop_front() {
        permit.send(received);
    }
    while let Some(received) = waiting.pop_front() {
        if let Err(mpsc::error::TrySendError::Full(received)) = to.try_send(received) {
            waiting.push_front(received);
            break;
        }
    }
    true
}

/// Writes what was under way and the last message, and waits until the peer has closed: closing at once with
/// unread octets would reset the connection and lose the message.
async fn say_farewell(mut connection: Connection, last: Bytes) {
    let talk = async {
        connection.stream.write_all(&connection.unwritten).await?;
        connection.stream.write_all(&last).await?;
        connection.stream.shutdown().await?;
        let mut sink = [0; 4096];
        while connection.stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    if !matches!(timeout(FAREWELL, talk).await, Ok(Ok(()))) {
        tracing::debug!("the last message may not have arrived");
    }
}
