//! Many seeds, and faults that some of them must find.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use super::{Counted, Mutant, run};

/// CI tries ten times as many.
const SEEDS: u64 = 1_000;
/// Within so many a fault that was put in is found.
const FOUND_WITHIN: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().expect("a number"))
}

/// The first seed of these, on every processor, that violates something.
fn first(seeds: std::ops::Range<u64>, mutant: Option<Mutant>) -> Result<Counted, (u64, String)> {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let work = || {
        let mut counted = Counted::default();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end.min(failed.load(Relaxed)) {
                return counted;
            }
            match run(seed, mutant, false) {
                Ok(more) => counted.add(more),
                Err(_) => _ = failed.fetch_min(seed, Relaxed),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let counted = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Counted::default();
        workers.into_iter().for_each(|worker| all.add(worker.join().expect("it does not panic")));
        all
    });
    match failed.into_inner() {
        u64::MAX => Ok(counted),
        seed => Err((seed, run(seed, mutant, true).expect_err("the same seed does the same"))),
    }
}

impl Counted {
    fn add(&mut self, more: Self) {
        self.seeds += more.seeds;
        self.released += more.released;
        self.unreported += more.unreported;
        self.terms += more.terms;
        self.virtual_time += more.virtual_time;
    }
}

#[test]
fn no_seed_violates_what_must_hold() {
    if let Some(seed) = number("IRONCAST_SIMULATION_SEED") {
        run(seed, None, true).unwrap_or_else(|story| panic!("{story}"));
        return;
    }
    let start = number("IRONCAST_SIMULATION_START").unwrap_or(0);
    let seeds = start..start + number("IRONCAST_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let begun = std::time::Instant::now();
    match first(seeds, None) {
        Ok(counted) => {
            println!("{counted:?} in {:?}", begun.elapsed());
            assert!(counted.seeds < 100 || counted.released > 0, "nothing was tried");
        }
        Err((_, story)) => panic!("{story}"),
    }
}

/// Some seed among the first finds the fault, by the check that says this.
fn is_found(mutant: Mutant, word: &str) {
    if let Some(seed) = number("IRONCAST_SIMULATION_SEED") {
        println!("{:?}", run(seed, Some(mutant), true).map_err(|story| println!("{story}")));
        return;
    }
    let mut from = 0;
    loop {
        let found = first(from..FOUND_WITHIN, Some(mutant));
        let Err((seed, story)) = found else { panic!("{mutant:?}: no seed is told {word:?}") };
        let violation = story.lines().last().unwrap_or_default();
        if violation.contains(word) {
            return println!("{mutant:?} is found by {violation}");
        }
        // Another check was faster.
        from = seed + 1;
    }
}

#[test]
fn releasing_before_the_withdrawal_is_found() {
    is_found(Mutant::ReleasesFirst, "is released, and");
}

#[test]
fn announcing_before_the_record_is_found() {
    is_found(Mutant::AnnouncesFirst, "which is not held");
}

#[test]
fn sharing_without_a_look_is_found() {
    is_found(Mutant::SharesAlways, "has it");
}

#[test]
fn drain_that_is_forgotten_is_found() {
    is_found(Mutant::ForgetsDrain, "is drained and announces");
}

#[test]
fn lease_that_is_never_given_back_is_found() {
    is_found(Mutant::ForgetsToRelease, "never quiet");
}

#[test]
fn route_that_is_never_withdrawn_is_found() {
    is_found(Mutant::ForgetsToWithdraw, "which nobody has since");
}

#[test]
fn lease_of_another_cluster_that_is_taken_for_ours_is_found() {
    is_found(Mutant::TakesForOurs, "a lease of another cluster changed");
}
