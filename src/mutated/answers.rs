//! What providers answer: the emulators' answers, damaged on their way to the clients.

use std::time::Duration;

use futures::StreamExt as _;
use ironcast_emulator::{
    Answer, Emulator, Request, Server, Vendor, cherry::Cherry, latitude::Latitude, netbox::NetBox, packet::Packet,
    phoenixnap::PhoenixNap, vultr::Vultr,
};
use serde_json::Value;

use super::{Damage, Seed, TEXTS, seeds};
use crate::{
    provider::{
        Account, BgpMode, Claimed, Deadlines, LeaseId, Marks, NodeId, Order, PeerSource, ProjectBgp, Provider, Secret,
        SourceError, cherry, latitude, netbox, packet, phoenixnap, vultr,
    },
    types::{ClaimId, Family},
};

const TOKEN: &str = "a-token-that-nobody-may-see";
const STATUS: [u16; 17] = [200, 201, 202, 204, 206, 301, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503, 599];
const HEADERS: [&str; 5] =
    ["Retry-After", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Total-Count", "Content-Encoding"];

/// A vendor whose every second answer is damaged.
struct Damaging {
    vendor: Box<dyn Vendor>,
    damage: Damage,
}

impl Vendor for Damaging {
    fn answer(&mut self, now: Duration, request: &Request) -> Answer {
        let mut answer = self.vendor.answer(now, request);
        // An answer with a token in it is no failure.
        match self.damage.below(if request.path.contains("token") { 9 } else { 10 }) {
            0..5 => {}
            5..8 => answer.body = self.damage.value(&answer.body),
            8 => {
                let text = self.damage.octets(answer.body.to_string().as_bytes());
                answer.content_type = "text/plain";
                answer.body = Value::String(String::from_utf8_lossy(&text).into_owned());
            }
            _ => {
                answer.status = *self.damage.pick(&STATUS);
                let (name, value) = (*self.damage.pick(&HEADERS), *self.damage.pick(&TEXTS));
                answer.headers.push((name.into(), value.into()));
            }
        }
        answer
    }

    fn error(&self, status: u16, message: &str) -> Answer {
        self.vendor.error(status, message)
    }

    fn token<'r>(&self, request: &'r Request) -> Option<&'r str> {
        self.vendor.token(request)
    }

    fn steer(&mut self, now: Duration, command: &Value) -> Result<(), String> {
        self.vendor.steer(now, command)
    }

    fn state(&self) -> Value {
        self.vendor.state()
    }
}

fn marks(claim: u64) -> Marks {
    Marks { cluster: "ours".into(), claim: ClaimId::new(claim), pool: "p".into(), service: Some("ns/s".into()) }
}

/// What a client made of its answers.
#[derive(Debug, Default)]
struct Heard {
    fine: u64,
    refused: u64,
}

impl Heard {
    fn note<T>(&mut self, answer: Result<T, SourceError>) -> Option<T> {
        if let Err(error) = &answer {
            assert!(!format!("{error} {error:?}").contains(TOKEN), "the token is shown: {error}");
        }
        match answer {
            Ok(answer) => {
                self.fine += 1;
                Some(answer)
            }
            Err(_) => {
                self.refused += 1;
                None
            }
        }
    }

    /// Every call that there is.
    async fn everything(&mut self, provider: &Provider, region: &str) {
        if let Some(source) = &provider.addresses {
            let order = Order {
                family: Family::Ipv4,
                kind: None,
                region: Some(region.into()),
                prefix_len: 32,
                marks: marks(1),
            };
            let claimed = self.note(source.claim(&order).await);
            let listed = self.note(source.list().await).unwrap_or_default();
            let lease = match claimed {
                Some(Claimed::Lease(lease)) => lease.id,
                _ => listed.first().map_or(LeaseId("1".into()), |lease| lease.id.clone()),
            };
            self.note(source.poll(&lease).await);
            self.note(source.mark(&lease, Some(&marks(2))).await);
            self.note(source.release(&lease, &marks(2)).await);
        }
        if let Some(peers) = &provider.peers {
            self.peers(&**peers).await;
        }
    }

    async fn peers(&mut self, peers: &dyn PeerSource) {
        let node = NodeId { name: "node-1".into(), device: "m".into() };
        let local = ProjectBgp { mode: BgpMode::Local, asn: None, password: None };
        self.note(peers.enable_project(&local).await);
        self.note(peers.enable_node(&node).await);
        self.note(peers.device(&node).await);
        self.note(peers.peers(&node).await);
        self.note(peers.bind(&LeaseId("1".into()), &node).await);
    }
}

fn account(url: &str) -> Account {
    Account {
        endpoint: Some(url.into()),
        metadata: Some(format!("{url}/v1.json")),
        project: Some("7".into()),
        token: Some(Secret::new(TOKEN)),
        deadlines: Deadlines {
            attempt: Duration::from_millis(200),
            call: Duration::from_millis(250),
            pause: Duration::from_millis(1),
        },
        ..Account::default()
    }
}

type Leader = fn(&Account) -> Result<Provider, crate::provider::SetupError>;

/// One vendor, what speaks for it, and a region that it has.
fn vendor(n: usize) -> (Box<dyn Vendor>, Leader, &'static str) {
    match n {
        0 => (Box::new(Packet::new("7")), packet::leader, "da"),
        1 => (Box::new(Vultr::new("m")), vultr::leader, "ewr"),
        2 => (Box::new(Cherry::new("7", "m")), cherry::leader, "LT-Siauliai"),
        3 => (Box::new(Latitude::new("7", "m")), latitude::leader, "ASH"),
        4 => (Box::new(NetBox::new("7")), netbox::leader, ""),
        _ => (Box::new(PhoenixNap::new("m", "client", "hush", TOKEN)), phoenixnap::leader, "PHX"),
    }
}

/// The life of an address and of a machine with the damage of one seed.
async fn live(seed: u64) -> (usize, Heard) {
    let _printed = Seed(seed);
    let n = (seed % 6) as usize;
    let (vendor, leader, region) = vendor(n);
    let damaging = Damaging { vendor, damage: Damage::new(seed) };
    let server = Server::on_loopback(Emulator::new(damaging, &[TOKEN])).await.expect("loopback");
    let mut account = account(&server.url());
    match n {
        4 => account.endpoint = Some(format!("{}/api", server.url())),
        5 => {
            account.token = Some(Secret::new("client:hush"));
            account.metadata = Some(format!("{}/token", server.url()));
            (account.endpoint, account.project) = (Some([&*server.url(); 3].join(" ")), Some("PHX".into()));
        }
        _ => {}
    }
    let mut heard = Heard::default();
    heard.everything(&leader(&account).expect("a client"), region).await;
    if n < 2 {
        let node = if n == 0 { packet::node } else { vultr::node };
        heard.peers(&*node(&account).expect("a client")).await;
    }
    (n, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_of_a_provider_is_too_odd() {
    let mut all: [Heard; 6] = Default::default();
    // Most of the time passes with waiting.
    let mut lives = futures::stream::iter(seeds(10)).map(live).buffer_unordered(32);
    while let Some((n, heard)) = lives.next().await {
        all[n].fine += heard.fine;
        all[n].refused += heard.refused;
    }
    println!("{all:?}");
    let tried = |heard: &Heard| heard.fine > 0 && heard.refused > 0;
    assert!(seeds(10).count() < 100 || all.iter().all(tried), "{all:?}");
}
