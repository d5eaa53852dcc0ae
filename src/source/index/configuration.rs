//! Pools, peers, advertisements and profiles as they are used: names resolved, conflicts settled.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use ironcast_bgp::speaker::Md5Key;

use super::{
    Kind, ObjectKey,
    aggregates::aggregation_problems,
    keys::Keys,
    settle::{Candidate, NameOnly, Ranges, Sessions, settle},
    store::{Store, still_in_use},
};
use crate::{
    source::convert::{AdvertisementDraft, CommunityValue, PeerDraft, ProfileDraft, ProviderDraft},
    types::{
        AddressRange, Advertisement, BfdProfile, Claim, ClaimId, Labels, Node, Peer, Pool, Problem, ProviderConfig,
        Secret, Severity,
    },
};

/// The objects, each valid by itself.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) pools: Store<Pool>,
    pub(super) peers: Store<PeerDraft>,
    pub(super) advertisements: Store<AdvertisementDraft>,
    pub(super) bfd_profiles: Store<ProfileDraft>,
    pub(super) communities: Store<Vec<(String, CommunityValue)>>,
    pub(super) secrets: Store<Md5Key>,
    pub(super) namespaces: Store<Labels>,
    pub(super) providers: Store<ProviderDraft>,
    /// Tokens of providers, by Secret.
    tokens: BTreeMap<ObjectKey, Secret>,
}

impl Objects {
    /// The token that a Secret holds now; whether that is news.
    pub(super) fn set_token(&mut self, key: &ObjectKey, token: Option<Secret>) -> bool {
        match token {
            Some(token) => self.tokens.insert(key.clone(), token.clone()) != Some(token),
            None => self.tokens.remove(key).is_some(),
        }
    }

    /// The Secrets that peers and BFD profiles name.
    pub(super) fn named_secrets(&self) -> impl Iterator<Item = &ObjectKey> {
        let peers = self
            .peers
            .values()
            .flat_map(|(_, _, draft)| draft.secret.iter().chain(draft.ao.iter().map(|key| &key.secret)));
        peers.chain(self.bfd_profiles.values().filter_map(|(_, _, draft)| Some(&draft.auth.as_ref()?.secret)))
    }

    /// What is wrong with Secrets that are named; others are not our business.
    pub(super) fn secret_problems(&self) -> impl Iterator<Item = &Problem> {
        let named = |problem: &&Problem| self.named_secrets().any(|key| key.reference(Kind::Secret) == problem.object);
        self.secrets.problems().filter(named)
    }
}

/// The objects as they are used.
#[derive(Debug, Default)]
pub(super) struct Configuration {
    pools: BTreeMap<ObjectKey, Pool>,
    peers: BTreeMap<ObjectKey, Peer>,
    keys: Keys,
    advertisements: BTreeMap<ObjectKey, Advertisement>,
    bfd_profiles: BTreeMap<ObjectKey, BfdProfile>,
    providers: BTreeMap<ObjectKey, ProviderConfig>,
    /// Addresses of nodes that lie in pools.
    node_addresses: BTreeMap<ObjectKey, BTreeSet<IpAddr>>,
    pub(super) problems: Vec<Problem>,
    /// Somebody else asks providers, so that a token that is not there is no problem.
    pub(super) needs_no_tokens: bool,
}

fn by_name<T: Clone>(map: &BTreeMap<ObjectKey, T>) -> BTreeMap<String, T> {
    map.iter().map(|(key, value)| (key.name.clone(), value.clone())).collect()
}

pub(super) fn warning(kind: Kind, key: &ObjectKey, field: String, message: String, hint: &str) -> Problem {
    let object = key.reference(kind);
    Problem { object, field, message, hint: hint.into(), severity: Severity::Warning, file: None }
}

impl Configuration {
    /// What is used now, given what was used before.
    pub(super) fn update(&mut self, objects: &Objects, nodes: &[&Node]) {
        let mut problems = Vec::new();
        self.keys.update(objects);
        let profiles = objects.bfd_profiles.values();
        let candidates = profiles.filter_map(|(key, created, draft)| {
            let value = self.keys.profile(objects, key, draft, self.bfd_profiles.get(key), &mut problems)?;
            Some(Candidate { key, created, value })
        });
        let candidates = candidates.collect();
        self.bfd_profiles = settle(Kind::BFDProfile, candidates, &self.bfd_profiles, &mut NameOnly, &mut problems);
        self.update_providers(objects, &mut problems);
        self.update_pools(objects, nodes, &mut problems);
        self.update_peers(objects, nodes, &mut problems);
        self.update_advertisements(objects, &mut problems);
        problems.extend(unknown_names(self));
        problems.extend(aggregation_problems(&self.advertisements, &self.pools));
        self.problems = problems;
    }

    /// Peers by name.
    pub(super) fn peers(&self) -> BTreeMap<String, Peer> {
        by_name(&self.peers)
    }

    /// Advertisements by name.
    pub(super) fn advertisements(&self) -> BTreeMap<String, Advertisement> {
        by_name(&self.advertisements)
    }

    /// Profiles by name.
    pub(super) fn bfd_profiles(&self) -> BTreeMap<String, BfdProfile> {
        by_name(&self.bfd_profiles)
    }

    /// Providers by name.
    pub(super) fn providers(&self) -> BTreeMap<String, ProviderConfig> {
        by_name(&self.providers)
    }

    /// Pools by name, with what is claimed for them and without the addresses of nodes. An address that a Service has already stays in: it would
    /// not become better by being taken away, and a node could take any by claiming it for itself.
    pub(super) fn pools(
        &self,
        assigned: impl Fn(IpAddr) -> bool,
        claims: &BTreeMap<ClaimId, Claim>,
    ) -> BTreeMap<String, Pool> {
        let mut pools = by_name(&self.pools);
        for (key, addresses) in &self.node_addresses {
            let Some(pool) = pools.get_mut(&key.name) else { continue };
            for address in addresses.iter().filter(|address| !assigned(**address)) {
                pool.ranges = pool.ranges.iter().flat_map(|range| range.without(*address)).collect();
            }
        }
        claims.values().for_each(|claim| add_claimed(&mut pools, claim));
        pools.retain(|_, pool| !pool.ranges.is_empty() || pool.provider.is_some());
        pools
    }

    /// Whether any node's address lies in a pool.
    pub(super) fn has_node_addresses(&self) -> bool {
        !self.node_addresses.is_empty()
    }

    fn update_pools(&mut self, objects: &Objects, nodes: &[&Node], problems: &mut Vec<Problem>) {
        let mut ranges = Ranges::default();
        let candidates = objects.pools.values().map(candidate).collect();
        self.pools = settle(Kind::IPAddressPool, candidates, &self.pools, &mut ranges, problems);
        self.node_addresses.clear();
        let mut told: BTreeMap<(&ObjectKey, usize), Vec<String>> = BTreeMap::new();
        for (node, address) in nodes.iter().flat_map(|node| node.addresses.iter().map(|a| (&node.name, *a))) {
            let Some((range, key)) = ranges.holding(address) else { continue };
            self.node_addresses.entry(key.clone()).or_default().insert(address);
            let i = self.pools[key].ranges.iter().position(|r| r == range).expect("the range is of this pool");
            told.entry((key, i)).or_default().push(format!("{address} of node {node}"));
        }
        problems.extend(self.pod_networks(nodes));
        for ((key, i), nodes) in told {
            let range = self.pools[key].ranges[i];
            let more = if nodes.len() > 3 { format!(" and {} more", nodes.len() - 3) } else { String::new() };
            let first = nodes.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            problems.push(warning(
                Kind::IPAddressPool,
                key,
                format!("spec.addresses[{i}]"),
                format!("{range} holds a node's own address: {first}{more}"),
                "it is never given out to a Service; take it out of the pool",
            ));
        }
    }

    /// Ranges that lie in a node's pod network: the address of a Service would be a pod's too.
    fn pod_networks(&self, nodes: &[&Node]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let network = |net: &IpNet| AddressRange::new(net.network(), net.broadcast()).ok();
        for (key, pool) in &self.pools {
            for (i, range) in pool.ranges.iter().enumerate() {
                let clash = nodes.iter().find_map(|node| {
                    let inside = |net: &&IpNet| network(net).is_some_and(|network| network.overlaps(range));
                    Some((node, node.pod_cidrs.iter().find(inside)?))
                });
                problems.extend(clash.map(|(node, net)| {
                    warning(
                        Kind::IPAddressPool,
                        key,
                        format!("spec.addresses[{i}]"),
                        format!("{range} overlaps the pod network {net} of node {}", node.name),
                        "an address of a Service could be a pod's; take pod networks out of the pool",
                    )
                }));
            }
        }
        problems
    }

    fn update_providers(&mut self, objects: &Objects, problems: &mut Vec<Problem>) {
        let mut candidates = Vec::new();
        for (key, created, draft) in objects.providers.values() {
            let mut value = draft.config.clone();
            if let Some(secret) = &draft.secret {
                value.credentials = objects.tokens.get(secret).cloned();
                if value.credentials.is_none() {
                    value.missing_secret = Some(secret.name.clone());
                }
                if value.missing_secret.is_some() && !self.needs_no_tokens {
                    let message = format!("there is no {} with a token", secret.reference(Kind::Secret));
                    let hint =
                        "nothing is claimed or released without it; create it with the API token under the key token";
                    problems.push(warning(Kind::ProviderConfig, key, "spec.credentialsSecret".into(), message, hint));
                }
            }
            candidates.push(Candidate { key, created, value });
        }
        self.providers = settle(Kind::ProviderConfig, candidates, &self.providers, &mut NameOnly, problems);
    }

    fn update_peers(&mut self, objects: &Objects, nodes: &[&Node], problems: &mut Vec<Problem>) {
        let mut candidates = Vec::new();
        for (key, created, draft) in objects.peers.values() {
            let mut peer = draft.peer.clone();
            self.keys.give(objects, key, draft, &mut peer, problems);
            if let Some(profile) = &draft.bfd_profile {
                peer.bfd = self.resolve_profile(key, profile, problems);
            }
            candidates.push(Candidate { key, created, value: peer });
        }
        self.peers = settle(Kind::BGPPeer, candidates, &self.peers, &mut Sessions::new(nodes), problems);
    }

    /// A profile that is gone leaves a running session what it was: BFD that stops by an accident of deleting would
    /// be missed when it is needed.
    fn resolve_profile(&self, key: &ObjectKey, name: &str, problems: &mut Vec<Problem>) -> Option<BfdProfile> {
        if let Some((_, profile)) = self.bfd_profiles.iter().find(|(key, _)| key.name == name) {
            return Some(profile.clone());
        }
        let before = self.peers.get(key).and_then(|before| before.bfd.clone()).filter(|before| before.name == name);
        let (message, hint) = match before {
            Some(_) => (
                format!("BFDProfile {name:?} is gone or invalid; BFD goes on with what it said last"),
                "create it again, or take bfdProfile out of the peer",
            ),
            None => (
                format!("{name:?} is no valid BFDProfile"),
                "the session runs without BFD; create the BFDProfile, or leave the field out",
            ),
        };
        problems.push(warning(Kind::BGPPeer, key, "spec.bfdProfile".into(), message, hint));
        before
    }

    fn update_advertisements(&mut self, objects: &Objects, problems: &mut Vec<Problem>) {
        let named = named_communities(objects, problems);
        let mut candidates = Vec::new();
        for (key, created, draft) in objects.advertisements.values() {
            let mut resolved = draft.clone();
            let mut unknown = Vec::new();
            for (i, name) in &draft.names {
                match named.get(name) {
                    Some(value) => resolved.add(*value),
                    None => unknown.push((*i, name)),
                }
            }
            let before = self.advertisements.get(key);
            problems.extend(unknown.iter().map(|(i, name)| unknown_community(key, *i, name, before.is_some())));
            let value = match unknown.is_empty() {
                true => Some(resolved.advertisement),
                false => before.cloned(),
            };
            candidates.extend(value.map(|value| Candidate { key, created, value }));
        }
        self.advertisements = settle(Kind::BGPAdvertisement, candidates, &self.advertisements, &mut NameOnly, problems);
    }
}

/// A bound claim is a range of its pool; one for a Service is kept for it.
fn add_claimed(pools: &mut BTreeMap<String, Pool>, claim: &Claim) {
    let Some(network) = claim.usable() else { return };
    let Some(pool) = pools.get_mut(&claim.spec.pool) else { return };
    if pool.provider.as_ref().is_none_or(|provider| provider.name != claim.spec.provider) {
        return;
    }
    let range = AddressRange::new(network.network(), network.broadcast()).expect("a network starts before it ends");
    if !pool.ranges.contains(&range) {
        pool.ranges.push(range);
        pool.reserved.extend(claim.spec.service.clone().map(|service| (range, service)));
    }
}

fn candidate<'a, T: Clone>((key, created, value): (&'a ObjectKey, i64, &T)) -> Candidate<'a, T> {
    Candidate { key, created, value: value.clone() }
}

/// Refused rather than announced without: a community such as no-export is there to protect.
fn unknown_community(key: &ObjectKey, i: usize, name: &str, goes_on: bool) -> Problem {
    let mut problem = warning(
        Kind::BGPAdvertisement,
        key,
        format!("spec.communities[{i}]"),
        format!("{name:?} is neither a community nor a name in a Community object"),
        "create a Community with this name, or write asn:value",
    );
    problem.severity = Severity::Error;
    if goes_on {
        still_in_use(&mut problem);
    }
    problem
}

/// Names of communities. Where two objects give one name, the older object counts.
fn named_communities(objects: &Objects, problems: &mut Vec<Problem>) -> BTreeMap<String, CommunityValue> {
    let mut named: BTreeMap<String, (CommunityValue, &ObjectKey)> = BTreeMap::new();
    let mut all: Vec<_> = objects.communities.values().collect();
    all.sort_by_key(|(key, created, _)| (*created, *key));
    for (key, _, list) in all {
        for (i, (name, value)) in list.iter().enumerate() {
            match named.get(name) {
                Some((other, owner)) if other != value => problems.push(warning(
                    Kind::Community,
                    key,
                    format!("spec.communities[{i}].name"),
                    format!("{name:?} is something else in {}, which counts", owner.reference(Kind::Community)),
                    "rename one of the two",
                )),
                Some(_) => {}
                None => {
                    named.insert(name.clone(), (*value, key));
                }
            }
        }
    }
    named.into_iter().map(|(name, (value, _))| (name, value)).collect()
}

/// Pools and peers that advertisements name and that are not there (yet).
fn unknown_names(configuration: &Configuration) -> Vec<Problem> {
    let pools: BTreeSet<&str> = configuration.pools.keys().map(|key| key.name.as_str()).collect();
    let peers: BTreeSet<&str> = configuration.peers.keys().map(|key| key.name.as_str()).collect();
    let mut problems = Vec::new();
    for (key, pool) in &configuration.pools {
        let name = pool.provider.as_ref().map(|provider| &provider.name);
        if let Some(name) = name.filter(|name| !configuration.providers.keys().any(|key| key.name == **name)) {
            problems.push(warning(
                Kind::IPAddressPool,
                key,
                "spec.provider.name".into(),
                format!("{name:?} is no valid ProviderConfig"),
                "create it, or correct the name; until then nothing is claimed",
            ));
        }
    }
    for (key, advertisement) in &configuration.advertisements {
        let lists = [
            ("spec.ipAddressPools", Kind::IPAddressPool, &advertisement.pools, &pools),
            ("spec.peers", Kind::BGPPeer, &advertisement.peers, &peers),
        ];
        for (field, kind, names, known) in lists {
            for name in names.iter().filter(|name| !known.contains(name.as_str())) {
                problems.push(warning(
                    Kind::BGPAdvertisement,
                    key,
                    field.into(),
                    format!("{name:?} is no valid {kind}"),
                    "create it, or correct the name; until then it selects nothing",
                ));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node as KubeNode;

    use crate::source::{api::IPAddressPool, index::Index};

    #[test]
    fn a_pool_that_lies_in_a_pod_network_is_told_and_no_longer_when_the_network_moves() {
        let pool = "{metadata: {name: a, namespace: s}, spec: {addresses: [10.244.0.0-10.244.0.9, '2001:db8::/64']}}";
        let pool: IPAddressPool = serde_norway::from_str(pool).expect("a pool");
        let node = |cidr: &str| -> KubeNode {
            let text = format!("{{metadata: {{name: n1}}, spec: {{podCIDRs: [{cidr}, 'fd00::/64']}}}}");
            serde_norway::from_str(&text).expect("a node")
        };
        let mut index = Index::new([]);
        index.apply(&pool.into());
        index.apply(&node("10.244.0.0/24").into());
        let problems = index.snapshot().expect("complete").problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains("overlaps the pod network 10.244.0.0/24 of node n1"), "{problems:?}");
        index.apply(&node("10.245.0.0/24").into());
        assert!(index.snapshot().expect("complete").problems.is_empty());
    }
}
