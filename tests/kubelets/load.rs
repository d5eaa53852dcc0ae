//! The client: new requests one after the other, and connections that are held, until it is told to stop.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A request that takes longer has failed: one lost SYN is seen in `late`, two are a failure.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Nothing but a lost packet takes that long: TCP sends a SYN again after one second.
const LATE: Duration = Duration::from_millis(900);
const WORKERS: usize = 4;
const HELD: usize = 20;

/// What a load saw.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// New connections, each with one request.
    pub(crate) requests: usize,
    /// Messages over the held connections.
    pub(crate) messages: usize,
    /// Requests that a packet was lost of.
    pub(crate) late: usize,
    /// What went wrong, and when after the start.
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
}

/// A running load.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Report>>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, messages, late, failures, slowest } = self;
        write!(
            f,
            "{requests} requests, {messages} messages on {HELD} held connections; {} failed, {late} waited for a packet \
             to be sent again, slowest {slowest:.0?}",
            failures.len()
        )
    }
}

impl Load {
    /// Starts it in a network namespace: HTTP at port 80 of `address`, echo at port 7.
    pub(crate) fn start(netns: &str, address: Ipv4Addr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |held: bool| {
            let (stop, netns) = (Arc::clone(&stop), netns.to_owned());
            std::thread::spawn(move || {
                enter(&netns);
                if held { hold(address, &stop) } else { ask_on(address, &stop) }
            })
        };
        let threads = (0..=WORKERS).map(|number| spawn(number == WORKERS)).collect();
        Self { stop, threads }
    }

    /// Ends it and adds up.
    pub(crate) fn finish(self) -> Report {
        self.stop.store(true, Relaxed);
        let mut all = Report::default();
        for one in self.threads.into_iter().map(|thread| thread.join().expect("no panic")) {
            all.requests += one.requests;
            all.messages += one.messages;
            all.late += one.late;
            all.failures.extend(one.failures);
            all.slowest = all.slowest.max(one.slowest);
        }
        all
    }
}

/// Moves this thread into a network namespace.
pub(crate) fn enter(netns: &str) {
    let namespace = std::fs::File::open(format!("/run/netns/{netns}")).expect("the fabric made it");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
}

/// One request from a network namespace: the name of the pod that answered.
pub(crate) fn fetch(netns: &str, address: Ipv4Addr) -> Result<String, String> {
    let netns = netns.to_owned();
    let thread = std::thread::spawn(move || {
        enter(&netns);
        request(address)
    });
    thread.join().expect("no panic")
}

fn connect(address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn request(address: Ipv4Addr) -> Result<String, String> {
    let failed = |step: &'static str| move |error: std::io::Error| format!("{step}: {error}");
    let mut stream = connect(address, 80).map_err(failed("connect"))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(failed("send"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed("read"))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(format!("no answer: {answer:?}"))?;
    if head.contains(" 200 ") { Ok(body.trim().to_owned()) } else { Err(head.to_owned()) }
}

fn ask_on(address: Ipv4Addr, stop: &AtomicBool) -> Report {
    let (mut report, begun) = (Report::default(), Instant::now());
    while !stop.load(Relaxed) {
        let asked = Instant::now();
        if let Err(error) = request(address) {
            report.failures.push(format!("after {:.1?}: {error}", begun.elapsed()));
        }
        report.requests += 1;
        report.late += usize::from(asked.elapsed() > LATE);
        report.slowest = report.slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(25));
    }
    report
}

fn hold(address: Ipv4Addr, stop: &AtomicBool) -> Report {
    let (mut report, begun) = (Report::default(), Instant::now());
    let mut held: Vec<TcpStream> =
        (0..HELD).map(|_| connect(address, 7).expect("the echo answers before the load starts")).collect();
    while !stop.load(Relaxed) {
        held.retain_mut(|stream| {
            let (asked, mut answer) = (Instant::now(), [0; 4]);
            let echoed = stream.write_all(b"held").and_then(|()| stream.read_exact(&mut answer));
            report.messages += 1;
            report.late += usize::from(asked.elapsed() > LATE);
            report.slowest = report.slowest.max(asked.elapsed());
            if let Err(error) = &echoed {
                report.failures.push(format!("after {:.1?}: held connection: {error}", begun.elapsed()));
            }
            echoed.is_ok()
        });
        std::thread::sleep(Duration::from_millis(50));
    }
    report
}
