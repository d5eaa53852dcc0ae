//! What a packet costs a node: ours beside rules of kube-proxy's kind for 1,000 Services, in one run.
//!
//! A rack of its own ([`rack`]): the client, and for each row a node with a pod. The client's kernel sends live frames
//! (`BPF_PROG_TEST_RUN`) over a veth; the node does what the row says, and what comes out of it is counted and dropped
//! at its end. Everything happens on one CPU, so the time a frame takes is the work that all of them did for it. The
//! row that drops at once, in the same run, is what frames cost without any node; the others are net of it. The first
//! node is compared with rules that send the packet to a pod of another node, as it does: they translate both of its
//! ends. Delivery is compared with rules that deliver.
//!
//! The kernel takes the time, around the frames alone: what a system call of this kind does before and after them takes
//! up to two ticks of its clock. The sender has a real-time priority, so that neither other processes nor the kernel's
//! own threads take part of the work, or of the CPU. Repetitions of the rows take turns, and the least counts: what
//! else the machine does is noise, and never negative.

mod rack;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context;

use self::rack::Rack;
use crate::lab::{
    args::{Args, word},
    claim::Claim,
    report::{Expectation, Report, Verdict},
};

/// Repetitions of everything.
const ROUNDS: usize = 31;
/// Frames of established flows in one repetition, and how many flows they are of.
const ESTABLISHED: (u32, u32) = (10_000, 1000);
/// Frames of new flows, one for each; few enough that conntrack holds those of all repetitions.
const NEW: u32 = 4_000;
/// What is under way when the last frame was sent arrives within this.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

/// What a node does with a packet for a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// Drops it in XDP.
    Drop,
    /// Sends it back as it is: what the next row cannot be cheaper than.
    Back,
    /// Encapsulates it for another node.
    FirstNode,
    /// Delivers it to its pod, past the stack.
    Bypass,
    /// Delivers it to its pod by the stack.
    Stack,
    /// Leaves it to the rules, for its pod.
    Rules,
    /// Leaves it to the rules, for a pod of another node.
    RulesOnward,
}

impl Row {
    const ALL: [Self; 7] =
        [Self::Drop, Self::Back, Self::FirstNode, Self::Bypass, Self::Stack, Self::Rules, Self::RulesOnward];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Back => "back",
            Self::FirstNode => "first node",
            Self::Bypass => "bypass",
            Self::Stack => "stack",
            Self::Rules => "rules",
            Self::RulesOnward => "rules, pod elsewhere",
        }
    }

    /// How many times cheaper than the rules that do the same it must be, established and new; equal is within what
    /// noise leaves.
    fn target(self) -> Option<(Self, [f64; 2])> {
        match self {
            Self::FirstNode => Some((Self::RulesOnward, [15.0, 35.0])),
            Self::Bypass => Some((Self::Rules, [2.5, 6.0])),
            Self::Stack => Some((Self::Rules, [0.97, 0.97])),
            Self::Drop | Self::Back | Self::Rules | Self::RulesOnward => None,
        }
    }
}

/// Measures, and says what came of it.
///
/// # Errors
/// The rack could not be built.
pub(crate) async fn run(args: &Args, claim: &Claim, report: Report) -> anyhow::Result<Verdict> {
    let started = Instant::now();
    let mut rack = Rack::build(claim, &Row::ALL).await.context("build the rack")?;
    report.note(format!("{} nodes, {} rounds, frames of 154 octets, one CPU", Row::ALL.len(), ROUNDS));
    let mut samples: BTreeMap<(Row, bool), Vec<f64>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for row in Row::ALL {
            for new in [false, true] {
                let nanoseconds = once(&mut rack, row, new)?;
                // The first round makes the flows known.
                if round > 0 {
                    samples.entry((row, new)).or_default().push(nanoseconds);
                }
            }
        }
    }
    let costs: BTreeMap<_, _> = samples.into_iter().map(|(key, values)| (key, least(&values))).collect();
    judge(&costs, &report);
    let progress = report.progress();
    Ok(Verdict {
        ok: report.ok(),
        scenario: word(args.scenario),
        router: word(args.router),
        datapath: "xdp".into(),
        nodes: Row::ALL.len(),
        seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        expectations: progress.expectations,
        timings: progress.timings,
        samples: Vec::new(),
    })
}

/// Nanoseconds for each frame of one repetition.
fn once(rack: &mut Rack, row: Row, new: bool) -> anyhow::Result<f64> {
    let (frames, flows) = if new { (NEW, u32::MAX) } else { ESTABLISHED };
    let sent = rack.send(row, new, frames, flows, ARRIVES_WITHIN)?;
    anyhow::ensure!(
        sent.ended * 100 >= u64::from(frames) * 99,
        "{}: {} of {frames} frames arrived",
        row.word(),
        sent.ended
    );
    Ok(sent.each.as_secs_f64() * 1e9)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// Ratios to the rules, net of what a dropped frame costs.
fn judge(costs: &BTreeMap<(Row, bool), f64>, report: &Report) {
    let net = |row: Row, new: bool| costs[&(row, new)] - costs[&(Row::Drop, new)];
    for ((row, new), nanoseconds) in costs {
        let kind = if *new { "new" } else { "established" };
        report.figure(&format!("{}, {kind}", row.word()), *nanoseconds, "ns");
    }
    for row in Row::ALL {
        let Some((peer, targets)) = row.target() else { continue };
        for (new, target) in [false, true].into_iter().zip(targets) {
            let (ours, rules) = (net(row, new), net(peer, new));
            // Less than a drop is noise, and no result.
            let ratio = if ours > 0.0 { rules / ours } else { 0.0 };
            report.record(Expectation {
                name: format!("{}, {} flows", row.word(), if new { "new" } else { "established" }),
                expected: format!("at least {target} times as cheap as the {}", peer.word()),
                seen: format!("{ratio:.2} times: {ours:.0} ns, the {} {rules:.0} ns, net of a drop", peer.word()),
                ok: ratio >= target,
                waiting: None,
            });
        }
    }
}
