//! The crate's speaker inside a node's namespace, for what the daemon never does: two paths to one prefix, extended
//! communities other than link bandwidth, a restart time of two seconds.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use ironcast_bgp::{
    Asn, Family, HoldTime, RouterId,
    net::Speaker,
    rib::{Attributes, Route},
    speaker::{AddPath, Exports, PeerAs, PeerConfig, PeerId, PeerStatus, SpeakerConfig},
};
use tokio::sync::watch;

use super::{cells::Cell, link::Link};
use crate::lab::{
    netns::Inside,
    site::{NODE_ASN, ROUTER_ASN},
};

/// The restart time of [`Cell::LongLived`]: after it a route is kept only as a long-lived one.
pub(super) const RESTART: Duration = Duration::from_secs(2);
/// What tells the paths of [`Cell::AddPaths`] from each other.
pub(super) const PATHS: [&str; 2] = ["65000:1", "65000:2"];
/// What [`Cell::ExtendedCommunities`] announces with.
pub(super) const EXTENDED: [&str; 2] = ["rt:65000:100", "rt:65001:200"];

/// A speaker that runs; it ends without a word when dropped.
pub(super) struct Speaking {
    status: watch::Receiver<Arc<BTreeMap<PeerId, PeerStatus>>>,
    /// The speaker ends with its last handle.
    _speaker: Speaker,
    _inside: Inside,
}

impl Speaking {
    /// Starts it with the router as its only peer.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub(super) async fn start(link: &Link) -> anyhow::Result<Self> {
        let IpAddr::V4(id) = link.at_node()[0] else { anyhow::bail!("the first address is IPv4") };
        let config =
            SpeakerConfig { router_id: RouterId::new(id)?, listen: Vec::new(), restarted: false, dynamic: Vec::new() };
        let (speaker, run) = Speaker::start(config, None).context("start the speaker")?;
        let inside = link.namespace.runtime()?;
        // Sockets are opened by the task that runs it, so in the namespace.
        inside.spawn(run);
        let id = PeerId(link.node().into());
        speaker.set_exports(Exports::from([(id.clone(), routes(link)?.into_iter().collect())])).await?;
        speaker.set_peers([(id, peer(link)?)].into()).await?;
        Ok(Self { status: speaker.status(), _speaker: speaker, _inside: inside })
    }

    /// Its words on why the session is not up.
    pub(super) fn last_error(&self) -> Option<String> {
        self.status.borrow().values().find_map(|peer| peer.last_error.clone())
    }
}

fn peer(link: &Link) -> anyhow::Result<PeerConfig> {
    let (own, theirs) = (Asn::new(NODE_ASN)?, Asn::new(ROUTER_ASN)?);
    Ok(PeerConfig {
        families: [Family::Ipv4Unicast, Family::Ipv6Unicast].into(),
        hold_time: HoldTime::new(9)?,
        connect_retry: Duration::from_secs(1),
        add_path: AddPath { send: link.cell == Cell::AddPaths, receive: false },
        graceful_restart: (link.cell == Cell::LongLived).then_some(RESTART),
        long_lived: (link.cell == Cell::LongLived).then_some(Duration::from_secs(60)),
        ..PeerConfig::new(link.gateway(), own, PeerAs::Exactly(theirs))
    })
}

fn routes(link: &Link) -> anyhow::Result<Vec<Route>> {
    let mut routes = Vec::new();
    for prefix in link.announced() {
        for attributes in attributes(link)? {
            routes.push(Route { prefix, attributes: Arc::new(attributes) });
        }
    }
    Ok(routes)
}

/// One set for each path.
fn attributes(link: &Link) -> anyhow::Result<Vec<Attributes>> {
    match link.cell {
        Cell::AddPaths => PATHS
            .iter()
            .map(|community| Ok(Attributes { communities: vec![community.parse()?], ..Attributes::default() }))
            .collect(),
        Cell::ExtendedCommunities => {
            let mut extended_communities = EXTENDED.iter().map(|c| c.parse()).collect::<Result<Vec<_>, _>>()?;
            extended_communities.sort();
            Ok(vec![Attributes { extended_communities, ..Attributes::default() }])
        }
        _ => Ok(vec![Attributes::default()]),
    }
}
