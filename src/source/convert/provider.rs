//! `ProviderConfig` to [`ProviderConfig`](crate::types::ProviderConfig).

use std::time::Duration;

use ironcast_bgp::Asn;
use k8s_openapi::api::core::v1::Secret;

use super::{Converted, duration, report::Report};
use crate::{
    source::{
        api::{self, PeersSource, ProviderType, RoutePolicy},
        index::ObjectKey,
    },
    types::{self, ClaimTiming, ManageRoutes, PeersFrom, ProviderConfig, ProviderKind},
};

/// A provider whose token is not looked up yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderDraft {
    /// Everything else.
    pub config: ProviderConfig,
    /// The Secret of the token.
    pub secret: Option<ObjectKey>,
}

/// The provider; what it cannot do without is there.
pub fn provider(object: &api::ProviderConfig) -> Converted<ProviderDraft> {
    let mut report = Report::new(object);
    let spec = &object.spec;
    let kind = match spec.type_ {
        ProviderType::Packet => ProviderKind::Packet,
        ProviderType::Cherry => ProviderKind::Cherry,
        ProviderType::Vultr => ProviderKind::Vultr,
        ProviderType::PhoenixNap => ProviderKind::PhoenixNap,
        ProviderType::Latitude => ProviderKind::Latitude,
        ProviderType::NetBox => ProviderKind::NetBox,
        ProviderType::Capi => ProviderKind::Capi,
    };
    for (field, url) in [("endpoint", &spec.endpoint), ("metadataEndpoint", &spec.metadata_endpoint)] {
        let good = |url: &str| url.starts_with("https://") || url.starts_with("http://");
        if let Some(url) = url.as_ref().filter(|url| !good(url)) {
            report.error(format!("spec.{field}"), format!("{url:?} is no URL"), "write https://HOST/PATH");
        }
    }
    if spec.project.is_none() && matches!(kind, ProviderKind::Packet | ProviderKind::Cherry | ProviderKind::Latitude) {
        report.error("spec.project", "is missing", "put the id of the project there");
    }
    if kind == ProviderKind::Capi && spec.project.is_none() {
        report.error(
            "spec.project",
            "is missing",
            "put the pool there, like InClusterIPPool.ipam.cluster.x-k8s.io/NAME",
        );
    }
    if kind == ProviderKind::NetBox && spec.endpoint.is_none() {
        report.error("spec.endpoint", "is missing", "put the base URL of your NetBox there");
    }
    let asn = spec.asn.and_then(|asn| report.take("spec.asn", Asn::new(asn), "use 1 to 4294967295"));
    let timing = ClaimTiming {
        settle: time(&mut report, "settleTime", spec.settle_time.as_deref()),
        withdraw: time(&mut report, "releaseDelay", spec.release_delay.as_deref()),
        refresh: time(&mut report, "refreshInterval", spec.refresh_interval.as_deref()),
    };
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let secret = spec.credentials_secret.as_ref().map(|secret| ObjectKey::new(namespace, secret.name.as_str()));
    let config = ProviderConfig {
        name: object.metadata.name.clone().unwrap_or_default(),
        kind,
        endpoint: spec.endpoint.clone(),
        metadata: spec.metadata_endpoint.clone(),
        project: spec.project.clone(),
        credentials: None,
        missing_secret: None,
        peers: match spec.peers {
            None | Some(PeersSource::Objects) => PeersFrom::Objects,
            Some(PeersSource::Metadata) => PeersFrom::Metadata,
            Some(PeersSource::Account) => PeersFrom::Account,
        },
        asn,
        manage_routes: match spec.manage_routes {
            None | Some(RoutePolicy::Auto) => ManageRoutes::Auto,
            Some(RoutePolicy::Never) => ManageRoutes::Never,
        },
        timing,
    };
    report.finish(Some(ProviderDraft { config, secret }))
}

fn time(report: &mut Report, field: &str, text: Option<&str>) -> Option<Duration> {
    let parsed = duration::parse(text?).ok_or_else(|| format!("{:?} is no duration", text.unwrap_or_default()));
    report.take(&format!("spec.{field}"), parsed, "write it like 90s, 5m or 1h30m")
}

/// The token in a Secret, under `token` (in manifests also from `stringData`), without the newline that an editor put
/// there. Its value is in no message.
pub fn token(object: &Secret) -> Option<types::Secret> {
    let text = object.string_data.as_ref().and_then(|data| data.get("token")).map(|text| text.as_bytes());
    let octets = text.or_else(|| object.data.as_ref()?.get("token").map(|octets| octets.0.as_slice()))?;
    let text = std::str::from_utf8(octets).ok()?;
    (!text.trim().is_empty()).then(|| types::Secret::new(text))
}
