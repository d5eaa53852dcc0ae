//! `BFDProfile` to [`BfdProfile`].

use std::{ops::RangeInclusive, time::Duration};

use super::{Converted, report::Report};
use crate::{source::api::BFDProfile, types::BfdProfile};

const INTERVAL: RangeInclusive<u32> = 10..=60_000;

/// The profile, with MetalLB's defaults: 300 ms, 300 ms, 3, echo every 50 ms where it is on.
pub fn bfd_profile(object: &BFDProfile) -> Converted<BfdProfile> {
    let mut report = Report::new(object);
    let spec = &object.spec;
    let mut interval = |field: &str, value: Option<u32>, default: u32| {
        let value = value.unwrap_or(default);
        if !INTERVAL.contains(&value) {
            report.error(
                format!("spec.{field}"),
                format!("{value} ms is out of range"),
                "use 10 to 60000 (milliseconds)",
            );
        }
        Duration::from_millis(value.into())
    };
    let receive = interval("receiveInterval", spec.receive_interval, 300);
    let transmit = interval("transmitInterval", spec.transmit_interval, 300);
    let echo = interval("echoInterval", spec.echo_interval, 50);
    let detect_mult = small(&mut report, "detectMultiplier", spec.detect_multiplier.unwrap_or(3), 2..=255);
    let minimum_ttl = spec.minimum_ttl.map(|ttl| small(&mut report, "minimumTtl", ttl, 1..=254));
    report.finish(Some(BfdProfile {
        name: object.metadata.name.clone().unwrap_or_default(),
        receive,
        transmit,
        detect_mult,
        echo: spec.echo_mode.then_some(echo),
        passive: spec.passive_mode,
        minimum_ttl,
    }))
}

fn small(report: &mut Report, field: &str, value: u32, range: RangeInclusive<u32>) -> u8 {
    if !range.contains(&value) {
        let hint = format!("use {} to {}", range.start(), range.end());
        report.error(format!("spec.{field}"), format!("{value} is out of range"), hint);
    }
    u8::try_from(value).unwrap_or(u8::MAX)
}
