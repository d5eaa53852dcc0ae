//! A router that only listens: it answers an OPEN, and counts and times what comes.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::{Duration, Instant},
};

use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    wire::{
        Families,
        capability::Capabilities,
        message::{self, HEADER, Kind, frame},
        open::Open,
    },
};

/// Octets read at once.
const ROOM: usize = 256 * 1024;

pub(crate) struct Sink(TcpListener);

/// One session from Established to the End-of-RIB of both families.
pub(crate) struct Heard {
    pub(crate) took: Duration,
    pub(crate) octets: u64,
}

/// An established session and what has been read of it.
struct Session {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Octets of the buffer that are not looked at yet.
    from: usize,
    to: usize,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self::at(super::LOOPBACK)
    }

    pub(crate) fn at(address: IpAddr) -> Self {
        Self(TcpListener::bind((address, 0)).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Accepts, opens, and hears everything up to the second End-of-RIB. The clock starts where the speaker's session
    /// is established: when its last condition, our KEEPALIVE, is sent.
    pub(crate) fn hear(self) -> Heard {
        let (mut session, start) = self.establish();
        let (mut octets, mut ends) = (0, 0);
        loop {
            while let Some(length) = session.next(|message| ends += u8::from(is_end_of_rib(message))) {
                octets += length as u64;
            }
            if ends == 2 {
                return Heard { took: start.elapsed(), octets };
            }
            session.read();
        }
    }

    /// Hears the first `count` prefixes, and says from then on when an UPDATE comes.
    pub(crate) fn updates(self, count: u32) -> mpsc::Receiver<Instant> {
        let (told, times) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut session, _) = self.establish();
            let mut ends = 0;
            while ends < 2 {
                while session.next(|message| ends += u8::from(is_end_of_rib(message))).is_some() {}
                if ends < 2 {
                    session.read();
                }
            }
            ready.send(count).unwrap();
            while session.read() {
                let now = Instant::now();
                let mut updates = 0;
                while session.next(|message| updates += u8::from(message[18] == Kind::Update as u8)).is_some() {}
                if (0..updates).any(|_| told.send(now).is_err()) {
                    return;
                }
            }
        });
        is_ready.recv().unwrap();
        times
    }

    fn establish(self) -> (Session, Instant) {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut session = Session { stream, buffer: vec![0; ROOM], from: 0, to: 0 };
        let mut out = Vec::new();
        open().encode(&mut out);
        session.stream.write_all(&out).unwrap();
        let mut opened = false;
        while !opened {
            session.read();
            session.next(|message| opened = message[18] == Kind::Open as u8);
        }
        out.clear();
        message::encode_keepalive(&mut out);
        let start = Instant::now();
        session.stream.write_all(&out).unwrap();
        (session, start)
    }
}

impl Session {
    /// The length of the next message that is there whole.
    fn next(&mut self, mut look: impl FnMut(&[u8])) -> Option<usize> {
        let message = frame(&self.buffer[self.from..self.to], false).unwrap()?;
        look(message.octets);
        self.from += message.octets.len();
        Some(message.octets.len())
    }

    /// Reads more; false at the end.
    fn read(&mut self) -> bool {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let length = self.stream.read(&mut self.buffer[self.to..]).unwrap_or(0);
        self.to += length;
        length > 0
    }
}

/// RFC 4724 §2, in both forms.
fn is_end_of_rib(message: &[u8]) -> bool {
    message[18] == Kind::Update as u8 && matches!(message.len() - HEADER, 4 | 10 | 11)
}

fn open() -> Open {
    let asn = Asn::new(64999).unwrap();
    let capabilities = Capabilities {
        multiprotocol: Some(Families::from_iter([Family::Ipv4Unicast, Family::Ipv6Unicast])),
        four_octet_as: Some(asn.value()),
        ..Capabilities::default()
    };
    let id = RouterId::new([10, 0, 0, 99].into()).unwrap();
    Open { asn, hold_time: HoldTime::new(0).unwrap(), id, capabilities }
}

/// How long a plain loop takes to write so many octets to a reader like ours.
pub(crate) fn floor(octets: u64) -> Duration {
    let listener = TcpListener::bind((super::LOOPBACK, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let writer = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let chunk = vec![0xFF; 64 * 1024];
        let mut go = [0];
        stream.read_exact(&mut go).unwrap();
        let mut left = octets;
        while left > 0 {
            let part = usize::try_from(left).unwrap().min(chunk.len());
            stream.write_all(&chunk[..part]).unwrap();
            left -= part as u64;
        }
        stream
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = vec![0; ROOM];
    std::thread::sleep(Duration::from_millis(1));
    let start = Instant::now();
    stream.write_all(&[1]).unwrap();
    let mut left = octets;
    while left > 0 {
        left -= stream.read(&mut buffer).unwrap() as u64;
    }
    let took = start.elapsed();
    drop(writer.join());
    took
}
