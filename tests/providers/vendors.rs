//! The other providers' clients against their emulators: the life of an address, then the peers. Requests are checked by
//! Prism where the vendor has a specification, by the vendor's JSON Schemas for Latitude.sh, and by nothing but the
//! emulator for Cherry Servers, which publishes none, and NetBox.

use std::time::Duration;

use ironcast::{
    provider::{
        Account, AddressSource, BgpMode, Claimed, DeviceState, Enabled, Lease, LeaseState, Marks, NodeId, Order,
        ProjectBgp, Refusal, Secret, SourceError, cherry, latitude, netbox, phoenixnap, vultr,
    },
    types::Family,
};
use ironcast_emulator::{
    Emulator, Fault, Rule, Server, Vendor, cherry::Cherry, latitude::Latitude, netbox::NetBox, phoenixnap::PhoenixNap,
    vultr::Vultr,
};
use serde_json::json;

use crate::{
    clients::TOKEN,
    judge::{Prism, figure, python, reached, specification},
    packet::{lease, marks},
};

const LOCAL: ProjectBgp = ProjectBgp { mode: BgpMode::Local, asn: None, password: None };

async fn serve(vendor: impl Vendor + 'static) -> Server {
    Server::on_loopback(Emulator::new(vendor, &[TOKEN])).await.unwrap()
}

fn account(url: &str, project: &str) -> Account {
    Account {
        endpoint: Some(url.into()),
        project: Some(project.into()),
        token: Some(Secret::new(TOKEN)),
        ..Account::default()
    }
}

fn order(region: &str, claim: u64) -> Order {
    Order { family: Family::Ipv4, kind: None, region: Some(region.into()), prefix_len: 32, marks: marks(claim) }
}

fn node(device: &str) -> NodeId {
    NodeId { name: "node-1".into(), device: device.into() }
}

/// Claim, lost answer, list, mark, refuse another's, release twice.
async fn life(server: &Server, post: &str, source: &dyn AddressSource, region: &str) {
    let first = lease(source.claim(&order(region, 1)).await.unwrap());
    assert!(first.state == LeaseState::Ready && first.network.is_some(), "{first:?}");
    server.emulator().inject(Rule::next("POST", post, Fault::LoseAnswer));
    assert!(matches!(source.claim(&order(region, 2)).await, Err(SourceError::Ambiguous(_))));
    let listed = source.list().await.unwrap();
    let found: Vec<_> = listed.iter().map(|lease| Marks::read(&lease.tags).unwrap().unwrap()).collect();
    assert!(listed.len() == 2 && found.contains(&marks(1)) && found.contains(&marks(2)), "{found:?}");
    let second: &Lease = listed.iter().find(|lease| lease.id != first.id).unwrap();
    assert_ne!(first.network, second.network);
    source.mark(&first.id, Some(&marks(3))).await.unwrap();
    assert!(matches!(source.release(&first.id, &marks(1)).await, Err(SourceError::Foreign { .. })));
    for _ in 0..2 {
        source.release(&first.id, &marks(3)).await.unwrap();
        source.release(&second.id, &marks(2)).await.unwrap();
    }
    assert!(source.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vultr_by_its_specification() {
    let Some(specification) = specification("vultr.openapi.yaml") else { return };
    let machine = "cb676a46-66fd-4dfb-b839-443f2e6c0b60";
    let server = serve(Vultr::new(machine)).await;
    let Some(prism) = Prism::start(&specification, &server.url()).await else { return };
    let provider = vultr::leader(&account(&prism.url(), "")).unwrap();
    life(&server, "/reserved-ips", &*provider.addresses.unwrap(), "ewr").await;
    let peers = provider.peers.unwrap();
    assert_eq!(peers.device(&node(machine)).await.unwrap().state, DeviceState::Active);
    assert_eq!(prism.accepted(), reached(&server));
    figure("vultr, vultr.openapi.yaml", prism.accepted());
}

#[tokio::test]
async fn vultr_peers_come_with_a_password_from_the_api_and_with_texts_from_the_metadata() {
    let server = serve(Vultr::new("m")).await;
    let peers = vultr::leader(&account(&server.url(), "")).unwrap().peers.unwrap();
    assert!(matches!(peers.enable_project(&LOCAL).await.unwrap(), Enabled::ByHand(_)));
    server.emulator().steer(Duration::ZERO, &json!({ "bgp": true })).unwrap();
    assert_eq!(peers.enable_project(&LOCAL).await.unwrap(), Enabled::Yes);
    let of_api = peers.peers(&node("m")).await.unwrap().peers;
    assert!(of_api.len() == 2 && of_api.iter().all(|peer| peer.password.is_some() && peer.multihop == Some(2)));
    let metadata = Some(format!("{}/v1.json", server.url()));
    let own = vultr::node(&Account { metadata, ..Account::default() }).unwrap().peers(&node("m")).await.unwrap().peers;
    let pairs = |peers: &[ironcast::provider::ProvidedPeer]| {
        peers.iter().map(|peer| (peer.address, peer.my_asn, peer.peer_asn, peer.source)).collect::<Vec<_>>()
    };
    assert_eq!(pairs(&own), pairs(&of_api));
}

#[tokio::test]
async fn vultr_follows_cursors_over_all_pages() {
    let mut vultr = Vultr::new("m");
    vultr.page_limit = 2;
    let server = serve(vultr).await;
    let source = vultr::leader(&account(&server.url(), "")).unwrap().addresses.unwrap();
    for claim in 0..5 {
        source.claim(&order("ewr", claim)).await.unwrap();
    }
    assert_eq!(source.list().await.unwrap().len(), 5);
}

/// One Prism for each of the three APIs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phoenixnap_by_its_specifications() {
    let server = serve(PhoenixNap::new("s1", "client", "hush", TOKEN)).await;
    let mut prisms = Vec::new();
    for name in ["ipapi", "networkapi", "bmcapi"] {
        let Some(specification) = specification(&format!("phoenixnap/{name}.yaml")) else { return };
        let Some(prism) = Prism::start(&specification, &server.url()).await else { return };
        prisms.push(prism);
    }
    let endpoints = prisms.iter().map(Prism::url).collect::<Vec<_>>().join(" ");
    let account = Account {
        token: Some(Secret::new("client:hush")),
        metadata: Some(format!("{}/token", server.url())),
        ..account(&endpoints, "PHX")
    };
    let provider = phoenixnap::leader(&account).unwrap();
    let source = provider.addresses.unwrap();
    life(&server, "/ip-blocks", &*source, "PHX").await;
    let block = lease(source.claim(&order("PHX", 9)).await.unwrap());
    assert_eq!(block.network.unwrap().prefix_len(), 31);
    server.emulator().steer(Duration::ZERO, &json!({ "stock": false })).unwrap();
    let none = source.claim(&order("PHX", 10)).await;
    assert!(matches!(none, Err(SourceError::Refused { refusal: Refusal::NoStock, .. })), "{none:?}");

    let peers = provider.peers.unwrap();
    assert!(matches!(peers.enable_project(&LOCAL).await.unwrap(), Enabled::Requested(_)));
    peers.peers(&node("s1")).await.unwrap();
    assert_eq!(peers.enable_project(&LOCAL).await.unwrap(), Enabled::Yes);
    let found = peers.peers(&node("s1")).await.unwrap().peers;
    assert!(found.len() == 4 && found.iter().all(|peer| peer.multihop == Some(7) && peer.password.is_some()));
    assert_eq!(peers.device(&node("s1")).await.unwrap().state, DeviceState::Active);
    assert_eq!(prisms.iter().map(Prism::accepted).sum::<usize>(), reached(&server));
    for (name, prism) in ["ipapi", "networkapi", "bmcapi"].into_iter().zip(&prisms) {
        figure(&format!("phoenixnap, {name}.yaml"), prism.accepted());
    }
}

#[tokio::test]
async fn phoenixnap_gets_a_new_token_when_the_old_one_has_expired() {
    let server = serve(PhoenixNap::new("s1", "client", "hush", TOKEN)).await;
    let url = format!("{0} {0} {0}", server.url());
    let metadata = Some(format!("{}/token", server.url()));
    let right = Account { token: Some(Secret::new("client:hush")), metadata, ..account(&url, "PHX") };
    let source = phoenixnap::leader(&right).unwrap().addresses.unwrap();
    source.list().await.unwrap();
    server.emulator().inject(Rule::next("GET", "/ip-blocks", Fault::Refuse { status: 401, retry_after: None }));
    source.list().await.unwrap();
    let tokens = server.emulator().log().iter().filter(|entry| entry.path == "/token").count();
    assert_eq!(tokens, 2);
    let wrong = Account { token: Some(Secret::new("client:guess")), ..right };
    let error = phoenixnap::leader(&wrong).unwrap().addresses.unwrap().list().await.unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized(_)) && !error.to_string().contains("guess"), "{error}");
}

#[tokio::test]
async fn cherry_without_a_specification() {
    let server = serve(Cherry::new("217", "1234")).await;
    let provider = cherry::leader(&account(&server.url(), "217")).unwrap();
    life(&server, "/ips", &*provider.addresses.unwrap(), "LT-Siauliai").await;
    let (peers, node) = (provider.peers.unwrap(), node("1234"));
    for _ in 0..2 {
        assert_eq!(peers.enable_project(&LOCAL).await.unwrap(), Enabled::Yes);
        assert_eq!(peers.enable_node(&node).await.unwrap(), Enabled::Yes);
    }
    let found = peers.peers(&node).await.unwrap().peers;
    assert!(found.len() == 2 && found.iter().all(|peer| peer.prefix_budget == Some(10) && peer.source.is_some()));
    // Four requests a second, as the vendor asks.
    let emulator = server.emulator();
    let times: Vec<_> = emulator.log().iter().map(|entry| entry.at).collect();
    assert!(times.windows(5).all(|window| window[4] - window[0] >= 900), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latitude_by_its_schemas() {
    let Some(schemas) = specification("latitude/elasticip.schemas.json") else { return };
    let server = serve(Latitude::new("proj_1", "sv_1")).await;
    let provider = latitude::leader(&account(&server.url(), "proj_1")).unwrap();
    let (source, peers) = (provider.addresses.unwrap(), provider.peers.unwrap());
    assert_eq!(source.claim(&order("DAL", 1)).await.unwrap(), Claimed::Accepted);
    assert!(source.list().await.unwrap().is_empty());
    let listed = source.list().await.unwrap();
    assert_eq!((listed.len(), &listed[0].state), (1, &LeaseState::Ready));
    for _ in 0..2 {
        peers.bind(&listed[0].id, &node("sv_1")).await.unwrap();
    }
    assert_eq!(server.emulator().state()["bgp_sessions"].as_array().unwrap().len(), 1);
    assert_eq!(peers.device(&node("sv_1")).await.unwrap().state, DeviceState::Active);
    for _ in 0..2 {
        source.release(&listed[0].id, &marks(1)).await.unwrap();
    }
    assert!(source.list().await.unwrap().is_empty());

    let bodies: Vec<_> = server.emulator().log().iter().filter(|entry| entry.method == "POST").cloned().collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!(bodies).to_string()).unwrap();
    let (file, schemas) = (file.path().to_owned(), schemas);
    let said = tokio::task::spawn_blocking(move || {
        python("latitude_schemas.py", &[&schemas.to_string_lossy(), &file.to_string_lossy()])
    });
    if let Some(said) = said.await.unwrap() {
        figure("latitude, elasticip.schemas.json", said.trim().parse().unwrap());
    }
}

#[tokio::test]
async fn netbox_gives_addresses_of_a_prefix() {
    let server = serve(NetBox::new("7")).await;
    let source = netbox::leader(&account(&format!("{}/api", server.url()), "7")).unwrap().addresses.unwrap();
    life(&server, "/available-ips", &*source, "").await;
}

/// A real one, which `tests/providers/judges/nautobot` starts: its URL, a token and the id of a prefix 198.51.100.0/29.
#[tokio::test]
async fn nautobot_itself_gives_addresses_of_a_prefix() {
    let Ok(given) = std::env::var("IRONCAST_NAUTOBOT") else {
        eprintln!("skipped: IRONCAST_NAUTOBOT is not set, see tests/providers/judges/nautobot");
        return;
    };
    let [url, token, prefix] = given.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("URL TOKEN ID: {given}")
    };
    let account = Account { token: Some(Secret::new(token)), ..account(&format!("{url}/api"), prefix) };
    let source = netbox::leader(&account).unwrap().addresses.unwrap();
    assert_eq!(source.list().await.unwrap(), []);
    let first = lease(source.claim(&order("", 1)).await.unwrap());
    assert_eq!((&first.state, first.network.unwrap().prefix_len()), (&LeaseState::Ready, 32));
    assert!(first.created.is_some(), "{first:?}");
    let second = lease(source.claim(&order("", 2)).await.unwrap());
    assert_ne!(first.network, second.network);
    let listed = source.list().await.unwrap();
    let found: Vec<_> = listed.iter().map(|lease| Marks::read(&lease.tags).unwrap().unwrap()).collect();
    assert!(listed.len() == 2 && found.contains(&marks(1)) && found.contains(&marks(2)), "{found:?}");
    assert_eq!(source.poll(&first.id).await.unwrap().tags, first.tags);
    source.mark(&first.id, Some(&marks(3))).await.unwrap();
    assert!(matches!(source.release(&first.id, &marks(1)).await, Err(SourceError::Foreign { .. })));
    let mut more = Vec::new();
    let full = loop {
        match source.claim(&order("", 9)).await {
            Ok(claimed) => more.push(lease(claimed)),
            Err(error) => break error,
        }
        assert!(more.len() < 8, "a /29 has eight");
    };
    assert!(matches!(full, SourceError::Refused { refusal: Refusal::NoStock, .. }), "{full:?}");
    for lease in more {
        source.release(&lease.id, &marks(9)).await.unwrap();
    }
    source.mark(&second.id, None).await.unwrap();
    assert_eq!(Marks::read(&source.poll(&second.id).await.unwrap().tags), Ok(None));
    source.mark(&second.id, Some(&marks(2))).await.unwrap();
    for _ in 0..2 {
        source.release(&first.id, &marks(3)).await.unwrap();
        source.release(&second.id, &marks(2)).await.unwrap();
    }
    assert_eq!(source.list().await.unwrap(), []);
    let wrong = Account { token: Some(Secret::new("0000000000000000000000000000000000000000")), ..account.clone() };
    let refused = netbox::leader(&wrong).unwrap().addresses.unwrap().list().await;
    assert!(matches!(refused, Err(SourceError::Unauthorized(_))), "{refused:?}");
    let nowhere = Account { project: Some("00000000-0000-4000-8000-000000000000".into()), ..account };
    let refused = netbox::leader(&nowhere).unwrap().addresses.unwrap().list().await;
    assert!(matches!(refused, Err(SourceError::Refused { refusal: Refusal::UnknownProject, .. })), "{refused:?}");
}
