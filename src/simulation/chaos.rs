//! What people and fate do.

use std::{collections::BTreeSet, time::Duration};

use ironcast_bgp::speaker::Shutdown;

use super::{
    bgp::Router,
    daemon::{Due, KINDS},
    objects::{self, CLAIMED, Wish, key},
    world::{Event, Trouble, World},
};
use crate::{
    source::index::{Kind, Object},
    types::Set,
};

impl World {
    /// One thing, and when the next one happens.
    pub(super) fn chaos(&mut self) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let node = self.dice.below(self.hosts.len());
        match self.dice.below(100) {
            0..14 => self.new_service(),
            14..24 => self.delete_service(),
            24..40 => self.change_service(),
            40..46 => self.move_endpoints(),
            46..50 => self.change_pool(),
            50..55 => self.switch_drain(node),
            55..58 => self.cordon(node),
            58..64 => self.crash(node),
            64..69 => self.stop(node),
            69..72 => self.power(node),
            72..79 => self.cut_api(node),
            79..85 => self.cut_way(node),
            85..88 => self.reset_router(),
            88..93 => self.stall(node),
            93..95 => self.lose_leader(),
            95..97 => self.edit_claims(),
            97 => self.hosts[node].skew += self.dice.below(90) as i64 - 45,
            98 => _ = self.provider.delete_by_hand(&mut self.dice.0),
            _ => self.provider.edit_by_hand(&mut self.dice.0),
        }
        let long = if self.dice.once_in(4) { 60_000 } else { 8_000 };
        let wait = self.dice.millis(20, long);
        self.clock.after(wait, Event::Chaos);
    }

    pub(super) fn new_service(&mut self) {
        if self.wishes.len() >= 8 {
            return;
        }
        self.serial += 1;
        let name = format!("s{}", self.dice.below(10));
        if self.wishes.contains_key(&name) {
            return;
        }
        let created = 1_700_000_000 + self.clock.now.as_secs() as i64;
        let wish = Wish::drawn(&mut self.dice, name.clone(), self.serial, created);
        self.trace(|| format!("people: {wish:?}"));
        self.api.put(wish.object(None));
        self.wishes.insert(name.clone(), wish);
        self.put_endpoints(&name);
    }

    fn put_endpoints(&mut self, service: &str) {
        let nodes: BTreeSet<String> =
            self.hosts.iter().filter(|_| !self.dice.once_in(4)).map(|host| host.name.clone()).collect();
        self.api.put(objects::slice(service, &nodes));
    }

    fn some_service(&mut self) -> Option<String> {
        let names: Vec<String> = self.wishes.keys().cloned().collect();
        self.dice.pick(&names)
    }

    fn delete_service(&mut self) {
        let Some(name) = self.some_service() else { return };
        self.trace(|| format!("people: {name} is deleted"));
        self.wishes.remove(&name);
        self.api.delete(Kind::Service, &key(&name));
        self.api.delete(Kind::EndpointSlice, &key(&format!("{name}-1")));
    }

    fn change_service(&mut self) {
        let Some(name) = self.some_service() else { return };
        let Some(wish) = self.wishes.get_mut(&name) else { return };
        wish.change(&mut self.dice);
        let wish = wish.clone();
        self.trace(|| format!("people: {wish:?}"));
        let before = match self.api.get(Kind::Service, &key(&name)).map(|object| &**object) {
            Some(Object::Service(service)) => Some((**service).clone()),
            _ => None,
        };
        self.api.put(wish.object(before.as_ref()));
    }

    fn move_endpoints(&mut self) {
        if let Some(name) = self.some_service() {
            self.put_endpoints(&name);
        }
    }

    fn change_pool(&mut self) {
        let (name, range) = objects::POOLS[self.dice.below(2)];
        let there = self.api.get(Kind::IPAddressPool, &key(name)).is_some();
        self.trace(|| format!("people: pool {name} changes"));
        match (there, self.dice.below(3)) {
            (true, 0) => self.api.delete(Kind::IPAddressPool, &key(name)),
            (_, n) => self.api.put(objects::pool(name, range, n != 1)),
        }
    }

    fn switch_drain(&mut self, node: usize) {
        let now = self.clock.now;
        let host = &mut self.hosts[node];
        if host.daemon.is_none() {
            return;
        }
        host.draining = if host.draining.is_some() { None } else { Some(now) };
        let on = host.draining.is_some();
        self.trace(|| format!("people: n{node} drains: {on}"));
        self.due(node, Due::Decide, Duration::from_millis(1));
    }

    fn cordon(&mut self, node: usize) {
        self.hosts[node].cordoned ^= true;
        self.clock.after(Duration::ZERO, Event::Node { node });
    }

    fn crash(&mut self, node: usize) {
        self.kill(node);
        let wait = self.dice.millis(100, 40_000);
        self.clock.after(wait, Event::Start { node });
    }

    /// SIGTERM: to come back, or for good.
    fn stop(&mut self, node: usize) {
        let now = self.clock.instant();
        let good = self.dice.once_in(3);
        let Some(daemon) = &mut self.hosts[node].daemon else { return };
        let how = match good {
            true => Shutdown::Stop { reason: "stopped".into() },
            false => Shutdown::Restart,
        };
        if let Some(speaker) = &mut daemon.speaker {
            speaker.shutdown(now, &how);
        }
        self.pump_node(node);
        self.let_go(node);
        self.kill(node);
        self.hosts[node].marked = !good;
        if good {
            self.hosts[node].served = Set::default();
        }
        let wait = self.dice.millis(500, if good { 120_000 } else { 20_000 });
        self.clock.after(wait, Event::Start { node });
    }

    /// The machine loses its power, or has it again.
    fn power(&mut self, node: usize) {
        let up = !self.hosts[node].up;
        self.hosts[node].up = up;
        self.trace(|| format!("n{node}: power {up}"));
        if up {
            let wait = self.dice.millis(2_000, 10_000);
            self.clock.after(wait, Event::Start { node });
            return self.clock.after(Duration::from_secs(10), Event::Node { node });
        }
        self.hosts[node].daemon = None;
        self.forget_announced(node);
        self.drop_wires(node, false);
        (self.hosts[node].marked, self.hosts[node].served) = (false, Set::default());
        self.clock.after(Duration::from_secs(40), Event::Node { node });
    }

    fn cut_api(&mut self, node: usize) {
        if self.hosts[node].api_cut.is_none() {
            self.hosts[node].api_cut = Some(self.clock.now);
            self.trace(|| format!("n{node}: no way to the API server"));
            let wait = self.dice.millis(500, 60_000);
            self.clock.after(wait, Event::Over(Trouble::Api(node)));
        }
    }

    fn cut_way(&mut self, node: usize) {
        let router = self.dice.below(self.routers.len());
        if self.hosts[node].cut.insert(router) {
            self.trace(|| format!("n{node}: no way to r{router}"));
            let wait = self.dice.millis(500, 120_000);
            self.clock.after(wait, Event::Over(Trouble::Way(node, router)));
        }
    }

    /// A router loses its sessions, or starts anew.
    fn reset_router(&mut self) {
        let router = self.dice.below(self.routers.len());
        let wires: Vec<usize> = self.wires.iter().filter(|(_, w)| w.router == router).map(|(w, _)| *w).collect();
        if self.dice.once_in(2) {
            self.trace(|| format!("r{router}: starts anew"));
            self.serial += 1;
            let anew = Router::new(self, router, self.serial);
            self.routers[router] = anew;
            for w in wires {
                if let Some(wire) = self.wires.get_mut(&w) {
                    wire.open[1] = false;
                }
                self.reset(w, 0);
            }
            return self.pump_router(router);
        }
        self.trace(|| format!("r{router}: sessions are reset"));
        for w in wires {
            self.reset(w, 0);
            self.reset(w, 1);
        }
    }

    fn stall(&mut self, node: usize) {
        let kind = KINDS[self.dice.below(KINDS.len())];
        if self.hosts[node].stalled.insert(kind) {
            self.trace(|| format!("n{node}: the watch of {kind} tells nothing"));
            let wait = self.dice.millis(500, 12_000);
            self.clock.after(wait, Event::Over(Trouble::Stall(node, kind)));
        }
    }

    fn lose_leader(&mut self) {
        let leader = (0..self.hosts.len()).find(|n| self.hosts[*n].daemon.as_ref().is_some_and(|d| d.leads()));
        let Some(leader) = leader else { return };
        if self.dice.once_in(2) { self.crash(leader) } else { self.cut_api(leader) }
    }

    /// Somebody deletes a claim, or all of them by force.
    fn edit_claims(&mut self) {
        let claims: Vec<_> = self.api.list(Kind::AddressClaim).map(|(key, _)| key.clone()).collect();
        if self.dice.once_in(3) {
            self.trace(|| "people: the journal is removed by force".into());
            return claims.iter().for_each(|key| self.api.remove(Kind::AddressClaim, key));
        }
        if let Some(key) = self.dice.pick(&claims) {
            self.trace(|| format!("people: {} is deleted", key.name));
            self.api.delete(Kind::AddressClaim, &key);
        }
    }

    pub(super) fn over(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Api(node) => {
                if self.hosts[node].api_cut.take().is_some() {
                    self.hosts[node].api_since = self.clock.now;
                    self.trace(|| format!("n{node}: the API server is there again"));
                    for kind in KINDS {
                        self.catch_up_watch(node, kind, 10_000);
                    }
                }
            }
            Trouble::Way(node, router) => self.mend(node, router),
            Trouble::Stall(node, kind) => {
                if self.hosts[node].stalled.remove(&kind) {
                    self.hosts[node].api_since = self.clock.now;
                    self.catch_up_watch(node, kind, 500);
                }
            }
        }
    }

    /// A watch that broke goes on from where it was, or lists where that is too long ago.
    fn catch_up_watch(&mut self, node: usize, kind: Kind, late: u64) {
        let Some(daemon) = &self.hosts[node].daemon else { return };
        let (process, upto) = (daemon.process, self.api.version);
        let wait = self.dice.millis(10, late);
        let event = match self.dice.once_in(3) && daemon.told.contains_key(&kind) {
            true => Event::List { node, process, kind },
            false => Event::Deliver { node, process, kind, upto },
        };
        self.clock.after(wait, event);
    }

    /// No more faults, and what was broken is mended.
    pub(super) fn calm_down(&mut self) {
        (self.calm, self.left) = (true, 0);
        self.trace(|| "calm".into());
        self.provider.calm_down();
        for node in 0..self.hosts.len() {
            for router in 0..self.routers.len() {
                self.mend(node, router);
            }
            self.over(Trouble::Api(node));
            KINDS.into_iter().for_each(|kind| self.over(Trouble::Stall(node, kind)));
            if !self.hosts[node].up {
                self.power(node);
            }
            self.hosts[node].skew = 0;
            self.clock.after(Duration::from_secs(5), Event::Start { node });
        }
        if self.api.get(Kind::IPAddressPool, &key(CLAIMED)).is_none() {
            self.api.put(objects::claimed_pool());
        }
    }
}
