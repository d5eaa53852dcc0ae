//! Observe, compare, apply: the only place of this module that waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection, sys::AsyncSocket};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{Channels, Finish, Host, LINGER, NetlinkError, Options, addr, link, remembered::Remembered, route};
use crate::{plan::Desired, types::Set};

/// Notifications come in bursts; this long after the first one the whole is observed once.
const COALESCE: Duration = Duration::from_millis(20);
/// A lost notification or a change that the kernel refused costs at most this long.
const REPAIR: Duration = Duration::from_secs(10);

/// Not the routes: a host may carry the whole Internet's, and ours are few and repaired.
const GROUPS: [MulticastGroup; 3] = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];

/// Runs the connection and what speaks over it in one task.
pub(super) async fn run(options: Options, channels: Channels) -> Result<(), NetlinkError> {
    let (mut connection, handle, mut events) = new_multicast_connection(&GROUPS).map_err(NetlinkError::Open)?;
    // The kernel filters dumps; where it cannot (before 4.20) we get more than we asked for and filter ourselves.
    let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
    let Channels { mut desired, mut routes, ready, host, mut finish } = channels;
    let mut kernel = Kernel::new(options, handle, ready, host);
    let conversation = async {
        let before_plan = tokio::select! {
            how = &mut finish => Some(how.unwrap_or(Finish::Keep)),
            plan = first_plan(&mut desired) => plan.map(|()| None)?,
        };
        if let Some(how) = before_plan {
            return kernel.finish(how).await;
        }
        let how = loop {
            let wanted = desired.borrow_and_update().as_ref().map(|plan| plan.addresses.clone()).unwrap_or_default();
            let peers = routes.borrow_and_update().clone();
            let again = kernel.reconcile(&wanted, &peers).await?;
            tokio::select! {
                how = &mut finish => break how.unwrap_or(Finish::Keep),
                changed = desired.changed() => changed.map_err(|_| NetlinkError::NoPlanner)?,
                Ok(()) = routes.changed() => {}
                event = events.next() => {
                    event.ok_or(NetlinkError::Closed)?;
                    tokio::time::sleep(COALESCE).await;
                    while let Some(Some(_)) = events.next().now_or_never() {}
                }
                () = sleep_until(again) => {}
            }
        };
        kernel.finish(how).await
    };
    tokio::select! {
        () = connection => Err(NetlinkError::Closed),
        result = conversation => result,
    }
}

async fn first_plan(desired: &mut watch::Receiver<Option<Arc<Desired>>>) -> Result<(), NetlinkError> {
    desired.wait_for(Option::is_some).await.map(drop).map_err(|_| NetlinkError::NoPlanner)
}

/// This task's picture of the kernel.
struct Kernel {
    options: Options,
    handle: Handle,
    ready: watch::Sender<Set<IpAddr>>,
    host: watch::Sender<Arc<Host>>,
    remembered: Remembered,
    /// Ours that are no longer wanted, and when they go.
    leaving: BTreeMap<IpAddr, Instant>,
    /// What the kernel refused, by object; logged once while it lasts.
    refused: BTreeMap<String, String>,
    /// There are routes of ours, or there may be some of a predecessor.
    routed: bool,
    first: bool,
}

impl Kernel {
    fn new(
        options: Options,
        handle: Handle,
        ready: watch::Sender<Set<IpAddr>>,
        host: watch::Sender<Arc<Host>>,
    ) -> Self {
        let remembered = Remembered::load(&options.state_dir);
        let (leaving, refused) = (BTreeMap::new(), BTreeMap::new());
        Self { options, handle, ready, host, remembered, leaving, refused, routed: true, first: true }
    }

    /// One round. Returns when the next one is due if nothing happens.
    async fn reconcile(
        &mut self,
        wanted: &Set<IpAddr>,
        routes: &BTreeSet<route::Spec>,
    ) -> Result<Instant, NetlinkError> {
        let now = Instant::now();
        let host = self.observe().await?;
        let on_lo = if self.options.vips_on_lo { wanted.iter().copied().collect() } else { BTreeSet::new() };
        let mut changed = self.wake_loopback(&on_lo, &host).await;
        changed |= self.apply_addresses(&on_lo, &host, now).await;
        self.apply_routes(routes).await?;
        let host = if changed { self.observe().await? } else { host };
        self.publish_ready(wanted, &host);
        self.first = false;
        Ok(self.leaving.values().copied().min().unwrap_or(now + REPAIR).min(now + REPAIR))
    }

    async fn observe(&mut self) -> Result<Arc<Host>, NetlinkError> {
        let failed = |what| move |source| NetlinkError::Observe { what, source };
        let links = link::observe(&self.handle).await.map_err(failed("links"))?;
        let addresses = addr::observe(&self.handle).await.map_err(failed("addresses"))?;
        let host = Arc::new(Host { links, addresses });
        self.host.send_if_modified(|before| {
            if **before == *host {
                return false;
            }
            if !self.first {
                log_changes(before, &host);
            }
            *before = host.clone();
            true
        });
        Ok(host)
    }

    /// In a fresh network namespace `lo` is down, and nothing on it answers.
    async fn wake_loopback(&mut self, on_lo: &BTreeSet<IpAddr>, host: &Host) -> bool {
        match host.loopback() {
            Some(lo) if !lo.up && !on_lo.is_empty() => {
                let done = link::set_up(&self.handle, lo.index).await;
                self.note(&lo.name, "switch on", done)
            }
            _ => false,
        }
    }

    async fn apply_addresses(&mut self, wanted: &BTreeSet<IpAddr>, host: &Host, now: Instant) -> bool {
        let Some(lo) = host.loopback().map(|lo| lo.index) else { return false };
        let change = addr::diff(wanted, &host.addresses, lo, self.remembered.addresses());
        self.leaving.retain(|address, _| change.remove.contains(address));
        for address in &change.remove {
            self.leaving.entry(*address).or_insert(now + LINGER);
        }
        let due: Vec<IpAddr> = self.leaving.iter().filter(|(_, at)| **at <= now).map(|(a, _)| *a).collect();
        let ours = addr::ours(&host.addresses, lo, self.remembered.addresses());
        self.remember(ours.union(&change.add).copied().collect());
        let mut changed = false;
        for address in change.add {
            let done = addr::add(&self.handle, lo, address).await;
            if self.note(&address.to_string(), "add to lo", done) {
                info!(%address, "address added to lo");
                changed = true;
            }
        }
        for address in due {
            changed |= self.remove_address(lo, address).await;
        }
        changed
    }

    async fn remove_address(&mut self, lo: u32, address: IpAddr) -> bool {
        let done = addr::remove(&self.handle, lo, address).await;
        if !self.note(&address.to_string(), "remove from lo", done) {
            // Tried again later, not at once.
            self.leaving.insert(address, Instant::now() + REPAIR);
            return false;
        }
        info!(%address, "address removed from lo");
        self.leaving.remove(&address);
        let mut rest = self.remembered.addresses().clone();
        rest.remove(&address);
        self.remember(rest);
        true
    }

    fn remember(&mut self, addresses: BTreeSet<IpAddr>) {
        if let Err(error) = self.remembered.set(addresses) {
            let dir = self.options.state_dir.display();
            warn!(%error, %dir, "cannot save the list of our addresses; only their mark in the kernel tells them apart");
        }
    }

    async fn apply_routes(&mut self, wanted: &BTreeSet<route::Spec>) -> Result<(), NetlinkError> {
        if wanted.is_empty() && !self.routed {
            return Ok(());
        }
        let observed = route::observe(&self.handle, wanted.is_empty()).await;
        let present = observed.map_err(|source| NetlinkError::Observe { what: "routes", source })?;
        let change = route::diff(wanted, &present);
        self.routed = !(wanted.is_empty() && change.remove.is_empty());
        for spec in &change.remove {
            let done = route::remove(&self.handle, spec).await;
            if self.note(&spec.to_string(), "remove the route", done) {
                info!(route = %spec, "route removed");
            }
        }
        for spec in &change.add {
            let done = route::add(&self.handle, spec).await;
            if self.note(&spec.to_string(), "add the route", done) {
                info!(route = %spec, "route added");
            }
        }
        for spec in &change.conflicts {
            let problem = "another route to the same destination stands in the main table; remove one of the two";
            self.refuse(&spec.to_string(), "add the route", problem.into());
        }
        Ok(())
    }

    fn publish_ready(&self, wanted: &Set<IpAddr>, host: &Host) {
        let up = host.loopback().is_some_and(|lo| lo.up);
        let ready = match self.options.vips_on_lo {
            true if up => addr::ready(wanted, &host.addresses),
            true => Set::default(),
            false => wanted.clone(),
        };
        self.ready.send_if_modified(|before| {
            let changed = *before != ready;
            if changed {
                debug!(addresses = ready.len(), "ready addresses changed");
                *before = ready;
            }
            changed
        });
    }

    /// Whether it worked; a refusal is logged once while it lasts.
    fn note(&mut self, object: &str, attempt: &'static str, done: Result<(), rtnetlink::Error>) -> bool {
        match done {
            Ok(()) => {
                self.refused.remove(object);
                true
            }
            Err(error) => {
                self.refuse(object, attempt, describe(error));
                false
            }
        }
    }

    fn refuse(&mut self, object: &str, attempt: &'static str, problem: String) {
        if self.refused.get(object) != Some(&problem) {
            warn!(object, attempt, problem, "the kernel does not have it our way; trying again");
            self.refused.insert(object.into(), problem);
        }
    }

    async fn finish(&mut self, how: Finish) -> Result<(), NetlinkError> {
        if how == Finish::Keep {
            return Ok(());
        }
        let host = self.observe().await?;
        if let Some(lo) = host.loopback().map(|lo| lo.index) {
            for address in addr::ours(&host.addresses, lo, self.remembered.addresses()) {
                self.remove_address(lo, address).await;
            }
        }
        self.apply_routes(&BTreeSet::new()).await
    }
}

fn describe(error: rtnetlink::Error) -> String {
    let rtnetlink::Error::NetlinkError(message) = error else { return error.to_string() };
    match -message.raw_code() {
        libc::EPERM | libc::EACCES => format!("{message}: the daemon needs CAP_NET_ADMIN (and IPv6 enabled on lo)"),
        _ => message.to_string(),
    }
}

fn log_changes(before: &Host, after: &Host) {
    for change in link::diff(&before.links, &after.links) {
        info!(%change, "link");
    }
    let name = |a: &addr::Address| after.links.get(&a.link).map_or_else(|| a.link.to_string(), |l| l.name.clone());
    let others = |a: &&addr::Address| !a.ours();
    for a in after.addresses.difference(&before.addresses).filter(others) {
        info!(address = %a.address, link = name(a), "address appeared");
    }
    for a in before.addresses.difference(&after.addresses).filter(others) {
        info!(address = %a.address, link = name(a), "address is gone");
    }
}
