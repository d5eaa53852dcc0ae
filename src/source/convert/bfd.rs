//! `BFDProfile` to [`BfdProfile`].

use std::{ops::RangeInclusive, time::Duration};

use ironcast_bgp::{
    InvalidValue,
    bfd::{Auth, AuthKind},
    speaker::Md5Key,
};

use super::{Converted, key, report::Report};
use crate::{
    source::{
        api::{BFDProfile, BfdAuthenticationType},
        index::ObjectKey,
    },
    types::BfdProfile,
};

const INTERVAL: RangeInclusive<u32> = 10..=60_000;

/// A profile whose Secret is not resolved yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileDraft {
    /// The rest.
    pub profile: BfdProfile,
    /// `authentication`.
    pub auth: Option<AuthDraft>,
}

/// Authentication without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthDraft {
    kind: AuthKind,
    key_id: u8,
    /// Where the key is.
    pub secret: ObjectKey,
}

impl AuthDraft {
    /// With the value of its Secret; an error where that is too long for the type.
    pub fn with(&self, key: &Md5Key) -> Result<Auth, InvalidValue> {
        Auth::new(self.kind, self.key_id, &key.0)
    }
}

/// The profile, but for the key of `authentication`, with MetalLB's defaults: 300 ms, 300 ms, 3, echo every 50 ms where it is on.
pub fn bfd_profile(object: &BFDProfile) -> Converted<ProfileDraft> {
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
    let echo_receive = spec.echo_receive_interval.map(|value| interval("echoReceiveInterval", Some(value), value));
    let detect_mult = small(&mut report, "detectMultiplier", spec.detect_multiplier.unwrap_or(3), 2..=255);
    let minimum_ttl = spec.minimum_ttl.map(|ttl| small(&mut report, "minimumTtl", ttl, 1..=254));
    let auth = spec.authentication.as_ref().map(|given| AuthDraft {
        kind: match given.kind {
            BfdAuthenticationType::Simple => AuthKind::Password,
            BfdAuthenticationType::KeyedSha1 => AuthKind::KeyedSha1,
            BfdAuthenticationType::MeticulousKeyedSha1 => AuthKind::MeticulousKeyedSha1,
        },
        key_id: given.key_id,
        secret: key::secret(object, &given.secret),
    });
    let profile = BfdProfile {
        name: object.metadata.name.clone().unwrap_or_default(),
        receive,
        transmit,
        detect_mult,
        echo: spec.echo_mode.then_some(echo),
        passive: spec.passive_mode,
        minimum_ttl,
        echo_receive,
        auth: None,
    };
    report.finish(Some(ProfileDraft { profile, auth }))
}

fn small(report: &mut Report, field: &str, value: u32, range: RangeInclusive<u32>) -> u8 {
    if !range.contains(&value) {
        let hint = format!("use {} to {}", range.start(), range.end());
        report.error(format!("spec.{field}"), format!("{value} is out of range"), hint);
    }
    u8::try_from(value).unwrap_or(u8::MAX)
}
