//! One rule at a time, without faults.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use crate::{
    provider::{
        Lease, LeaseId, LeaseState, Marking, Marks,
        claims::{Action, Machine, Outcome, Settings, Timing, World},
    },
    types::{Claim, ClaimId, ClaimSpec, ClaimState, Family, Need, PoolProvider, Reclaim, ServiceKey},
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn machine(journal: Vec<Claim>) -> Machine {
    let timing = Timing::default();
    let settings = Settings { cluster: "ours".into(), provider: "metal".into(), marking: Marking::AtClaim, timing };
    Machine::new(settings, journal, 1)
}

fn world(needs: &[&str], terms: impl FnOnce(&mut PoolProvider)) -> World {
    let mut provider = PoolProvider {
        name: "metal".into(),
        kind: None,
        region: None,
        reclaim: Reclaim::Delete,
        block: None,
        block_v6: None,
    };
    terms(&mut provider);
    let need = |name: &&str| Need {
        service: ServiceKey::new("web", *name),
        pool: "p".into(),
        family: Family::Ipv4,
        address: None,
    };
    World {
        needs: needs.iter().map(need).collect(),
        used: BTreeSet::new(),
        announced: BTreeSet::new(),
        pools: [("p".to_owned(), provider)].into(),
    }
}

fn lease(id: &str, network: &str, tags: &[String]) -> Lease {
    Lease {
        id: LeaseId(id.into()),
        network: network.parse().ok(),
        state: LeaseState::Ready,
        tags: tags.iter().cloned().collect(),
        created: Some(at(0)),
        region: None,
        kind: None,
        assigned: None,
    }
}

fn bound(id: u64, n: u8) -> (Claim, Lease) {
    let spec = ClaimSpec {
        provider: "metal".into(),
        pool: "p".into(),
        service: Some(ServiceKey::new("web", format!("s{n}"))),
        family: Family::Ipv4,
        kind: None,
        region: None,
        prefix_len: 32,
        reclaim: Reclaim::Delete,
    };
    let id = ClaimId::new(id);
    let marks = super::super::marks("ours", id, &spec);
    let network = format!("203.0.113.{n}/32");
    let lease = lease(&format!("l{n}"), &network, &marks.tags());
    let state = ClaimState::Bound { lease: lease.id.clone(), network: network.parse().expect("a network") };
    (Claim { id, spec, state, problem: None, deleting: false }, lease)
}

/// Takes steps that need nobody but the journal, and shows the first that does; `None` when there is none.
fn request(machine: &mut Machine, now: SystemTime, world: &World) -> Option<Action> {
    for _ in 0..10 {
        for action in machine.next(now, world) {
            match action {
                Action::Write(_) | Action::Forget(_) => machine.done(now, &action, Outcome::Done),
                request => return Some(request),
            }
        }
    }
    None
}

fn states(machine: &Machine) -> Vec<&'static str> {
    machine.claims().map(|claim| claim.state.phase()).collect()
}

#[test]
fn one_block_is_claimed_for_many_services_and_the_next_when_it_is_full() {
    let mut machine = machine(Vec::new());
    machine.listed(at(1), at(1), Vec::new());
    let block = |terms: &mut PoolProvider| terms.block = Some(29);
    let many = world(&["a", "b", "c"], block);
    let Some(Action::Claim { order, .. }) = request(&mut machine, at(2), &many) else { panic!("a block is claimed") };
    assert_eq!((order.prefix_len, &order.marks.service), (29, &None));
    let granted = lease("l1", "203.0.113.8/29", &order.marks.tags());
    machine.listed(at(3), at(3), vec![granted.clone()]);
    assert_eq!(request(&mut machine, at(4), &many), None, "one is enough until plan has taken from it");
    assert_eq!(states(&machine), ["Sent"], "the request is still under way");
    let id = order.marks.claim;
    machine.done(at(4), &Action::Claim { id, order }, Outcome::Claimed(crate::provider::Claimed::Lease(granted)));
    assert_eq!(request(&mut machine, at(5), &many), None);
    assert_eq!(states(&machine), ["Bound"]);
    let mut full = world(&["z"], block);
    full.used.insert("203.0.113.9".parse().expect("an address"));
    assert!(matches!(request(&mut machine, at(6), &full), Some(Action::Claim { .. })), "another one");
}

#[test]
fn address_of_the_retired_controller_is_marked_and_then_used() {
    let digest = "service=b+nvaG/iVH8R5tUq1FsZdQlKfzmX9m0cL0xO0mJw3oE=";
    let service = ServiceKey::new("web", "front");
    let hash = {
        use base64::Engine as _;
        let digest = ring::digest::digest(&ring::digest::SHA256, service.to_string().as_bytes());
        format!("service={}", base64::engine::general_purpose::STANDARD.encode(digest))
    };
    let old = |cluster: &str, service: &str| {
        ["usage=cloud-provider-equinix-metal-auto".to_owned(), format!("cluster={cluster}"), service.to_owned()]
    };
    let mut machine = machine(Vec::new());
    let leases = vec![
        lease("other-cluster", "203.0.113.1/32", &old("theirs", &hash)),
        lease("other-service", "203.0.113.2/32", &old("ours", digest)),
        lease("ours", "203.0.113.3/32", &old("ours", &hash)),
    ];
    machine.listed(at(1), at(1), leases);
    let needs = world(&["front"], |_| {});
    let Some(action) = request(&mut machine, at(2), &needs) else { panic!("the lease is marked") };
    let Action::Mark { lease, marks: Some(marks), .. } = &action else { panic!("{action:?}") };
    assert_eq!((lease.0.as_str(), marks.service.as_deref()), ("ours", Some("web/front")));
    assert_eq!(states(&machine), ["Pending"], "not used before it is ours");
    machine.done(at(3), &action, Outcome::Done);
    assert_eq!(request(&mut machine, at(4), &needs), None);
    assert_eq!(states(&machine), ["Bound"]);
}

#[test]
fn retained_address_stays_until_its_claim_is_deleted_and_then_loses_its_marks_only() {
    let (mut claim, lease) = bound(7, 1);
    claim.spec.reclaim = Reclaim::Retain;
    let (id, mut machine) = (claim.id, machine(vec![claim]));
    machine.listed(at(1), at(1), vec![lease]);
    let nobody = world(&[], |terms| terms.reclaim = Reclaim::Retain);
    assert_eq!(request(&mut machine, at(1000), &nobody), None);
    assert_eq!(states(&machine), ["Retained"]);
    machine.deleted(id);
    let Some(action) = request(&mut machine, at(1001), &nobody) else { panic!("marks are taken off") };
    assert!(matches!(action, Action::Mark { marks: None, .. }), "{action:?}");
    machine.done(at(1002), &action, Outcome::Done);
    assert_eq!(request(&mut machine, at(1003), &nobody), None);
    assert!(states(&machine).is_empty());
}

#[test]
fn where_every_address_is_missing_at_once_nothing_changes() {
    let claims: Vec<Claim> = (1..=3).map(|n| bound(n.into(), n).0).collect();
    let mut machine = machine(claims);
    let mut needs = world(&["more"], |_| {});
    needs.used = (1..=3).map(|n| std::net::IpAddr::from([203, 0, 113, n])).collect();
    machine.listed(at(1), at(1), Vec::new());
    assert_eq!(request(&mut machine, at(2), &needs), None);
    assert_eq!(states(&machine), ["Bound"; 3]);
    assert_eq!(machine.problem().map(|problem| problem.reason.as_str()), Some("AllAddressesMissing"));
}

#[test]
fn address_with_an_edited_mark_is_used_and_not_released() {
    let (claim, mut lease) = bound(7, 1);
    lease.tags.retain(|tag| !tag.starts_with("ironcast-pool"));
    let mut machine = machine(vec![claim]);
    let mut used = world(&[], |_| {});
    used.used.insert([203, 0, 113, 1].into());
    machine.listed(at(1), at(1), vec![lease.clone()]);
    assert_eq!(request(&mut machine, at(2), &used), None);
    let told = machine.claims().next().and_then(|claim| claim.problem.clone());
    assert_eq!((states(&machine), told.map(|p| p.reason)), (vec!["Bound"], Some("MarksEdited".to_owned())));
}

#[test]
fn address_that_another_cluster_marked_is_lost_and_never_released() {
    let (claim, mut lease) = bound(7, 1);
    let marks = Marks { cluster: "theirs".into(), ..super::super::marks("ours", claim.id, &claim.spec) };
    lease.tags = marks.tags().into_iter().collect();
    let mut machine = machine(vec![claim]);
    let mut used = world(&[], |_| {});
    used.used.insert([203, 0, 113, 1].into());
    machine.listed(at(1), at(1), vec![lease]);
    assert_eq!(request(&mut machine, at(2), &used), None);
    assert_eq!(states(&machine), ["Lost"], "withdrawn first");
    assert_eq!(request(&mut machine, at(3), &world(&[], |_| {})), None);
    assert!(states(&machine).is_empty());
}

#[test]
fn second_lease_of_a_claim_is_a_reason_to_ask_who_announces_and_goes_when_nobody_does() {
    let (claim, kept) = bound(1, 1);
    let second = Lease { network: "198.51.100.9/32".parse().ok(), id: LeaseId("second".into()), ..kept.clone() };
    let mut machine = machine(vec![claim]);
    let everything: BTreeSet<_> = ["0.0.0.0/0".parse().expect("a network")].into();
    let used: BTreeSet<_> = kept.network.map(|network| network.addr()).into_iter().collect();
    let mut world = World { used, announced: everything, ..world(&[], |_| {}) };
    assert!(!machine.has_strays(), "nothing is known before the first list");
    machine.listed(at(10), at(10), vec![kept, second]);
    assert_eq!(machine.next(at(10), &world), [], "while nobody knows, everything may be announced");
    assert!(machine.has_strays());
    world.announced.clear();
    let actions = machine.next(at(11), &world);
    assert!(matches!(&actions[..], [Action::Release { lease: LeaseId(id), .. }] if id == "second"), "{actions:?}");
}

#[test]
fn address_that_another_service_has_by_now_serves_no_need_of_the_one_that_it_was_claimed_for() {
    let (claim, lease) = bound(1, 1);
    let network = lease.network.expect("it has one");
    let mut machine = machine(vec![claim]);
    machine.listed(at(10), at(10), vec![lease]);
    let wanted = world(&["s1"], |_| {});
    assert_eq!(machine.next(at(10), &wanted), [], "what is bound and free is for it");
    let taken = World { used: [network.addr()].into(), ..wanted };
    let actions = machine.next(at(11), &taken);
    assert!(matches!(&actions[..], [Action::Write(Claim { state: ClaimState::Wanted, .. })]), "{actions:?}");
}

#[test]
fn service_that_asks_for_an_address_by_name_keeps_none_that_is_another() {
    let (claim, lease) = bound(1, 1);
    let mut machine = machine(vec![claim]);
    machine.listed(at(10), at(10), vec![lease]);
    let mut world = world(&["s1"], |_| {});
    world.needs[0].address = Some("192.0.2.9".parse().expect("an address"));
    let actions = machine.next(at(10), &world);
    assert!(matches!(&actions[..], [Action::Write(Claim { state: ClaimState::Releasing { .. }, .. })]), "{actions:?}");
}
