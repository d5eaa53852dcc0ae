//! The Packet emulator in the process: what each fault leaves behind, approval, paging, peering.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use ironcast_emulator::{
    Answer, Emulator, Fault, Outcome, RateLimit, Request, Rule,
    packet::{Device, Generation, Packet},
};
use serde_json::{Value, json};

const PROJECT: &str = "93125c2a-8b78-4d4f-a3c4-7367d6b7cca8";
const NOW: Duration = Duration::from_secs(1_780_000_000);

fn emulator(change: impl FnOnce(&mut Packet)) -> Emulator {
    let mut packet = Packet::new(PROJECT);
    change(&mut packet);
    Emulator::new(packet, &["good"])
}

fn ask(emulator: &mut Emulator, method: &str, path: &str, body: Value) -> Option<Answer> {
    let path = path.replace("{p}", PROJECT);
    match emulator.exchange(NOW, Request::new(method, &path, body).header("X-Auth-Token", "good")) {
        Outcome::Answered(answer, _) => Some(answer),
        Outcome::Lost => None,
    }
}

fn claim(emulator: &mut Emulator, tag: &str) -> Option<Answer> {
    let body = json!({ "type": "public_ipv4", "quantity": 1, "metro": "da", "tags": [tag] });
    ask(emulator, "POST", "/metal/v1/projects/{p}/ips", body)
}

fn tags(emulator: &mut Emulator) -> Vec<Value> {
    let list = ask(emulator, "GET", "/projects/{p}/ips", Value::Null).unwrap();
    list.body["ip_addresses"].as_array().unwrap().iter().map(|one| one["tags"][0].clone()).collect()
}

#[test]
fn every_fault_leaves_what_it_says() {
    for (fault, status, done) in [
        (Fault::Refuse { status: 500, retry_after: None }, Some(500), false),
        (Fault::Refuse { status: 429, retry_after: Some(7) }, Some(429), false),
        (Fault::FailAfter { status: 503 }, Some(503), true),
        (Fault::LoseRequest, None, false),
        (Fault::LoseAnswer, None, true),
        (Fault::Late { millis: 1 }, Some(201), true),
        (Fault::Garbage, Some(200), true),
    ] {
        let mut emulator = emulator(|_| {});
        emulator.inject(Rule::next("POST", "/ips", fault.clone()));
        let answer = claim(&mut emulator, "a");
        assert_eq!(answer.as_ref().map(|answer| answer.status), status, "{fault:?}");
        assert_eq!(tags(&mut emulator).len(), usize::from(done), "{fault:?}");
        let entry = &emulator.log()[0];
        assert_eq!((entry.status, entry.effect), (status.unwrap_or(0), if done { 201 } else { 0 }), "{fault:?}");
        // Once only.
        assert_eq!(claim(&mut emulator, "b").unwrap().status, 201);
    }
}

#[test]
fn a_refusal_names_the_time_to_wait() {
    let mut emulator = emulator(|_| {});
    emulator.inject(Rule::next("", "", Fault::Refuse { status: 429, retry_after: Some(7) }));
    let answer = claim(&mut emulator, "a").unwrap();
    assert!(answer.headers.contains(&("Retry-After".into(), "7".into())));
}

#[test]
fn a_thousand_addresses_stand_on_five_pages_once_each() {
    let mut emulator = emulator(|_| {});
    for n in 0..1000 {
        assert_eq!(claim(&mut emulator, &n.to_string()).unwrap().status, 201);
    }
    let page = |emulator: &mut Emulator, n: u32| {
        let answer = ask(emulator, "GET", &format!("/projects/{{p}}/ips?per_page=200&page={n}"), Value::Null).unwrap();
        assert_eq!(answer.body["meta"]["last_page"], 5);
        let ips = answer.body["ip_addresses"].as_array().unwrap().clone();
        ips.iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let all: BTreeSet<_> = (1..=5).flat_map(|n| page(&mut emulator, n)).collect();
    assert_eq!(all.len(), 1000);
    let first = page(&mut emulator, 1);
    emulator.inject(Rule::next("GET", "/ips", Fault::DuplicatePage));
    assert_eq!(page(&mut emulator, 2), first);
}

#[test]
fn over_quota_waits_for_people_or_fails() {
    let mut emulator = emulator(|packet| packet.quota = 1);
    assert_eq!(claim(&mut emulator, "a").unwrap().body["state"], "created");
    let waiting = claim(&mut emulator, "b").unwrap().body;
    assert_eq!(waiting["state"], "pending");
    assert_eq!(waiting.get("address"), None);
    let strict = json!({ "type": "public_ipv4", "quantity": 1, "metro": "da", "fail_on_approval_required": true });
    assert_eq!(ask(&mut emulator, "POST", "/projects/{p}/ips", strict).unwrap().status, 422);
    let id = waiting["id"].as_str().unwrap();
    emulator.steer(NOW, &json!({ "approve": id })).unwrap();
    let approved = ask(&mut emulator, "GET", &format!("/ips/{id}"), Value::Null).unwrap().body;
    assert_eq!((&approved["state"], approved["address"].is_string()), (&json!("created"), true));
}

#[test]
fn an_address_comes_back_after_its_release() {
    let mut emulator = emulator(|_| {});
    let first = claim(&mut emulator, "a").unwrap().body;
    let id = first["id"].as_str().unwrap();
    assert_eq!(ask(&mut emulator, "DELETE", &format!("/ips/{id}"), Value::Null).unwrap().status, 204);
    assert_eq!(ask(&mut emulator, "DELETE", &format!("/ips/{id}"), Value::Null).unwrap().status, 404);
    assert_eq!(claim(&mut emulator, "b").unwrap().body["address"], first["address"]);
}

#[test]
fn assigned_parts_are_not_available_and_hold_the_reservation() {
    let mut emulator = emulator(|packet| {
        let device = Device::new("n1", Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 66, 0, 0));
        packet.add(Device { id: "00000000-0000-4000-8000-000000000001".into(), ..device });
    });
    let body = json!({ "type": "public_ipv4", "quantity": 4, "metro": "da" });
    let block = ask(&mut emulator, "POST", "/projects/{p}/ips", body).unwrap().body;
    let path = format!("/ips/{}", block["id"].as_str().unwrap());
    let free = |emulator: &mut Emulator| {
        ask(emulator, "GET", &format!("{path}/available?cidr=32"), Value::Null).unwrap().body["available"].clone()
    };
    let before = free(&mut emulator);
    assert_eq!(before.as_array().unwrap().len(), 4);
    let device = "/devices/00000000-0000-4000-8000-000000000001/ips";
    let assigned = ask(&mut emulator, "POST", device, json!({ "address": before[1] })).unwrap();
    assert_eq!((assigned.status, &assigned.body["type"]), (201, &json!("IPAssignment")));
    assert_eq!(free(&mut emulator).as_array().unwrap().len(), 3);
    assert_eq!(ask(&mut emulator, "DELETE", &path, Value::Null).unwrap().status, 422);
    let assignment = format!("/ips/{}", assigned.body["id"].as_str().unwrap());
    assert_eq!(ask(&mut emulator, "DELETE", &assignment, Value::Null).unwrap().status, 204);
    assert_eq!(ask(&mut emulator, "DELETE", &path, Value::Null).unwrap().status, 204);
}

#[test]
fn neighbours_need_project_bgp_and_a_session_and_come_in_two_generations() {
    let mut id = String::new();
    let mut emulator = emulator(|packet| {
        id = packet.add(Device::new("n1", Ipv4Addr::new(10, 66, 0, 3), Ipv4Addr::new(10, 66, 0, 2)));
    });
    let sessions = format!("/devices/{id}/bgp/sessions");
    let v4 = json!({ "address_family": "ipv4" });
    assert_eq!(ask(&mut emulator, "GET", "/projects/{p}/bgp-config", Value::Null).unwrap().body, json!({}));
    assert_eq!(ask(&mut emulator, "POST", &sessions, v4.clone()).unwrap().status, 422);
    let enable = json!({ "deployment_type": "local", "asn": 65000 });
    assert_eq!(ask(&mut emulator, "POST", "/projects/{p}/bgp-configs", enable).unwrap().status, 204);
    assert_eq!(ask(&mut emulator, "POST", &sessions, v4.clone()).unwrap().status, 201);
    let again = ask(&mut emulator, "POST", &sessions, v4).unwrap();
    assert!(again.status == 422 && again.body["errors"][0].as_str().unwrap().contains("already has session"));

    let mut request = Request::new("GET", "/metadata", Value::Null);
    request.from = Ipv4Addr::new(10, 66, 0, 3).into();
    let mut metadata = || match emulator.exchange(NOW, request.clone()) {
        Outcome::Answered(answer, _) => answer.body["bgp_neighbors"][0].clone(),
        Outcome::Lost => panic!("lost"),
    };
    let multihop = metadata();
    assert_eq!(
        (&multihop["peer_ips"], &multihop["multihop"]),
        (&json!(["169.254.255.1", "169.254.255.2"]), &json!(true))
    );
    emulator.steer(NOW, &json!({ "peering": [id, "single_hop"] })).unwrap();
    let neighbours = ask(&mut emulator, "GET", &format!("/devices/{id}/bgp/neighbors"), Value::Null).unwrap().body;
    let single = &neighbours["bgp_neighbors"][0];
    assert_eq!((&single["peer_ips"], &single["multihop"]), (&json!(["10.66.0.2"]), &json!(false)));
    assert_eq!(Generation::SingleHop, serde_json::from_value(json!("single_hop")).unwrap());
}

#[test]
fn tokens_expire_and_rates_are_limited() {
    let mut emulator = emulator(|_| {});
    emulator.set_tokens(["new".to_owned()]);
    let answer = claim(&mut emulator, "a").unwrap();
    assert_eq!((answer.status, answer.body), (401, json!({ "error": "Invalid authentication token" })));
    emulator.set_tokens(["good".to_owned()]);
    emulator.set_limit(Some(RateLimit::new(1, Duration::from_secs(60))));
    let header = |answer: &Answer, name: &str| answer.headers.iter().find(|(key, _)| key == name).unwrap().1.clone();
    let first = claim(&mut emulator, "a").unwrap();
    assert_eq!((first.status, header(&first, "X-RateLimit-Remaining").as_str()), (201, "0"));
    let second = claim(&mut emulator, "b").unwrap();
    assert_eq!(second.status, 429);
    assert!((1..=60).contains(&header(&second, "Retry-After").parse::<u64>().unwrap()));
    assert_eq!(emulator.log().last().unwrap().effect, 429);
}
