//! Links: what is there, and whether it is up.

use std::{collections::BTreeMap, fmt};

use futures::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage},
};
use rtnetlink::{Handle, LinkUnspec};

/// One link, reduced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// It is `lo`.
    pub loopback: bool,
    /// Switched on (`IFF_UP`).
    pub up: bool,
    /// Switched on and connected (`IFF_LOWER_UP`).
    pub carrier: bool,
}

/// A link that changed, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Appeared(Link),
    /// It is gone.
    Vanished(Link),
    /// Its state or name is another.
    Changed(Link),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (link, what) = match self {
            Self::Vanished(link) => return write!(f, "{} is gone", link.name),
            Self::Appeared(link) => (link, "appeared"),
            Self::Changed(link) => (link, "changed"),
        };
        let state = match (link.up, link.carrier) {
            (false, _) => "down",
            (true, false) => "no carrier",
            (true, true) => "up",
        };
        write!(f, "{} {what}: {state}", link.name)
    }
}

/// What changed between two observations, by index.
pub fn diff(before: &BTreeMap<u32, Link>, after: &BTreeMap<u32, Link>) -> Vec<Change> {
    let gone = before.values().filter(|link| !after.contains_key(&link.index)).cloned().map(Change::Vanished);
    let rest = after.values().filter_map(|link| match before.get(&link.index) {
        None => Some(Change::Appeared(link.clone())),
        Some(old) if old != link => Some(Change::Changed(link.clone())),
        Some(_) => None,
    });
    gone.chain(rest).collect()
}

/// Every link by index.
pub(super) async fn observe(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let request = handle.link().get().set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
    let links = request.execute().map_ok(|message| parse(&message));
    links.map_ok(|link| (link.index, link)).try_collect().await
}

/// Switches a link on.
pub(super) async fn set_up(handle: &Handle, index: u32) -> Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
}

fn parse(message: &LinkMessage) -> Link {
    let name = message.attributes.iter().find_map(|a| match a {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let flags = message.header.flags;
    Link {
        index: message.header.index,
        name: name.unwrap_or_default(),
        loopback: flags.contains(LinkFlags::Loopback),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, carrier: bool) -> (u32, Link) {
        (index, Link { index, name: format!("eth{index}"), loopback: false, up: true, carrier })
    }

    #[test]
    fn changes_are_named_once() {
        let before = [link(1, true), link(2, true), link(3, true)].into();
        let after = [link(2, true), link(3, false), link(4, true)].into();
        let words: Vec<String> = diff(&before, &after).iter().map(ToString::to_string).collect();
        assert_eq!(words, ["eth1 is gone", "eth3 changed: no carrier", "eth4 appeared: up"]);
    }
}
