//! `BGPAdvertisement` to [`Advertisement`].

use super::{Converted, community::CommunityValue, report::Report, selector::selectors};
use crate::{
    source::api::{BGPAdvertisement, LinkBandwidthForm},
    types::Advertisement,
};

/// An advertisement whose named communities are not resolved yet.
#[derive(Debug, Clone, PartialEq)]
pub struct AdvertisementDraft {
    /// The rest.
    pub advertisement: Advertisement,
    /// Index in `spec.communities`, and the name there.
    pub names: Vec<(usize, String)>,
}

/// The advertisement, but for the names in `communities`: those need the `Community` objects.
pub fn advertisement(object: &BGPAdvertisement) -> Converted<AdvertisementDraft> {
    let mut report = Report::new(object);
    let spec = &object.spec;
    let mut length = |field: &str, value: Option<u8>, most: u8| {
        let value = value.unwrap_or(most);
        if !(1..=most).contains(&value) {
            report.error(format!("spec.{field}"), format!("{value} is no prefix length"), format!("use 1 to {most}"));
        }
        value
    };
    let aggregation_length = length("aggregationLength", spec.aggregation_length, 32);
    let aggregation_length_v6 = length("aggregationLengthV6", spec.aggregation_length_v6, 128);
    let prepend = spec.as_path_prepend.unwrap_or(0);
    if prepend > 16 {
        report.error("spec.asPathPrepend", format!("{prepend} is too often"), "use 0 to 16");
    }
    let mut draft = AdvertisementDraft {
        advertisement: Advertisement {
            name: object.metadata.name.clone().unwrap_or_default(),
            aggregation_length,
            aggregation_length_v6,
            local_pref: spec.local_pref,
            med: spec.med,
            prepend,
            link_bandwidth: spec.link_bandwidth.map(|form| form == LinkBandwidthForm::Transitive),
            communities: Default::default(),
            large_communities: Default::default(),
            pools: spec.ip_address_pools.iter().cloned().collect(),
            pool_selectors: selectors(&mut report, "spec.ipAddressPoolSelectors", &spec.ip_address_pool_selectors),
            service_selectors: selectors(&mut report, "spec.serviceSelectors", &spec.service_selectors),
            node_selectors: selectors(&mut report, "spec.nodeSelectors", &spec.node_selectors),
            peers: spec.peers.iter().cloned().collect(),
        },
        names: Vec::new(),
    };
    for (i, text) in spec.communities.iter().enumerate() {
        match CommunityValue::parse(text) {
            Ok(value) => draft.add(value),
            Err(_) if !text.is_empty() && !text.contains(':') => draft.names.push((i, text.clone())),
            Err(error) => report.error(
                format!("spec.communities[{i}]"),
                error.to_string(),
                "write asn:value, large:global:local1:local2, a well-known name (no-export) or a name of a Community",
            ),
        }
    }
    report.finish(Some(draft))
}

impl AdvertisementDraft {
    /// Adds a community.
    pub(in crate::source) fn add(&mut self, value: CommunityValue) {
        match value {
            CommunityValue::Standard(c) => self.advertisement.communities.insert(c),
            CommunityValue::Large(c) => self.advertisement.large_communities.insert(c),
        };
    }
}
