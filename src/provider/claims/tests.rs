//! The machine against a provider that fails in every way, killed at any moment.
//!
//! `IRONCAST_CLAIM_SCHEDULES` says how many random schedules are tried; `IRONCAST_CLAIM_SEED` repeats one.

mod cluster;
pub(crate) mod provider;
mod schedule;
mod single;

use self::schedule::{Sabotage, run};

fn schedules(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse().expect("a number"));
    match number("IRONCAST_CLAIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("IRONCAST_CLAIM_SCHEDULES").unwrap_or(default),
    }
}

#[test]
fn no_schedule_of_faults_and_crashes_leaks_or_releases_what_is_announced() {
    let mut counted = schedule::Counted::default();
    for seed in schedules(100) {
        counted += run(seed, Sabotage::None).unwrap_or_else(|fault| panic!("schedule {seed}: {fault}"));
    }
    println!("{counted:?}");
    if counted.schedules >= 100 {
        assert!(counted.crashes > 0 && counted.ambiguous > 0 && counted.duplicates > 0 && counted.released > 0);
    }
}

#[test]
fn no_schedule_leaks_or_claims_twice_where_the_provider_keeps_no_marks() {
    let mut counted = schedule::Counted::default();
    for seed in schedules(100) {
        counted += run(seed, Sabotage::Unmarked).unwrap_or_else(|fault| panic!("schedule {seed}: {fault}"));
    }
    println!("{counted:?}");
    if counted.schedules >= 100 {
        assert!(counted.crashes > 0 && counted.ambiguous > 0 && counted.released > 0);
    }
}

#[test]
fn releasing_before_the_withdrawal_is_caught() {
    caught(Sabotage::ReleaseEarly, "announced");
}

#[test]
fn claiming_without_marks_is_caught() {
    caught(Sabotage::NoMarks, "leak");
}

#[test]
fn taking_another_clusters_marks_for_ours_is_caught() {
    caught(Sabotage::OthersAreOurs, "another cluster");
}

/// Some schedule among the first finds the fault that was put in.
fn caught(sabotage: Sabotage, word: &str) {
    let found = (0..200).filter_map(|seed| run(seed, sabotage).err()).any(|fault| fault.contains(word));
    assert!(found, "{sabotage:?} passed");
}
