//! The task of one station: dials, tells, dials again.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{interval_at, sleep, timeout},
};

use super::{
    Change, Note, Peers,
    feed::{Inlet, Item, feed},
};
use crate::{
    bmp::{Clock, Event, Identity, Station},
    jitter::Jitter,
};

/// An attempt to connect is given up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a connection that failed, doubled each time up to the longest.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(720);
/// A connection that lasted so long was no failure.
const SETTLED: Duration = Duration::from_secs(60);
/// Between Stats Reports.
const REPORT: Duration = Duration::from_secs(60);
/// A station that is gone without a word is noticed after about this.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// One that is there and takes nothing for so long is given up though little waits for it.
const USER_TIMEOUT: Duration = Duration::from_secs(180);

/// One station, as its task needs it.
pub(super) struct Link {
    pub(super) station: SocketAddr,
    pub(super) identity: Arc<Identity>,
    pub(super) notes: mpsc::Sender<Note>,
    pub(super) peers: Peers,
    pub(super) jitter: Jitter,
}

/// Why a connection ended.
enum Over {
    /// The speaker has said its last word.
    Ended,
    Lost(String),
}

impl Link {
    /// Runs until the speaker says a last word, or is gone.
    pub(super) async fn run(mut self) {
        let mut wait = SHORTEST_WAIT;
        loop {
            let start = Instant::now();
            let over = match connect(self.station).await {
                Ok(stream) => self.serve(stream).await,
                Err(error) => Over::Lost(error.to_string()),
            };
            let Over::Lost(why) = over else { return };
            if start.elapsed() >= SETTLED {
                wait = SHORTEST_WAIT;
            }
            if !self.note(Change::Lost(why)).await {
                return;
            }
            sleep(self.jitter.shorten(wait)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn note(&self, change: Change) -> bool {
        self.notes.send(Note { station: self.station, change }).await.is_ok()
    }

    async fn serve(&mut self, stream: TcpStream) -> Over {
        let (feed, inlet) = feed();
        if !self.note(Change::Connected(feed)).await {
            return Over::Ended;
        }
        let given_up = inlet.given_up.clone();
        let (read, write) = stream.into_split();
        let mut told = Told { station: Station::new(&self.identity), write, inlet, peers: self.peers.clone() };
        tokio::select! {
            over = told.tell() => over.unwrap_or_else(|error| Over::Lost(error.to_string())),
            over = silence(read) => over,
            () = given_up.cancelled() => Over::Lost("the station read too slowly: connection given up".into()),
        }
    }
}

async fn connect(station: SocketAddr) -> io::Result<TcpStream> {
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(station)).await.map_err(io::Error::from)??;
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 6))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// A station says nothing (RFC 7854 §3.2); what it says all the same is read and forgotten, for the end's sake.
async fn silence(mut read: OwnedReadHalf) -> Over {
    let mut sink = [0; 1024];
    loop {
        match read.read(&mut sink).await {
            Ok(0) => return Over::Lost("closed by the station".into()),
            Ok(_) => {}
            Err(error) => return Over::Lost(error.to_string()),
        }
    }
}

/// One connection, and what it is told.
struct Told {
    station: Station,
    write: OwnedWriteHalf,
    inlet: Inlet,
    peers: Peers,
}

impl Told {
    async fn tell(&mut self) -> io::Result<Over> {
        let mut reports = interval_at(tokio::time::Instant::now() + REPORT, REPORT);
        self.flush().await?;
        loop {
            tokio::select! {
                item = self.inlet.items.recv() => match item {
                    Some(Item::Beginning(events)) => for event in &events {
                        self.on_event(event).await?;
                    },
                    Some(Item::Event(event)) => {
                        self.on_event(&event).await?;
                        self.inlet.told(&event);
                    }
                    Some(Item::End) => {
                        self.station.end();
                        self.flush().await?;
                        self.write.shutdown().await?;
                        return Ok(Over::Ended);
                    }
                    None => std::future::pending().await, // given up, which the caller sees
                },
                _ = reports.tick() => {
                    let peers = self.peers.borrow_and_update().clone();
                    self.station.report(&Clock::read(), &peers);
                    self.flush().await?;
                }
            }
        }
    }

    async fn on_event(&mut self, event: &Event) -> io::Result<()> {
        self.station.handle(&Clock::read(), event);
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        while let Some(octets) = self.station.transmit() {
            self.write.write_all(&octets).await?;
        }
        Ok(())
    }
}
