//! The running lab: what scenarios act on and look at.

mod daemons;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::sync::watch;

#[cfg(feature = "emulator")]
use super::{args::ProviderKind, provider};
use super::{
    args::{DatapathKind, RouterKind},
    build::{self, ourselves},
    claim::Claim,
    client::{Client, Tally},
    manifests::{self, Condition, Endpoint, Manifests, ServiceSpec},
    netns::Inside,
    observe::{self, EVERY, Seen},
    process::{Process, Spec},
    proxy::Proxy,
    report::Report,
    routers::Router,
    site::{Node, POD_PORT, Site},
    xdp,
};
use crate::config::Delivery;

/// A look that began in time may end so much later.
const GRACE: Duration = Duration::from_secs(2);

/// Services with the pods behind them, as the lab wants them.
type Services = BTreeMap<String, (ServiceSpec, Vec<Endpoint>)>;

/// Why a scenario stops before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An expectation was not met; the report has it.
    Unmet,
    /// The lab itself failed.
    Broken(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// What a probe saw, and whether it is what was expected.
pub(crate) struct Observation {
    pub(crate) seen: String,
    pub(crate) ok: bool,
}

/// What a lab is built with.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) router: RouterKind,
    pub(crate) datapath: DatapathKind,
    pub(crate) delivery: Delivery,
    pub(crate) graceful_restart: bool,
    /// Daemons keep their files on disks that are soon full, and listen for BGP: for faults.
    pub(crate) rough: bool,
    /// So many nodes, the last ones, are not there at first.
    pub(crate) later: usize,
    /// Between two looks at everything.
    pub(crate) looks: Duration,
    /// Prefixes that an IPv4 session may carry.
    pub(crate) budget: Option<u32>,
    /// What the nodes run; `None` is this program.
    pub(crate) daemon: Option<PathBuf>,
    /// The program that daemons are at first, where it is another than this.
    pub(crate) previous: Option<PathBuf>,
    /// Where addresses come from besides the pools.
    #[cfg(feature = "emulator")]
    pub(crate) provider: ProviderKind,
}

impl Setup {
    fn program(&self) -> PathBuf {
        self.daemon.clone().unwrap_or_else(ourselves)
    }
}

/// The lab.
pub(crate) struct Lab {
    pub(crate) site: Site,
    pub(crate) report: Report,
    pub(crate) manifests: Manifests,
    pub(crate) router: Router,
    pub(crate) client: Client,
    pub(crate) datapath: DatapathKind,
    pub(crate) delivery: Delivery,
    /// The program that a daemon is when it is started.
    pub(crate) program: PathBuf,
    folder: PathBuf,
    setup: Setup,
    daemons: BTreeMap<String, Process>,
    pods: Vec<Process>,
    services: watch::Sender<Services>,
    seen: watch::Receiver<Arc<Seen>>,
    proxy: tokio::task::JoinHandle<()>,
    /// Addresses that the nodes' rules know.
    proxied: watch::Receiver<Result<BTreeSet<IpAddr>, String>>,
    /// Keeps the thread in the router's namespace alive.
    _eyes: Inside,
    #[cfg(feature = "emulator")]
    cloud: Option<provider::Cloud>,
    _aids: Option<xdp::Aids>,
}

impl Lab {
    /// Builds everything and starts everybody.
    ///
    /// # Errors
    /// The kernel refused, or a process could not be started.
    pub(crate) async fn start(claim: &Claim, site: Site, setup: &Setup, report: Report) -> anyhow::Result<Self> {
        let (folder, logs) = (claim.folder(), claim.folder().join("logs"));
        std::fs::create_dir(&logs)?;
        build::build(&site).await?;
        let at_first = site.nodes.len().saturating_sub(setup.later);
        let xdp = setup.datapath.is_ours();
        let aids = if xdp { Some(xdp::prepare(&site, &folder).await?) } else { None };
        let at = folder.join("manifests");
        let manifests = Manifests::create(at, &site.nodes[..at_first], setup.graceful_restart, setup.budget)?;
        #[cfg(feature = "emulator")]
        let cloud = match setup.provider {
            ProviderKind::None => None,
            ProviderKind::Packet => {
                manifests.put_objects("provider", &provider::objects())?;
                Some(provider::Cloud::start(&site)?)
            }
        };
        let mut pods = Vec::new();
        for (_, pod) in site.pods() {
            let arguments =
                ["lab-pod", "--name", &pod.name, "--port", &POD_PORT.to_string()].map(str::to_owned).to_vec();
            let spec = Spec { name: &pod.name, namespace: &pod.namespace, program: &ourselves(), arguments };
            pods.push(Process::start(&spec, &logs)?);
        }
        let router = Router::start(setup.router, &site, &folder.join("router"), &logs).await?;
        report.note(format!("router: {}", router.description));
        let sockets = site.nodes.iter().map(|n| (n.name.clone(), socket(&folder, &n.name))).collect();
        let eyes = site.router.runtime()?;
        let seen = observe::start(&site, &eyes, sockets, setup.looks);
        let services = watch::Sender::default();
        let (known, proxied) = watch::channel(Ok(BTreeSet::new()));
        // With XDP nobody needs rules.
        let proxied_nodes = if xdp { vec![] } else { site.nodes.clone() };
        let proxy = tokio::spawn(keep_proxying(proxied_nodes, services.subscribe(), seen.clone(), known));
        let client = Client::new(&site.client)?;
        let daemons = BTreeMap::new();
        let mut lab = Self {
            site,
            report,
            manifests,
            router,
            client,
            datapath: setup.datapath,
            delivery: setup.delivery,
            program: setup.previous.clone().unwrap_or_else(|| setup.program()),
            folder,
            setup: setup.clone(),
            daemons,
            pods,
            services,
            seen,
            proxy,
            proxied,
            _eyes: eyes,
            #[cfg(feature = "emulator")]
            cloud,
            _aids: aids,
        };
        if setup.rough {
            lab.mount_disks().await?;
        }
        let nodes = lab.site.nodes.clone();
        nodes[..at_first].iter().try_for_each(|node| lab.start_daemon(node))?;
        Ok(lab)
    }

    /// The emulated provider.
    ///
    /// # Errors
    /// This lab has none.
    #[cfg(feature = "emulator")]
    pub(crate) fn cloud(&self) -> anyhow::Result<&provider::Cloud> {
        self.cloud.as_ref().context("this lab has no provider")
    }

    /// From now on daemons that are started are what the lab is about. Returns what they were before.
    pub(crate) fn renew_program(&mut self) -> PathBuf {
        std::mem::replace(&mut self.program, self.setup.program())
    }

    /// kill -9 of the router; routes stay in its kernel.
    ///
    /// # Errors
    /// The kernel refused.
    pub(crate) async fn kill_router(&mut self) -> anyhow::Result<()> {
        self.router.kill().await
    }

    /// Starts the router again.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) async fn start_router(&mut self) -> anyhow::Result<()> {
        let (folder, logs) = (self.folder.join("router"), self.folder.join("logs"));
        self.router = Router::start(self.setup.router, &self.site, &folder, &logs).await?;
        Ok(())
    }

    /// Whether the router is our own.
    pub(crate) fn is_builtin(&self) -> bool {
        self.setup.router == RouterKind::Builtin
    }

    /// The admin socket of a node's daemon.
    pub(crate) fn socket(&self, node: &str) -> PathBuf {
        socket(&self.folder, node)
    }

    /// The last look at everything.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.seen.borrow().clone()
    }

    /// To watch from the view.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Seen>> {
        self.seen.clone()
    }

    /// Writes a Service and its slices; again, where it is there.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn put(&self, service: &ServiceSpec) -> anyhow::Result<()> {
        self.put_without(service, None)
    }

    /// As [`Lab::put`], with the pods of one node not ready.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn put_without(&self, service: &ServiceSpec, lost: Option<&str>) -> anyhow::Result<()> {
        let lost = |node: &Node| lost == Some(node.name.as_str());
        self.put_with(service, |node, _| if lost(node) { Condition::NotReady } else { Condition::Ready })
    }

    /// As [`Lab::put`], with each pod as it is said to be, by its node and its name.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn put_with(
        &self,
        service: &ServiceSpec,
        condition: impl Fn(&Node, &str) -> Condition,
    ) -> anyhow::Result<()> {
        let behind = |node: &str| service.nodes.is_empty() || service.nodes.iter().any(|n| n == node);
        let endpoints: Vec<Endpoint> = self
            .site
            .pods()
            .filter(|(node, _)| behind(&node.name))
            .map(|(node, pod)| Endpoint {
                node: node.name.clone(),
                address: pod.address,
                condition: condition(node, &pod.name),
            })
            .collect();
        self.manifests.put(service, &endpoints)?;
        self.services.send_modify(|all| {
            all.insert(service.name.clone(), (service.clone(), endpoints));
        });
        Ok(())
    }

    /// Removes a Service and its slices.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn delete(&self, service: &ServiceSpec) -> anyhow::Result<()> {
        self.services.send_modify(|all| {
            all.remove(&service.name);
        });
        self.manifests.delete(service)
    }

    /// Waits until the probe is satisfied, and says how long that took.
    ///
    /// # Errors
    /// The bound passed, a process that should run ended, or the probe failed.
    pub(crate) async fn expect(
        &mut self,
        name: &str,
        expected: &str,
        bound: Duration,
        mut probe: impl AsyncFnMut(&Lab) -> anyhow::Result<Observation>,
    ) -> Result<Duration, Stop> {
        self.report.open(name, expected, bound);
        let started = Instant::now();
        loop {
            if let Err(error) = self.all_run() {
                self.report.see(&format!("{error:#}"));
                self.report.settle(false);
                return Err(Stop::Unmet);
            }
            let left = bound.saturating_sub(started.elapsed()) + GRACE;
            let Observation { seen, ok } = match tokio::time::timeout(left, probe(self)).await {
                Ok(observation) => observation?,
                Err(_) => Observation { seen: "no end of the look".to_owned(), ok: false },
            };
            self.report.see(&seen);
            if ok {
                self.report.settle(true);
                return Ok(started.elapsed());
            }
            if started.elapsed() > bound {
                self.report.settle(false);
                return Err(Stop::Unmet);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// As [`Lab::expect`] for what a look shows.
    ///
    /// # Errors
    /// As [`Lab::expect`].
    pub(crate) async fn expect_seen(
        &mut self,
        name: &str,
        expected: &str,
        bound: Duration,
        mut judge: impl FnMut(&Seen) -> Observation,
    ) -> Result<Duration, Stop> {
        self.expect(name, expected, bound, async |lab: &Lab| Ok(judge(&lab.seen()))).await
    }

    /// Something that is so or not, now.
    ///
    /// # Errors
    /// It is not so.
    pub(crate) fn verify(&self, name: &str, expected: &str, seen: &str, ok: bool) -> Result<(), Stop> {
        self.report.open(name, expected, Duration::ZERO);
        self.report.see(seen);
        self.report.settle(ok);
        if ok { Ok(()) } else { Err(Stop::Unmet) }
    }

    /// Whether the nodes' rules know an address. A flow that comes before the rule is tracked without it, and
    /// stays lost however often its SYN is sent again.
    pub(crate) fn has_rules(&self, address: IpAddr) -> bool {
        self.proxied.borrow().as_ref().is_ok_and(|known| known.contains(&address))
    }

    /// Requests to an address from the client.
    ///
    /// # Errors
    /// The client's thread has ended.
    pub(crate) async fn ask(&self, address: IpAddr, port: u16, requests: usize) -> anyhow::Result<Tally> {
        self.client.batch(SocketAddr::new(address, port), requests).await
    }

    /// The router spreads flows over next hops in another way.
    ///
    /// # Errors
    /// The kernel has no such switch (before 6.11).
    pub(crate) fn respread(&self, seed: u32) -> anyhow::Result<()> {
        self.site.router.set(&build::SPREAD_BY_FIELDS)?;
        let write = move || std::fs::write("/proc/sys/net/ipv4/fib_multipath_hash_seed", format!("{seed}"));
        self.site.router.inside(write)?.context("set fib_multipath_hash_seed (Linux 6.11 and later)")
    }

    /// Everybody who should run, runs.
    fn all_run(&mut self) -> anyhow::Result<()> {
        self.router.must_run()?;
        self.daemons.values_mut().chain(&mut self.pods).try_for_each(Process::must_run)?;
        match &*self.proxied.borrow() {
            Ok(_) => Ok(()),
            Err(error) => Err(anyhow::anyhow!("{error}")),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Its namespaces go next.
        self.proxy.abort();
    }
}

fn socket(folder: &std::path::Path, node: &str) -> PathBuf {
    folder.join(format!("{node}.sock"))
}

/// kube-proxy's part: rules follow the Services and the addresses that they have. An address stays in a Service's
/// status while the daemons that wrote it come and go, so here too: until the Service goes or has another.
async fn keep_proxying(
    nodes: Vec<Node>,
    mut services: watch::Receiver<Services>,
    mut seen: watch::Receiver<Arc<Seen>>,
    known: watch::Sender<Result<BTreeSet<IpAddr>, String>>,
) {
    let mut proxy = Proxy::default();
    let mut status: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    loop {
        let proxied: Vec<_> = {
            let (services, seen) = (services.borrow_and_update(), seen.borrow_and_update().clone());
            status.retain(|key, _| services.values().any(|(s, _)| s.key() == *key));
            let of = |(s, endpoints): &(ServiceSpec, Vec<Endpoint>)| {
                let (addresses, now) = (status.entry(s.key()).or_default(), seen.addresses(&s.key()));
                if !now.is_empty() {
                    *addresses = now;
                }
                manifests::proxied(s, endpoints, addresses)
            };
            services.values().map(of).collect()
        };
        if let Err(error) = proxy.sync(&nodes, &proxied).await {
            known.send_modify(|known| *known = Err(format!("write the rules of the nodes: {error:#}")));
            return;
        }
        let addresses = proxied.iter().flat_map(|service| service.addresses.clone()).collect();
        known.send_modify(|known| *known = Ok(addresses));
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return },
            changed = seen.changed() => if changed.is_err() { return },
        }
    }
}
