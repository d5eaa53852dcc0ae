//! One session with the socket that it sends from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::Socket;

use super::{Counters, Legacy, Session as Published, echo, socket};
use crate::{
    bfd::{Config, Endpoint, MULTI_HOP_PORT, Output, Path, SINGLE_HOP_PORT, Session},
    speaker::PeerId,
};

/// Between attempts to open what a session needs.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The longest that late wake-ups postpone a declaration, however many there are.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// The ports that RFC 5881 §4 allows as a source.
const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// One session and its way out.
pub(super) struct Link {
    pub(super) id: PeerId,
    pub(super) config: Config,
    pub(super) session: Session,
    pub(super) way: Way,
    /// The port to send from again: a predecessor's, or its own before its way was gone (RFC 5881 §4).
    pub(super) port: Option<u16>,
    /// Removed: says its AdminDown and is dropped.
    pub(super) leaving: bool,
    pub(super) counters: Arc<Counters>,
}

/// Whether a session can send.
pub(super) enum Way {
    Open(Outlet),
    Closed { problem: Arc<str>, retry_at: Instant },
}

/// Where a session's packets leave.
pub(super) struct Outlet {
    /// Connected, so that the kernel looks for the way once and not for each packet.
    socket: Socket,
    source_port: u16,
    /// Index of the interface of a single-hop session that names one.
    pub(super) interface: Option<u32>,
    echo: Option<echo::Sender>,
}

impl Link {
    pub(super) fn new(id: PeerId, config: Config, session: Session, port: Option<u16>, now: Instant) -> Self {
        let way = Way::Closed { problem: "not opened yet".into(), retry_at: now };
        Self { id, config, session, way, port, leaving: false, counters: Arc::default() }
    }

    /// What the caller's parameters come to on this path: echo is for one hop only (RFC 5883 §2, RFC 5881 §1).
    pub(super) fn effective(mut config: Config) -> Config {
        if matches!(config.endpoint.path, Path::MultiHop { .. }) {
            (config.params.echo, config.params.echo_receive) = (None, None);
        }
        config
    }

    pub(super) fn outlet(&self) -> Option<&Outlet> {
        match &self.way {
            Way::Open(outlet) => Some(outlet),
            Way::Closed { .. } => None,
        }
    }

    pub(super) fn source_port(&self) -> Option<u16> {
        self.outlet().map(|outlet| outlet.source_port)
    }

    /// When the driver has to look at this session next. Nobody is declared down before `not_before`.
    pub(super) fn deadline(&self, not_before: Instant) -> Option<Instant> {
        let first = match &self.way {
            Way::Open(_) => self.session.next_transmit(),
            Way::Closed { retry_at, .. } => Some(*retry_at),
        };
        [first, self.verdict(not_before)].into_iter().flatten().min()
    }

    /// When the session is declared down unless something comes.
    pub(super) fn verdict(&self, not_before: Instant) -> Option<Instant> {
        self.session.next_detection().map(|at| postponed(at, not_before))
    }

    /// Carries out what the session wants; `true` if its status has changed.
    pub(super) fn flush(&mut self, now: Instant) -> bool {
        let mut changed = false;
        while let Some(output) = self.session.poll() {
            match output {
                Output::Changed => changed = true,
                Output::Transmit(datagram) => changed |= self.transmit(now, datagram.as_ref()),
                Output::Echo(payload) => self.transmit_echo(now, payload.as_ref()),
            }
        }
        changed
    }

    /// Sends; `true` if the way out is gone and has to be opened anew.
    fn transmit(&mut self, now: Instant, octets: &[u8]) -> bool {
        let Way::Open(outlet) = &self.way else { return false };
        let Err(error) = outlet.send(octets) else {
            self.counters.note_sent();
            return false;
        };
        self.counters.note_send_error();
        // A full queue or a firewall heals by itself. Else interface, address or route are not what they were.
        let passing = [libc::ECONNREFUSED, libc::ENOBUFS, libc::EAGAIN, libc::EPERM];
        if error.raw_os_error().is_some_and(|code| passing.contains(&code)) {
            return false;
        }
        self.port = Some(outlet.source_port);
        let problem = format!("send BFD to {}: {error}", self.config.endpoint.peer).into();
        self.way = Way::Closed { problem, retry_at: now + RETRY };
        true
    }

    fn transmit_echo(&mut self, now: Instant, payload: &[u8]) {
        let Way::Open(outlet) = &mut self.way else { return };
        let Some(echo) = &mut outlet.echo else { return };
        match echo.send(now, payload) {
            Ok(()) => self.counters.note_echo_sent(),
            Err(_) => self.counters.note_send_error(),
        }
    }

    /// What a successor may have of it.
    pub(super) fn legacy(&self) -> Option<Legacy> {
        Some(Legacy {
            peer: self.id.clone(),
            endpoint: self.config.endpoint.clone(),
            source_port: self.source_port()?,
            handover: self.session.handover()?,
        })
    }

    /// At an orderly end: it has nothing more to say or to wait for.
    pub(super) fn may_be_left(&self) -> bool {
        !self.leaving && (self.legacy().is_some() || !self.session.is_polling())
    }

    pub(super) fn publish(&self) -> Published {
        let problem = match &self.way {
            Way::Open(_) => None,
            Way::Closed { problem, .. } => Some(Arc::clone(problem)),
        };
        Published { status: self.session.status(), problem, counters: Arc::clone(&self.counters) }
    }
}

fn postponed(at: Instant, not_before: Instant) -> Instant {
    not_before.clamp(at, at + GRACE)
}

impl Outlet {
    /// Opens the way to `endpoint` from `port`, or else from a port for which `taken` is false.
    pub(super) fn open(
        config: &Config,
        port: Option<u16>,
        random: u64,
        taken: impl Fn(u16) -> bool,
    ) -> io::Result<Self> {
        let endpoint = &config.endpoint;
        let v6 = endpoint.peer.is_ipv6();
        let interface = endpoint.interface.as_deref();
        let index = interface.map(socket::interface_index).transpose()?;
        let scope = index.unwrap_or(0);
        let socket = socket::sender(v6, interface)?;
        // A port that is taken meanwhile is no reason to have none: the peer goes by the discriminator.
        let start = port.map_or(random, |port| port.saturating_sub(*SOURCE_PORTS.start()).into());
        let source_port = bind(&socket, endpoint, scope, start, taken)?;
        let port = if endpoint.path == Path::SingleHop { SINGLE_HOP_PORT } else { MULTI_HOP_PORT };
        socket.connect(&address(endpoint.peer, port, scope).into())?;
        let interface = index.filter(|_| endpoint.path == Path::SingleHop);
        Ok(Self { socket, source_port, interface, echo: None })
    }

    /// Sends. A peer whose port was closed a packet ago is told this one all the same: its error is that one's.
    fn send(&self, octets: &[u8]) -> io::Result<usize> {
        match self.socket.send(octets) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => self.socket.send(octets),
            result => result,
        }
    }

    /// Echo packets can be sent if `config` wants them.
    pub(super) fn set_echo(&mut self, config: &Config) -> io::Result<()> {
        let wanted = config.params.echo.is_some();
        if wanted != self.echo.is_some() {
            let open = || echo::Sender::open(&config.endpoint, self.interface, self.source_port);
            self.echo = if wanted { open()? } else { None };
        }
        Ok(())
    }
}

/// Binds to a free port, the search beginning anywhere.
fn bind(socket: &Socket, endpoint: &Endpoint, scope: u32, random: u64, taken: impl Fn(u16) -> bool) -> io::Result<u16> {
    const ATTEMPTS: u16 = 256;
    let any = if endpoint.peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let local = endpoint.local.unwrap_or(any);
    let count = SOURCE_PORTS.end() - SOURCE_PORTS.start() + 1;
    let start = random as u16 % count;
    for step in 0..ATTEMPTS {
        let port = SOURCE_PORTS.start() + start.wrapping_add(step) % count;
        if taken(port) {
            continue;
        }
        match socket.bind(&address(local, port, scope).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other.map(|()| port),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The scope counts for link-local addresses only.
fn address(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, scope).into(),
        _ => (ip, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_postpones_a_declaration_but_never_for_long() {
        let at = Instant::now();
        let ms = |millis| at + Duration::from_millis(millis);
        assert_eq!(postponed(ms(30), ms(0)), ms(30), "punctual");
        assert_eq!(postponed(ms(30), ms(45)), ms(45), "late once");
        assert_eq!(postponed(ms(30), ms(500)), ms(130), "late again and again");
    }
}
