//! What each peer is told: prefixes and attributes out of Services and advertisements.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use ironcast_bgp::{
    Community, LinkBandwidth,
    rib::{self, Attributes, Route},
};

use super::{
    Leaving, Settings, Withheld, Withhold, allocate::Grant, eligibility::Candidate, nodes, pools::Pools,
    weights::Weights, width::Width,
};
use crate::types::{Advertisement, Family, Labels, Node, Peer, Selector, Service, ServiceKey, Snapshot, family_of};

/// What this node tells whom.
#[derive(Default)]
pub(super) struct Routes {
    pub(super) exports: BTreeMap<String, rib::Routes>,
    pub(super) behind: BTreeMap<IpNet, BTreeSet<ServiceKey>>,
    pub(super) withheld: Vec<Withheld>,
}

/// One Service's part in one prefix by one advertisement. Sorts by prefix, then age of the Service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    prefix: IpNet,
    /// Position among the candidates: their age.
    candidate: usize,
    advertisement: usize,
}

/// Everything that decides what a peer is told. Peers of equal audience are told the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Audience<'a> {
    advertisements: BTreeSet<usize>,
    ipv4: bool,
    ipv6: bool,
    budget: Option<u32>,
    width: Option<Width<'a>>,
}

/// A prefix that an audience is told, unless the budget ends before it.
struct Told {
    route: Route,
    /// The claims behind it, as a part of the sorted claims.
    claims: std::ops::Range<usize>,
}

/// Peers that this node has sessions with.
pub(super) fn peers_of_node<'a>(snapshot: &'a Snapshot, settings: &Settings, found: &'a [Peer]) -> Vec<&'a Peer> {
    let none = Labels::new();
    let labels = labels_of_node(snapshot, settings).unwrap_or(&none);
    let named = snapshot.peers.values().filter(|peer| peer.address_from.is_none());
    named.filter(|peer| any_matches(&peer.node_selectors, labels)).chain(found).collect()
}

fn labels_of_node<'a>(snapshot: &'a Snapshot, settings: &Settings) -> Option<&'a Labels> {
    snapshot.nodes.get(&settings.node).map(|node| &node.labels)
}

/// Any selector is enough, none selects all.
pub(super) fn any_matches(selectors: &[Selector], labels: &Labels) -> bool {
    selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
}

/// Whether what the advertisement says is told to this peer.
pub(super) fn is_told(advertisement: &Advertisement, peer: &Peer) -> bool {
    advertisement.peers.is_empty() || advertisement.peers.contains(&peer.name)
}

/// Whether the advertisement speaks of this address of the Service.
pub(super) fn selects(advertisement: &Advertisement, service: &Service, grant: &Grant, pools: &Pools<'_>) -> bool {
    selects_pool(advertisement, grant, pools) && any_matches(&advertisement.service_selectors, &service.labels)
}

/// The routes for every peer of this node.
pub(super) fn export<'a>(
    snapshot: &'a Snapshot,
    settings: &'a Settings,
    pools: &Pools<'_>,
    peers: &[&Peer],
    candidates: &[Candidate<'_>],
) -> Routes {
    let none = Labels::new();
    let labels = labels_of_node(snapshot, settings).unwrap_or(&none);
    let advertisements: Vec<&Advertisement> =
        snapshot.advertisements.values().filter(|a| any_matches(&a.node_selectors, labels)).collect();
    let mut routes = Routes::default();
    let claims = claims(&advertisements, pools, candidates, &mut routes);
    let rivals = Rivals::new(snapshot, settings, peers, &advertisements);
    let mut audiences: BTreeMap<Audience<'_>, Vec<&Peer>> = BTreeMap::new();
    for peer in peers {
        let audience = Audience { width: rivals.width(peer), ..audience(peer, &advertisements) };
        audiences.entry(audience).or_default().push(peer);
    }
    let mut told = vec![false; candidates.len()];
    let weights = Weights::new(snapshot, settings);
    let leaving = settings.leaving() != Leaving::Not;
    let mut mint = Mint { advertisements: &advertisements, leaving, sets: HashMap::new(), minted: HashMap::new() };
    for (audience, peers) in &audiences {
        let speech = Speech { claims: &claims, candidates, weights: &weights, rivals: &rivals, audience, peers };
        speech.compose(&mut mint, &mut routes, &mut told);
    }
    let claimed: BTreeSet<usize> = claims.iter().map(|claim| claim.candidate).collect();
    for candidate in claimed.into_iter().filter(|candidate| !told[*candidate]) {
        routes.withhold(candidates[candidate].service, None, Withhold::NoPeer);
    }
    routes
}

impl Routes {
    fn withhold(&mut self, service: &Service, peer: Option<&Peer>, reason: Withhold) {
        let peer = peer.map(|peer| peer.name.clone());
        self.withheld.push(Withheld { service: service.key.clone(), peer, reason });
    }
}

fn claims(
    advertisements: &[&Advertisement],
    pools: &Pools<'_>,
    candidates: &[Candidate<'_>],
    routes: &mut Routes,
) -> Vec<Claim> {
    let mut of_pool: HashMap<_, Vec<usize>> = HashMap::new();
    let mut claims = Vec::with_capacity(candidates.len());
    for (candidate, Candidate { service, addresses }) in candidates.iter().enumerate() {
        let before = claims.len();
        for grant in addresses {
            let selecting = of_pool.entry(grant.pool).or_insert_with(|| {
                (0..advertisements.len()).filter(|i| selects_pool(advertisements[*i], grant, pools)).collect()
            });
            let selecting = selecting.iter().copied();
            claims.extend(
                selecting.filter(|i| any_matches(&advertisements[*i].service_selectors, &service.labels)).map(
                    |advertisement| {
                        let prefix = aggregate(grant.address, advertisements[advertisement]);
                        Claim { prefix, candidate, advertisement }
                    },
                ),
            );
        }
        if claims.len() == before {
            routes.withhold(service, None, Withhold::NoMatchingAdvertisement);
        }
    }
    claims.sort_unstable();
    claims
}

/// Of a pool whose object could not be read only the name is known.
fn selects_pool(advertisement: &Advertisement, grant: &Grant, pools: &Pools<'_>) -> bool {
    if advertisement.pools.is_empty() && advertisement.pool_selectors.is_empty() {
        return true;
    }
    let Some(pool) = grant.pool else {
        return pools.refused().iter().any(|name| advertisement.pools.contains(*name));
    };
    let pool = pools.pool(pool);
    advertisement.pools.contains(&pool.name)
        || advertisement.pool_selectors.iter().any(|selector| selector.matches(&pool.labels))
}

/// The prefix that the advertisement makes of the address.
pub(super) fn aggregate(address: IpAddr, advertisement: &Advertisement) -> IpNet {
    let length = match address {
        IpAddr::V4(_) => advertisement.aggregation_length,
        IpAddr::V6(_) => advertisement.aggregation_length_v6,
    };
    IpNet::new(address, length).map_or(IpNet::from(address), |net| net.trunc())
}

fn audience<'a>(peer: &Peer, advertisements: &[&Advertisement]) -> Audience<'a> {
    let to_peer = |i: &usize| is_told(advertisements[*i], peer);
    Audience {
        advertisements: (0..advertisements.len()).filter(to_peer).collect(),
        ipv4: peer.carries(Family::Ipv4),
        ipv6: peer.carries(Family::Ipv6),
        budget: peer.prefix_budget,
        width: None,
    }
}

/// The nodes that announce beside this one, where a router takes a limited number of paths.
struct Rivals<'a> {
    snapshot: &'a Snapshot,
    own: &'a str,
    /// Empty where no router is limited.
    nodes: Vec<&'a Node>,
    /// The nodes that follow each of this node's advertisements.
    following: Vec<BTreeSet<&'a str>>,
}

impl<'a> Rivals<'a> {
    fn new(snapshot: &'a Snapshot, settings: &'a Settings, peers: &[&Peer], advertisements: &[&Advertisement]) -> Self {
        let own = settings.node.as_str();
        if peers.iter().all(|peer| peer.maximum_paths.is_none()) {
            return Self { snapshot, own, nodes: Vec::new(), following: Vec::new() };
        }
        let nodes: Vec<&Node> = nodes::staying(snapshot, settings).collect();
        let following = |advertisement: &&Advertisement| {
            let follows = |node: &&&Node| any_matches(&advertisement.node_selectors, &node.labels);
            nodes.iter().filter(follows).map(|node| node.name.as_str()).collect()
        };
        let following = advertisements.iter().map(following).collect();
        Self { snapshot, own, nodes, following }
    }

    fn width(&self, peer: &Peer) -> Option<Width<'a>> {
        let limit = peer.maximum_paths?;
        let heard = self.nodes.iter().filter(|node| any_matches(&peer.node_selectors, &node.labels));
        Some(Width::new(limit, self.own, heard.map(|node| node.name.as_str())))
    }

    /// Whether the node makes the same claim.
    fn claims(&self, node: &str, claim: &Claim, service: &Service) -> bool {
        let endpoints = self.snapshot.endpoints.get(&service.key).map_or(&[][..], |endpoints| &endpoints[..]);
        self.following[claim.advertisement].contains(node)
            && nodes::serves(service, endpoints, family_of(claim.prefix.addr()), node)
    }
}

impl Audience<'_> {
    fn hears(&self, claim: &Claim) -> bool {
        let carried = match claim.prefix {
            IpNet::V4(_) => self.ipv4,
            IpNet::V6(_) => self.ipv6,
        };
        carried && self.advertisements.contains(&claim.advertisement)
    }
}

/// What one audience is told.
struct Speech<'s, 'a> {
    claims: &'s [Claim],
    candidates: &'s [Candidate<'a>],
    weights: &'s Weights<'a>,
    rivals: &'s Rivals<'a>,
    audience: &'s Audience<'a>,
    peers: &'s [&'s Peer],
}

impl Speech<'_, '_> {
    fn compose(&self, mint: &mut Mint<'_>, routes: &mut Routes, told: &mut [bool]) {
        let mut said = self.prefixes(mint, routes, told);
        self.keep_to_budget(&mut said, routes);
        for Told { route, claims } in &said {
            let services = self.heard(claims.clone()).map(|claim| self.candidates[claim.candidate].service.key.clone());
            routes.behind.entry(route.prefix).or_default().extend(services);
        }
        let set: rib::Routes = said.into_iter().map(|told| told.route).collect();
        let known = routes.exports.values().find(|export| **export == set).cloned();
        let set = known.unwrap_or(set);
        for peer in self.peers {
            routes.exports.insert(peer.name.clone(), set.clone());
        }
    }

    fn heard(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &Claim> {
        self.claims[range].iter().filter(|claim| self.audience.hears(claim))
    }

    /// Every prefix that the audience hears of, in order; without those that advertisements contradict on.
    fn prefixes(&self, mint: &mut Mint<'_>, routes: &mut Routes, told: &mut [bool]) -> Vec<Told> {
        let mut said = Vec::new();
        let mut start = 0;
        for chunk in self.claims.chunk_by(|a, b| a.prefix == b.prefix) {
            let claims = start..start + chunk.len();
            start = claims.end;
            let advertisements: BTreeSet<usize> = self.heard(claims.clone()).map(|claim| claim.advertisement).collect();
            if advertisements.is_empty() {
                continue;
            }
            self.heard(claims.clone()).for_each(|claim| told[claim.candidate] = true);
            if !self.is_among_announcers(&chunk[0].prefix, claims.clone()) {
                self.withhold(claims, Withhold::EcmpWidth, routes);
                continue;
            }
            let weighted = advertisements.iter().any(|i| mint.advertisements[*i].link_bandwidth.is_some());
            let weight = weighted.then(|| self.weight(&chunk[0].prefix, claims.clone())).flatten();
            match mint.attributes(advertisements, weight) {
                Some(attributes) => said.push(Told { route: Route { prefix: chunk[0].prefix, attributes }, claims }),
                None => self.withhold(claims, Withhold::ConflictingAdvertisements, routes),
            }
        }
        said
    }

    /// Whether the router takes this node's path, if it does not take everybody's.
    fn is_among_announcers(&self, prefix: &IpNet, claims: std::ops::Range<usize>) -> bool {
        let Some(width) = &self.audience.width else { return true };
        width.includes_us(prefix, |node| {
            self.heard(claims.clone())
                .any(|claim| self.rivals.claims(node, claim, self.candidates[claim.candidate].service))
        })
    }

    /// What this node takes of the prefix beside the others.
    fn weight(&self, prefix: &IpNet, claims: std::ops::Range<usize>) -> Option<u32> {
        let candidates: BTreeSet<usize> = self.heard(claims).map(|claim| claim.candidate).collect();
        self.weights.of(prefix, candidates.into_iter().map(|candidate| self.candidates[candidate].service))
    }

    /// The prefixes of the oldest Services stay, so that a new Service never takes an old one's place.
    fn keep_to_budget(&self, said: &mut Vec<Told>, routes: &mut Routes) {
        let budget = self.audience.budget.map_or(usize::MAX, |budget| usize::try_from(budget).unwrap_or(usize::MAX));
        if said.len() <= budget {
            return;
        }
        let oldest = |told: &Told| self.heard(told.claims.clone()).map(|claim| claim.candidate).min();
        said.sort_by_cached_key(|told| (oldest(told), told.route.prefix));
        for told in said.drain(budget..) {
            self.withhold(told.claims, Withhold::PrefixBudget, routes);
        }
        said.sort_by_key(|told| told.route.prefix);
    }

    fn withhold(&self, claims: std::ops::Range<usize>, reason: Withhold, routes: &mut Routes) {
        for claim in self.heard(claims) {
            for peer in self.peers {
                routes.withhold(self.candidates[claim.candidate].service, Some(peer), reason);
            }
        }
    }
}

/// The advertisements that speak of a prefix, and its weight.
type Saying = (BTreeSet<usize>, Option<u32>);

/// Makes attributes; equal ones are one `Arc`.
struct Mint<'a> {
    advertisements: &'a [&'a Advertisement],
    /// The node leaves: routers should turn to others (RFC 8326 §4).
    leaving: bool,
    sets: HashMap<Saying, Option<Arc<Attributes>>>,
    minted: HashMap<Attributes, Arc<Attributes>>,
}

impl Mint<'_> {
    /// What the advertisements together say of a prefix of this weight; `None` where they contradict.
    fn attributes(&mut self, set: BTreeSet<usize>, weight: Option<u32>) -> Option<Arc<Attributes>> {
        let key = (set, weight);
        if let Some(known) = self.sets.get(&key) {
            return known.clone();
        }
        let attributes = unite(key.0.iter().map(|i| self.advertisements[*i]), weight);
        let attributes = attributes.map(|mut attributes| {
            if self.leaving {
                attributes.local_pref = Some(0);
                attributes.communities.insert(0, Community::GRACEFUL_SHUTDOWN);
                attributes.communities.sort_unstable();
                attributes.communities.dedup();
            }
            let shared = self.minted.entry(attributes);
            let shared = shared.or_insert_with_key(|attributes| Arc::new(attributes.clone()));
            Arc::clone(shared)
        });
        self.sets.insert(key, attributes.clone());
        attributes
    }
}

/// Communities unite; of local preference, MED, prepends and the form of the link bandwidth there may be one value, and
/// who has none agrees.
fn unite<'a>(
    advertisements: impl Iterator<Item = &'a Advertisement> + Clone,
    weight: Option<u32>,
) -> Option<Attributes> {
    let communities: BTreeSet<_> = advertisements.clone().flat_map(|a| a.communities.iter().copied()).collect();
    let large: BTreeSet<_> = advertisements.clone().flat_map(|a| a.large_communities.iter().copied()).collect();
    let prepend = advertisements.clone().map(|a| (a.prepend != 0).then_some(a.prepend));
    let transitive = agreed(advertisements.clone().map(|a| a.link_bandwidth))?;
    Some(Attributes {
        link_bandwidth: transitive.zip(weight).and_then(|(form, weight)| bandwidth(weight, form)),
        prepend: agreed(prepend)?.unwrap_or(0),
        med: agreed(advertisements.clone().map(|a| a.med))?,
        local_pref: agreed(advertisements.map(|a| a.local_pref))?,
        communities: communities.into_iter().collect(),
        large_communities: large.into_iter().collect(),
        ..Attributes::default()
    })
}

/// Octets per second for each endpoint: one Gbit/s, which routers print as a round number. They compare only.
const PER_ENDPOINT: f32 = 125_000_000.0;

fn bandwidth(weight: u32, transitive: bool) -> Option<LinkBandwidth> {
    LinkBandwidth::new(weight as f32 * PER_ENDPOINT, transitive).ok()
}

/// The one value among those given, `Some(None)` if there is none, `None` if there are several.
fn agreed<T: PartialEq>(values: impl Iterator<Item = Option<T>>) -> Option<Option<T>> {
    let mut agreed = None;
    for value in values.flatten() {
        match &agreed {
            None => agreed = Some(value),
            Some(first) if *first == value => {}
            Some(_) => return None,
        }
    }
    Some(agreed)
}
