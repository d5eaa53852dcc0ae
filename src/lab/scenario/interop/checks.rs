//! What each cell does, and what the router must show of it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use ipnet::IpNet;
use rustix::process::Signal;

use super::{
    cells::{Cell, KEY, OTHER_ASN},
    link::{Link, vips},
    node::{COMMUNITIES, MANY, MORE, OnShutdown, STOPPED},
    play::Play,
    router::Make,
    seen::{ADD_PATH, EXTENDED_MESSAGE, EXTENDED_NEXT_HOP, GRACEFUL_RESTART, Seen, Session},
    speaker::{EXTENDED, PATHS, RESTART},
};
use crate::{
    lab::{
        site::NODE_ASN,
        stage::{Observation, Stop},
    },
    types::Family,
};

/// What a router puts to a route that it keeps for the long-lived time (RFC 9494 §4.6).
const LLGR_STALE: &str = "llgr-stale";
/// Sessions come up, all cells at once on a busy machine; routers of other makes wait after a refusal.
const SESSION_WITHIN: Duration = Duration::from_secs(30);
/// A route of an established session is in the router's kernel.
const ROUTE_WITHIN: Duration = Duration::from_secs(15);
/// A kernel gives up a connection that nobody answers, and an operator reads why.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
/// Routes of a daemon that ends for good are gone; far below the hold time of 9 s.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// BFD at 3 × 300 ms finds a frozen node, and the router's kernel hears of it; below the hold time of 9 s.
const FROZEN_WITHIN: Duration = Duration::from_secs(5);
/// The router is without the daemon so long, and keeps the routes.
const AWAY: Duration = Duration::from_secs(2);

/// Tries a cell.
///
/// # Errors
/// An expectation was not met, or the lab failed.
pub(super) async fn run(play: &mut Play<'_>) -> Result<(), Stop> {
    let on_shutdown = if play.cell == Cell::GrStop { OnShutdown::Stop } else { OnShutdown::Restart };
    for node in &mut play.nodes {
        node.start(on_shutdown).await?;
    }
    match play.cell {
        Cell::Md5Wrong => return wrong_key(play).await,
        Cell::GtsmMissing => return without_ttl_security(play).await,
        Cell::DynamicAsWrong => return refused(play, "dynamicASN", &["Bad Peer AS", "internal", "check"]).await,
        Cell::WrongAs => return refused(play, "myASN", &["Bad Peer AS", "AS 64601", "check myASN"]).await,
        Cell::WrongFamily => return refused(play, "families", &["ipv4-unicast", "ipv6-unicast", "famil"]).await,
        Cell::RoleWrong => return refused(play, "role", &["Role Mismatch", "role"]).await,
        _ => arrives(play).await?,
    }
    match play.cell {
        Cell::GrRestart => restart(play).await,
        Cell::GrStop => stop(play).await,
        Cell::ExtendedNextHop | Cell::Unnumbered => negotiated(play, EXTENDED_NEXT_HOP).await,
        Cell::LongLived => long_lived(play).await,
        Cell::Bfd | Cell::BfdMultiHop | Cell::BfdSigned => freeze(play).await,
        Cell::AddPath => negotiated(play, ADD_PATH).await,
        Cell::AddPaths => paths(play).await,
        Cell::LinkBandwidth => weights(play).await,
        Cell::Role => role(play).await,
        Cell::ExtendedMessages => extended_messages(play).await,
        Cell::Communities => communities(play, &COMMUNITIES).await,
        Cell::ExtendedCommunities => communities(play, &EXTENDED).await,
        Cell::LocalAs => shows_as(play, &[OTHER_ASN]).await,
        Cell::LocalAsPrepend => shows_as(play, &[OTHER_ASN, NODE_ASN]).await,
        Cell::V4 | Cell::V6 => shows_as(play, &[NODE_ASN]).await,
        _ => Ok(()),
    }
}

/// The session is up with exactly its families, and the router uses the routes.
async fn arrives(play: &mut Play<'_>) -> Result<(), Stop> {
    let link = play.link();
    let families: BTreeSet<Family> = link.terms.families.iter().copied().collect();
    let expected = format!("Established with {}", words(families.iter().map(|f| format!("{f:?}"))));
    play.until("session", &expected, SESSION_WITHIN, |seen| match seen.session(&link) {
        Some(session) => {
            Observation { seen: describe(session), ok: session.established && session.families == families }
        }
        None => Observation { seen: "the router has no such neighbour".into(), ok: false },
    })
    .await?;
    used(play, "routes", ROUTE_WITHIN).await
}

/// The router uses what the first node announces.
async fn used(play: &mut Play<'_>, what: &str, within: Duration) -> Result<(), Stop> {
    let (link, announced) = (play.link(), play.announced());
    let expected = format!("{} via {}", words(announced.iter().map(IpNet::to_string)), link.port());
    play.until(what, &expected, within, |seen| all_used(seen, &announced, &link)).await
}

fn all_used(seen: &Seen, announced: &[IpNet], link: &Link) -> Observation {
    let said = words(announced.iter().map(|prefix| seen.words(prefix)));
    Observation { seen: said, ok: announced.iter().all(|prefix| seen.uses(prefix, link)) }
}

fn none_used(seen: &Seen, announced: &[IpNet], link: &Link) -> Observation {
    let said = words(announced.iter().map(|prefix| seen.words(prefix)));
    Observation { seen: said, ok: !announced.iter().any(|prefix| seen.uses(prefix, link)) }
}

fn describe(session: &Session) -> String {
    let state = if session.established { "Established" } else { "not Established" };
    let families = words(session.families.iter().map(|f| format!("{f:?}")));
    let end = if session.end.is_empty() { String::new() } else { format!("; it says {:?}", session.end) };
    format!("{state} with {families}{end}")
}

fn words(list: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = list.into_iter().collect();
    if words.is_empty() { "nothing".into() } else { words.join(", ") }
}

/// The router never has the session; the operator is told why in one line, and the right key helps at once.
async fn wrong_key(play: &mut Play<'_>) -> Result<(), Stop> {
    told(play, "password", &["password", "does not answer"]).await?;
    let failures = play.place.md5_failures()?;
    let seen = format!("{failures} segments with a wrong signature");
    play.settle("router's kernel", "segments refused", Observation { seen, ok: failures > 0 })?;
    never_up(play).await?;
    play.nodes[0].set_key(KEY)?;
    arrives(play).await
}

/// A peer that does not send with TTL 255 is not listened to (RFC 5082).
async fn without_ttl_security(play: &mut Play<'_>) -> Result<(), Stop> {
    play.until_told("node", "an attempt that fails", TOLD_WITHIN, |error| !error.is_empty()).await?;
    never_up(play).await
}

/// One end refuses the other's OPEN; the operator is told which number to look at.
async fn refused(play: &mut Play<'_>, field: &str, parts: &[&str]) -> Result<(), Stop> {
    told(play, field, parts).await?;
    never_up(play).await
}

/// The node's line for the operator has these parts.
async fn told(play: &mut Play<'_>, field: &str, parts: &[&str]) -> Result<(), Stop> {
    let expected = format!("one line on {field} with {}", parts.join(" … "));
    let is_told = |error: &str| parts.iter().all(|part| error.contains(part)) && !error.contains('\n');
    play.until_told("operator", &expected, TOLD_WITHIN, is_told).await
}

/// The router has neither the session nor a route of it, however often the node tries.
async fn never_up(play: &mut Play<'_>) -> Result<(), Stop> {
    let (link, [v4, v6]) = (play.link(), vips(play.link().first));
    play.stays("router", "no session and no route", AWAY, |seen| {
        let Observation { seen: said, ok } = none_used(seen, &[v4.into(), v6.into()], &link);
        let session = seen.session(&link).map_or_else(|| "no session".to_owned(), describe);
        Observation { seen: format!("{session}; {said}"), ok: ok && !seen.is_established(&link) }
    })
    .await
}

/// A planned restart: the session goes, the routes stay all the time, the session returns (RFC 4724).
async fn restart(play: &mut Play<'_>) -> Result<(), Stop> {
    let (link, announced) = (play.link(), play.announced());
    negotiated(play, GRACEFUL_RESTART).await?;
    end(play).await?;
    let expected = "every route stays";
    play.stays("routes without the daemon", expected, AWAY, |seen| all_used(seen, &announced, &link)).await?;
    play.nodes[0].start(OnShutdown::Restart).await?;
    play.until("return", "Established, nothing stale", SESSION_WITHIN, |seen| {
        let stale = announced.iter().filter(|prefix| seen.route(prefix).is_none_or(|route| route.stale)).count();
        let session = seen.session(&link).map(describe).unwrap_or_default();
        Observation { seen: format!("{session}; {stale} stale"), ok: seen.is_established(&link) && stale == 0 }
    })
    .await?;
    play.stays("routes after the return", expected, AWAY, |seen| all_used(seen, &announced, &link)).await?;
    let lost = play.place.lost(&announced)?;
    play.settle("routes in between", "not lost for a moment", Observation { ok: lost.is_empty(), seen: words(lost) })
}

/// The speaker goes for longer than its restart time: the router keeps the routes as long-lived stale ones, and takes
/// the new ones when it returns (RFC 9494).
async fn long_lived(play: &mut Play<'_>) -> Result<(), Stop> {
    let (link, announced) = (play.link(), play.announced());
    negotiated(play, GRACEFUL_RESTART).await?;
    end(play).await?;
    let marked = |seen: &Seen| {
        let stale = |prefix| {
            let route = seen.route(prefix)?;
            Some(route.communities.contains(LLGR_STALE))
        };
        let Observation { seen: said, ok } = all_used(seen, &announced, &link);
        let count = announced.iter().filter(|prefix| stale(prefix) == Some(true)).count();
        Observation { seen: format!("{said}; {count} with {LLGR_STALE}"), ok: ok && count == announced.len() }
    };
    let expected = format!("every route, with {LLGR_STALE}");
    play.until("long-lived", &expected, RESTART + SESSION_WITHIN, marked).await?;
    play.stays("routes after the restart time", &expected, AWAY, marked).await?;
    play.nodes[0].start(OnShutdown::Restart).await?;
    arrives(play).await?;
    play.until("return", "nothing stale", SESSION_WITHIN, |seen| {
        let Observation { seen, ok } = marked(seen);
        Observation { seen, ok: !ok }
    })
    .await
}

/// The daemon ends, and the router notices.
async fn end(play: &mut Play<'_>) -> Result<(), Stop> {
    let link = play.link();
    play.nodes[0].terminate().await?;
    play.until("restart", "the session is gone", GONE_WITHIN, |seen| {
        let ok = !seen.is_established(&link);
        Observation { seen: if ok { "gone" } else { "still Established" }.into(), ok }
    })
    .await
}

/// The end for good withdraws at once although graceful restart is on (RFC 8538), and the router's
/// operator reads why (RFC 9003).
async fn stop(play: &mut Play<'_>) -> Result<(), Stop> {
    let (link, announced) = (play.link(), play.announced());
    negotiated(play, GRACEFUL_RESTART).await?;
    play.nodes[0].terminate().await?;
    play.until("end for good", "no route", GONE_WITHIN, |seen| none_used(seen, &announced, &link)).await?;
    // GoBGP shows the words nowhere; ExaBGP 4.2 fails on them: it joins text with octets, which Python 3 refuses.
    if matches!(play.make, Make::Gobgp | Make::Exabgp) {
        return Ok(());
    }
    let place = play.place.clone();
    play.until("words", &format!("a line in the router's log with {STOPPED:?}"), GONE_WITHIN, |_| {
        let line = place.logged(STOPPED);
        Observation { ok: line.is_some(), seen: line.unwrap_or_default() }
    })
    .await
}

/// Both ends have a capability.
async fn negotiated(play: &mut Play<'_>, capability: &'static str) -> Result<(), Stop> {
    let link = play.link();
    play.until("capability", &format!("{capability} on both ends"), SESSION_WITHIN, |seen| {
        let all = seen.session(&link).map(|session| session.capabilities.clone()).unwrap_or_default();
        Observation { ok: all.contains(capability), seen: words(all.into_iter().map(str::to_owned)) }
    })
    .await
}

/// After a restart the node has everything to say at once, which takes a message beyond 4,096 octets (RFC 8654).
async fn extended_messages(play: &mut Play<'_>) -> Result<(), Stop> {
    let link = play.link();
    negotiated(play, EXTENDED_MESSAGE).await?;
    many(play, "all routes").await?;
    let updates = |seen: &Seen| seen.session(&link).and_then(|session| session.updates);
    end(play).await?;
    let before = updates(&play.seen.borrow());
    play.nodes[0].start(OnShutdown::Restart).await?;
    arrives(play).await?;
    many(play, "all routes at once").await?;
    let after = updates(&play.seen.borrow());
    if let (Some(before), Some(after)) = (before, after) {
        let seen = format!("{} UPDATEs", after - before);
        let expected = "2 UPDATEs: every route, End-of-RIB";
        play.settle("messages", expected, Observation { seen, ok: after - before <= 2 })?;
    }
    Ok(())
}

async fn many(play: &mut Play<'_>, what: &str) -> Result<(), Stop> {
    let link = play.link();
    let more: IpNet = MORE.parse().context("it is a prefix")?;
    play.until(what, &format!("{MANY} more routes"), ROUTE_WITHIN, |seen| {
        let all = seen.routes.keys().filter(|prefix| more.contains(*prefix) && seen.uses(prefix, &link)).count();
        Observation { seen: format!("{all} more routes"), ok: all == usize::from(MANY) }
    })
    .await
}

/// Every community arrives as it was written.
async fn communities(play: &mut Play<'_>, all: &[&str]) -> Result<(), Stop> {
    let announced = play.announced();
    let wanted: BTreeSet<String> = all.iter().map(|c| (*c).to_owned()).collect();
    play.until("communities", &words(wanted.iter().cloned()), ROUTE_WITHIN, |seen| {
        let found: Vec<_> = announced.iter().map(|p| seen.route(p).map(|r| r.communities.clone())).collect();
        let said = words(found.iter().flatten().flatten().cloned().collect::<BTreeSet<_>>());
        Observation { seen: said, ok: found.iter().all(|found| found.as_ref() == Some(&wanted)) }
    })
    .await
}

/// The AS path is this one, and its first AS is the one that the OPEN showed.
async fn shows_as(play: &mut Play<'_>, wanted: &[u32]) -> Result<(), Stop> {
    let (link, announced) = (play.link(), play.announced());
    let asn = wanted[0];
    play.until("AS", &format!("AS path {wanted:?} from AS {asn}"), ROUTE_WITHIN, |seen| {
        let paths: Vec<_> =
            announced.iter().map(|p| seen.route(p).map(|r| r.as_path.clone()).unwrap_or_default()).collect();
        let shown = seen.session(&link).and_then(|session| session.remote_as);
        let ok = shown == Some(asn) && paths.iter().all(|path| *path == wanted);
        Observation { seen: format!("AS paths {paths:?} from AS {}", shown.unwrap_or_default()), ok }
    })
    .await
}

/// BFD is up on the router's side; a node that freezes is out of the kernel long before the hold time, and returns.
async fn freeze(play: &mut Play<'_>) -> Result<(), Stop> {
    let (link, announced) = (play.link(), play.announced());
    play.until("BFD", "up", SESSION_WITHIN, |seen| {
        let bfd = seen.session(&link).and_then(|session| session.bfd);
        let word = |up| if up { "up" } else { "down" };
        Observation { seen: bfd.map_or("no BFD session", word).into(), ok: bfd == Some(true) }
    })
    .await?;
    // On a busy machine a session may have come and gone once: what is frozen must have been up for a while.
    let calm = |seen: &Seen| {
        let is_up = seen.session(&link).and_then(|session| session.bfd) == Some(true);
        let Observation { seen, ok } = all_used(seen, &announced, &link);
        Observation { seen: format!("{seen}, BFD {}", if is_up { "up" } else { "down" }), ok: ok && is_up }
    };
    play.until("path", "routes, and BFD up", SESSION_WITHIN, calm).await?;
    play.stays("calm", "routes, and BFD up", AWAY, calm).await?;
    play.nodes[0].signal(Signal::STOP)?;
    play.until("frozen node", "no route", FROZEN_WITHIN, |seen| none_used(seen, &announced, &link)).await?;
    play.nodes[0].signal(Signal::CONT)?;
    used(play, "thawed node", SESSION_WITHIN).await
}

/// Every path arrives under an identifier of its own (RFC 7911).
async fn paths(play: &mut Play<'_>) -> Result<(), Stop> {
    let announced = play.announced();
    negotiated(play, ADD_PATH).await?;
    let wanted: BTreeSet<String> = PATHS.iter().map(|c| (*c).to_owned()).collect();
    play.until("paths", &format!("paths with {}", PATHS.join(" and ")), ROUTE_WITHIN, |seen| {
        let found = announced.iter().map(|prefix| seen.routes.get(prefix).map(Vec::as_slice).unwrap_or_default());
        let found: Vec<Vec<String>> =
            found.map(|paths| paths.iter().map(|path| words(path.communities.iter().cloned())).collect()).collect();
        let ok = found.iter().all(|paths| paths.len() == 2 && paths.iter().cloned().collect::<BTreeSet<_>>() == wanted);
        Observation { seen: format!("{found:?}"), ok }
    })
    .await
}

/// The kernel's weights are as the ready pods on the nodes, which these announced as bandwidths (RFC 10005).
async fn weights(play: &mut Play<'_>) -> Result<(), Stop> {
    let announced = play.announced();
    let ports: Vec<String> = play.nodes.iter().map(|node| node.link.port()).collect();
    let expected = format!("weights of {} as their pods: 3 to 1", ports.join(" and "));
    play.until("weights", &expected, ROUTE_WITHIN, |seen| {
        let weight = |prefix: &IpNet, port: &String| {
            let hops =
                seen.kernel.as_ref().and_then(|kernel| kernel.get(prefix)).map(Vec::as_slice).unwrap_or_default();
            hops.iter().find(|hop| hop.port == *port).map(|hop| hop.weight)
        };
        let found: Vec<Vec<Option<u32>>> =
            announced.iter().map(|prefix| ports.iter().map(|port| weight(prefix, port)).collect()).collect();
        let is_ratio = |weights: &Vec<Option<u32>>| match weights[..] {
            // Whole numbers out of a hundred: 75 and 25.
            [Some(first), Some(second)] => first > 1 && first.abs_diff(3 * second) <= 3,
            _ => false,
        };
        Observation { seen: format!("{found:?}"), ok: found.iter().all(is_ratio) }
    })
    .await
}

/// The router knows the node as its customer, and insists on being told (RFC 9234).
async fn role(play: &mut Play<'_>) -> Result<(), Stop> {
    let link = play.link();
    play.until("role", "customer", ROUTE_WITHIN, |seen| {
        let role = seen.session(&link).and_then(|session| session.role.clone()).unwrap_or_default();
        Observation { ok: role == "customer", seen: role }
    })
    .await
}
