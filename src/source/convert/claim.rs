//! `AddressClaim` to [`Claim`] and back: the object is the journal, so both ways must agree.

use std::time::SystemTime;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time},
    jiff::Timestamp,
};

use super::{Converted, report::Report};
use crate::{
    source::api::{AddressClaim, AddressClaimSpec, AddressClaimStatus, ReclaimPolicy},
    types::{Claim, ClaimId, ClaimProblem, ClaimSpec, ClaimState, LeaseId, Reclaim, ServiceKey},
};

/// The condition that says whether the address can be used.
const READY: &str = "Ready";

/// The claim. An object that people wrote by hand has no id for a name and is refused.
pub fn claim(object: &AddressClaim) -> Converted<Claim> {
    let mut report = Report::new(object);
    let name = object.metadata.name.clone().unwrap_or_default();
    let hint = "claims are made by the leader: name a provider in an IPAddressPool";
    let id: Option<ClaimId> = report.take("metadata.name", name.parse(), hint);
    let spec = &object.spec;
    let service = spec.service.as_deref().and_then(|service| {
        let parts = service.split_once('/').ok_or_else(|| format!("{service:?} is not namespace/name"));
        report.take("spec.service", parts, hint).map(|(namespace, name)| ServiceKey::new(namespace, name))
    });
    let status = object.status.clone().unwrap_or_default();
    let state = report.take("status", state(&status), "restore the status, or give the address back by hand");
    let spec = ClaimSpec {
        provider: spec.provider.clone(),
        pool: spec.pool.clone(),
        service,
        family: spec.family,
        kind: spec.type_.clone(),
        region: spec.region.clone(),
        prefix_len: spec.prefix_length,
        reclaim: match spec.reclaim_policy {
            ReclaimPolicy::Delete => Reclaim::Delete,
            ReclaimPolicy::Retain => Reclaim::Retain,
        },
    };
    let (problem, deleting) = (problem(&status), object.metadata.deletion_timestamp.is_some());
    report.finish(id.zip(state).map(|(id, state)| Claim { id, spec, state, problem, deleting }))
}

fn state(status: &AddressClaimStatus) -> Result<ClaimState, String> {
    let lease = || status.lease_id.clone().map(LeaseId).ok_or_else(|| format!("{} without leaseID", status.phase));
    let since = || status.since.as_ref().map(|at| SystemTime::from(at.0)).ok_or("since is missing");
    let network = match &status.network {
        Some(text) => Some(text.parse().map_err(|_| format!("{text:?} is no network"))?),
        None => None,
    };
    Ok(match status.phase.as_str() {
        "" | "Wanted" => ClaimState::Wanted,
        "Sent" => ClaimState::Sent { at: since()? },
        "Pending" => ClaimState::Pending { lease: lease()?, network },
        "Bound" => ClaimState::Bound { lease: lease()?, network: network.ok_or("Bound without network")? },
        "Releasing" => ClaimState::Releasing { lease: lease()?, network, since: since()? },
        "Lost" => ClaimState::Lost { lease: lease()?, network },
        "Retained" => ClaimState::Retained { lease: lease()?, network },
        phase => return Err(format!("phase {phase:?} is unknown to this version")),
    })
}

fn problem(status: &AddressClaimStatus) -> Option<ClaimProblem> {
    let ready = status.conditions.iter().find(|condition| condition.type_ == READY)?;
    let told = ready.status == "False" && ready.reason != status.phase;
    told.then(|| ClaimProblem { reason: ready.reason.clone(), message: ready.message.clone() })
}

/// The object's spec.
pub fn claim_spec(claim: &Claim) -> AddressClaimSpec {
    let spec = &claim.spec;
    AddressClaimSpec {
        provider: spec.provider.clone(),
        pool: spec.pool.clone(),
        service: spec.service.as_ref().map(ToString::to_string),
        family: spec.family,
        type_: spec.kind.clone(),
        region: spec.region.clone(),
        prefix_length: spec.prefix_len,
        reclaim_policy: match spec.reclaim {
            Reclaim::Delete => ReclaimPolicy::Delete,
            Reclaim::Retain => ReclaimPolicy::Retain,
        },
    }
}

/// The object's status; the condition keeps its time of transition where it says the same as `before`.
pub fn claim_status(claim: &Claim, before: Option<&AddressClaimStatus>) -> AddressClaimStatus {
    let since = match claim.state {
        ClaimState::Sent { at: since } | ClaimState::Releasing { since, .. } => Timestamp::try_from(since).ok(),
        _ => None,
    };
    let phase = claim.state.phase();
    let (status, reason, message) = match (&claim.problem, claim.usable()) {
        (Some(problem), _) => ("False", problem.reason.clone(), problem.message.clone()),
        (None, Some(network)) => ("True", phase.into(), format!("{network} can be used")),
        (None, None) => ("False", phase.into(), String::new()),
    };
    let ready = before.and_then(|status| status.conditions.iter().find(|condition| condition.type_ == READY));
    let unchanged = ready.filter(|ready| ready.status == status).map(|ready| ready.last_transition_time.clone());
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    AddressClaimStatus {
        phase: phase.into(),
        since: since.map(MicroTime),
        lease_id: claim.state.lease().map(|lease| lease.0.clone()),
        network: claim.state.network().map(|network| network.to_string()),
        conditions: vec![Condition {
            type_: READY.into(),
            status: status.into(),
            reason,
            message,
            observed_generation: None,
            last_transition_time: unchanged.unwrap_or(Time(now)),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Family;

    #[test]
    fn what_is_written_is_read_again() {
        let lease = LeaseId("l1".into());
        let network = "198.51.100.7/32".parse().expect("a network");
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_123_456);
        let states = [
            ClaimState::Wanted,
            ClaimState::Sent { at },
            ClaimState::Pending { lease: lease.clone(), network: None },
            ClaimState::Bound { lease: lease.clone(), network },
            ClaimState::Releasing { lease: lease.clone(), network: Some(network), since: at },
            ClaimState::Lost { lease: lease.clone(), network: Some(network) },
            ClaimState::Retained { lease, network: None },
        ];
        let told = ClaimProblem { reason: "QuotaExceeded".into(), message: "raise it".into() };
        for (state, problem) in states.into_iter().flat_map(|s| [(s.clone(), None), (s, Some(told.clone()))]) {
            let spec = ClaimSpec {
                provider: "metal".into(),
                pool: "p".into(),
                service: Some(ServiceKey::new("web", "front")),
                family: Family::Ipv4,
                kind: Some("public_ipv4".into()),
                region: None,
                prefix_len: 32,
                reclaim: Reclaim::Retain,
            };
            let claim = Claim { id: ClaimId::new(7), spec, state, problem, deleting: false };
            let mut object = AddressClaim::new(&claim.id.to_string(), claim_spec(&claim));
            object.status = Some(claim_status(&claim, None));
            let json = serde_json::to_value(&object).expect("plain data");
            let object = serde_json::from_value(json).expect("plain data");
            assert_eq!(super::claim(&object).value, Some(claim));
        }
    }

    #[test]
    fn an_object_made_by_hand_is_refused_with_the_next_step() {
        let spec = AddressClaimSpec {
            provider: "metal".into(),
            pool: "p".into(),
            service: Some("front".into()),
            family: Family::Ipv4,
            type_: None,
            region: None,
            prefix_length: 32,
            reclaim_policy: ReclaimPolicy::Delete,
        };
        let converted = super::claim(&AddressClaim::new("mine", spec));
        assert_eq!(converted.value, None);
        let fields: Vec<&str> = converted.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["metadata.name", "spec.service"]);
    }
}
