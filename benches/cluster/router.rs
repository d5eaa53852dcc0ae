//! A router that only listens: it takes one session at a time, IPv4 alone, and notes when it heard of each prefix.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;

/// One change that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) at: SystemTime,
    pub(crate) announced: bool,
}

#[derive(Debug, Default)]
struct Table {
    prefixes: HashSet<(u32, u8)>,
    last: Option<SystemTime>,
    next: Option<Heard>,
}

/// The router's own view.
pub(crate) struct Router {
    port: u16,
    table: Arc<Mutex<Table>>,
}

impl Router {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let table = Arc::<Mutex<Table>>::default();
        let its = Arc::clone(&table);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // A connection that ends takes its routes along.
                let _ = serve(connection, &its);
                lock(&its).prefixes.clear();
            }
        });
        Self { port, table }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn known(&self) -> usize {
        lock(&self.table).prefixes.len()
    }

    pub(crate) fn forget(&self) {
        let begun = Instant::now();
        while self.known() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "the connection of a daemon that is gone stays");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// When the last message with routes came.
    pub(crate) fn last(&self) -> SystemTime {
        lock(&self.table).last.expect("something was heard")
    }

    /// From now on the next change counts.
    pub(crate) fn listen(&self) {
        lock(&self.table).next = None;
    }

    pub(crate) async fn next(&self) -> Heard {
        let begun = Instant::now();
        loop {
            if let Some(heard) = lock(&self.table).next {
                return heard;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "a change never arrived");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).expect("short");
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

fn serve(mut connection: TcpStream, table: &Mutex<Table>) -> std::io::Result<()> {
    loop {
        let mut header = [0; 19];
        connection.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
        let mut body = vec![0; length.saturating_sub(19)];
        connection.read_exact(&mut body)?;
        match header[18] {
            OPEN => {
                // Version 4, AS 64500, no hold time, an identifier; IPv4 unicast and four-octet AS numbers.
                let capabilities = [1, 4, 0, 1, 0, 1, 65, 4, 0, 0, 0xfb, 0xf4];
                let open = [&[4, 0xfb, 0xf4, 0, 0, 192, 0, 2, 1, 14, 2, 12][..], &capabilities].concat();
                connection.write_all(&message(OPEN, &open))?;
                connection.write_all(&message(KEEPALIVE, &[]))?;
            }
            UPDATE => update(&body, table),
            _ => {}
        }
    }
}

fn update(body: &[u8], table: &Mutex<Table>) {
    let at = SystemTime::now();
    let length = |from: usize| usize::from(u16::from_be_bytes([body[from], body[from + 1]]));
    let withdrawn = 2..2 + length(0);
    let attributes = withdrawn.end + 2 + length(withdrawn.end);
    let mut table = lock(table);
    let mut changed = |bytes: &[u8], announced: bool| {
        let mut rest = bytes;
        while let Some((length, tail)) = rest.split_first() {
            let octets = usize::from(length.div_ceil(8));
            let mut address = [0; 4];
            address[..octets].copy_from_slice(&tail[..octets]);
            let prefix = (u32::from_be_bytes(address), *length);
            match announced {
                true => table.prefixes.insert(prefix),
                false => table.prefixes.remove(&prefix),
            };
            table.last = Some(at);
            table.next.get_or_insert(Heard { at, announced });
            rest = &tail[octets..];
        }
    };
    changed(&body[withdrawn], false);
    changed(&body[attributes..], true);
}
