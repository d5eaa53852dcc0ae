//! What the client makes of every fault: which outcomes are ambiguous, which are repeated, what is never shown.

use std::time::Duration;

use ironcast::provider::{Account, AddressSource, Deadlines, LeaseState, Refusal, SourceError, packet};
use ironcast_emulator::{Fault, RateLimit, Rule, Server, packet::Packet};
use serde_json::json;

use crate::{
    clients::{TOKEN, metal},
    packet::{account, lease, marks, order},
};

async fn source(change: impl FnOnce(&mut Packet)) -> (Server, std::sync::Arc<dyn AddressSource>) {
    let (server, _) = metal(change).await;
    let deadlines =
        Deadlines { attempt: Duration::from_secs(1), call: Duration::from_secs(8), pause: Duration::from_millis(20) };
    let account = Account { deadlines, ..account(&server.url()) };
    let source = packet::leader(&account).unwrap().addresses.unwrap();
    (server, source)
}

fn held(server: &Server) -> usize {
    server.emulator().state()["ip_addresses"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_claim_that_may_have_arrived_is_ambiguous_and_is_sent_once() {
    for (fault, leased) in [
        (Fault::LoseAnswer, 1),
        (Fault::LoseRequest, 0),
        (Fault::Late { millis: 3000 }, 1),
        (Fault::Garbage, 1),
        (Fault::FailAfter { status: 502 }, 1),
        (Fault::Refuse { status: 500, retry_after: None }, 0),
    ] {
        let (server, source) = source(|_| {}).await;
        server.emulator().inject(Rule::next("POST", "/ips", fault.clone()));
        let outcome = source.claim(&order(1)).await;
        assert!(matches!(outcome, Err(SourceError::Ambiguous(_))), "{fault:?}: {outcome:?}");
        assert_eq!((held(&server), server.emulator().log().len()), (leased, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_claim_that_was_refused_for_its_rate_is_sent_again_after_the_time_asked_for() {
    let (server, source) = source(|_| {}).await;
    server.emulator().inject(Rule::next("POST", "", Fault::Refuse { status: 429, retry_after: Some(1) }));
    lease(source.claim(&order(1)).await.unwrap());
    let emulator = server.emulator();
    let [first, second] = emulator.log() else { panic!("{:?}", emulator.log()) };
    assert!(second.at - first.at >= 740, "{} ms", second.at - first.at);
}

#[tokio::test]
async fn a_list_survives_every_fault_that_passes() {
    for fault in [
        Fault::LoseAnswer,
        Fault::Late { millis: 3000 },
        Fault::FailAfter { status: 503 },
        Fault::Refuse { status: 500, retry_after: None },
    ] {
        let (server, source) = source(|_| {}).await;
        source.claim(&order(1)).await.unwrap();
        server.emulator().inject(Rule::next("GET", "/ips", fault.clone()));
        assert_eq!(source.list().await.unwrap().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_list_that_lacks_a_page_is_an_error_and_never_a_shorter_list() {
    let (server, source) = source(|packet| packet.page_limit = 2).await;
    for claim in 0..5 {
        source.claim(&order(claim)).await.unwrap();
    }
    server.emulator().inject(Rule { skip: 1, ..Rule::next("GET", "/ips", Fault::DuplicatePage) });
    assert!(matches!(source.list().await, Err(SourceError::Unreadable(_))));
    server.emulator().inject(Rule { skip: 2, times: 9, ..Rule::next("GET", "/ips", Fault::FailAfter { status: 500 }) });
    assert!(matches!(source.list().await, Err(SourceError::Unavailable { .. })));
    server.emulator().clear_faults();
    assert_eq!(source.list().await.unwrap().len(), 5);
}

#[tokio::test]
async fn an_exhausted_rate_is_waited_for_without_being_told_off() {
    let (server, source) = source(|_| {}).await;
    server.emulator().set_limit(Some(RateLimit::new(2, Duration::from_secs(2))));
    for claim in 0..4 {
        source.claim(&order(claim)).await.unwrap();
    }
    let refused = server.emulator().log().iter().filter(|entry| entry.status == 429).count();
    assert_eq!((held(&server), refused), (4, 0));
}

#[tokio::test]
async fn approval_quota_and_stock_say_what_they_are() {
    let (server, source) = source(|packet| packet.quota = 1).await;
    let now = Duration::ZERO;
    assert_eq!(lease(source.claim(&order(1)).await.unwrap()).state, LeaseState::Ready);
    let waiting = lease(source.claim(&order(2)).await.unwrap());
    assert!(matches!(waiting.state, LeaseState::Pending(_)) && waiting.network.is_none());
    server.emulator().steer(now, &json!({ "approve": waiting.id.0 })).unwrap();
    assert_eq!(source.poll(&waiting.id).await.unwrap().state, LeaseState::Ready);
    let denied = lease(source.claim(&order(3)).await.unwrap());
    server.emulator().steer(now, &json!({ "deny": denied.id.0 })).unwrap();
    assert!(matches!(source.poll(&denied.id).await.unwrap().state, LeaseState::Denied(_)));
    server.emulator().steer(now, &json!({ "out_of_stock": "da" })).unwrap();
    let none = source.claim(&order(4)).await;
    assert!(matches!(none, Err(SourceError::Refused { refusal: Refusal::NoStock, .. })), "{none:?}");
}

#[tokio::test]
async fn an_expired_token_is_said_and_never_shown() {
    let (server, source) = source(|_| {}).await;
    server.emulator().set_tokens([]);
    let error = source.claim(&order(1)).await.unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized(_)));
    assert!(!format!("{error:?} {error}").contains(TOKEN));
    assert!(!format!("{:?}", account("http://x")).contains(TOKEN));
    let unknown = Account { project: Some("00000000-0000-4000-8000-00000000dead".into()), ..account(&server.url()) };
    server.emulator().set_tokens([TOKEN.to_owned()]);
    let other = packet::leader(&unknown).unwrap().addresses.unwrap();
    let list = other.list().await;
    assert!(matches!(list, Err(SourceError::Refused { refusal: Refusal::UnknownProject, .. })), "{list:?}");
}

#[tokio::test]
async fn an_address_in_use_is_not_released() {
    let (server, source) = source(|_| {}).await;
    let lease = lease(source.claim(&order(1)).await.unwrap());
    let device = server.emulator().state()["devices"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/devices/{device}/ips");
    let body = json!({ "address": lease.network.unwrap() });
    let request = ironcast_emulator::Request::new("POST", &path, body).header("X-Auth-Token", TOKEN);
    server.emulator().exchange(Duration::ZERO, request);
    assert!(matches!(source.release(&lease.id, &marks(1)).await, Err(SourceError::InUse { .. })));
    assert_eq!(held(&server), 1);
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_not_ambiguous() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let deadlines = Deadlines { pause: Duration::from_millis(5), ..Deadlines::default() };
    let account = Account { deadlines, ..account(&format!("http://127.0.0.1:{port}")) };
    let source = packet::leader(&account).unwrap().addresses.unwrap();
    assert!(matches!(source.claim(&order(1)).await, Err(SourceError::Unavailable { .. })));
}
