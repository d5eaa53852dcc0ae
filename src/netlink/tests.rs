//! Against the kernel, each test in a network namespace of its own: a thread that leaves the host's namespace. The
//! namespace goes with the thread, whatever becomes of the test.

use std::{process::Command, thread};

use super::*;

/// Runs the body in a fresh network namespace, or says why it cannot.
fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("IRONCAST_NO_SKIP").is_none(), "needs root for a network namespace");
        eprintln!("skipped: needs root for a network namespace");
        return;
    }
    let run = || {
        // SAFETY: the thread is new and shares no file descriptor table that NEWNET could take away.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let bounded = async { tokio::time::timeout(Duration::from_secs(20), body()).await };
        runtime.block_on(bounded).expect("the test ends in time");
    };
    thread::spawn(run).join().expect("the test passes");
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip runs");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Running {
    desired: watch::Sender<Option<Arc<Desired>>>,
    routes: watch::Sender<BTreeSet<route::Spec>>,
    ready: watch::Receiver<Set<IpAddr>>,
    host: watch::Receiver<Arc<Host>>,
    finish: oneshot::Sender<Finish>,
    task: tokio::task::JoinHandle<Result<(), NetlinkError>>,
}

fn start(vips_on_lo: bool, state_dir: &std::path::Path, addresses: &[&str]) -> Running {
    let (desired, for_desired) = watch::channel(wanted(addresses));
    let (routes, for_routes) = watch::channel(BTreeSet::new());
    let (for_ready, ready) = watch::channel(Set::default());
    let (for_host, host) = watch::channel(Arc::default());
    let (finish, for_finish) = oneshot::channel();
    let channels =
        Channels { desired: for_desired, routes: for_routes, ready: for_ready, host: for_host, finish: for_finish };
    let task = tokio::spawn(run(Options { vips_on_lo, state_dir: state_dir.into() }, channels));
    Running { desired, routes, ready, host, finish, task }
}

fn wanted(addresses: &[&str]) -> Option<Arc<Desired>> {
    Some(Arc::new(Desired { addresses: set(addresses), ..Desired::default() }))
}

fn set(addresses: &[&str]) -> Set<IpAddr> {
    addresses.iter().map(|a| a.parse().expect("valid")).collect()
}

impl Running {
    async fn until_ready(&mut self, addresses: &[&str]) {
        let expected = set(addresses);
        self.ready.wait_for(|ready| *ready == expected).await.expect("the task runs");
    }

    async fn end(self, how: Finish) {
        self.finish.send(how).expect("the task runs");
        self.task.await.expect("no panic").expect("no error");
    }
}

/// Waits until `ip` shows what is expected.
async fn until(arguments: &str, holds: impl Fn(&str) -> bool) {
    while !holds(&ip(arguments)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn wanted_addresses_answer_on_lo_and_leave_after_the_linger() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut running = start(true, dir.path(), &["192.0.2.1", "2001:db8::1"]);
        running.until_ready(&["192.0.2.1", "2001:db8::1"]).await;
        assert!(ip("-4 address show dev lo").contains("192.0.2.1/32 scope host"));
        let v6 = ip("-6 address show dev lo");
        assert!(v6.contains("2001:db8::1/128") && v6.contains("deprecated"), "{v6}");
        std::net::TcpListener::bind("192.0.2.1:0").expect("the address is ours");

        running.desired.send_replace(wanted(&["192.0.2.1"]));
        running.until_ready(&["192.0.2.1"]).await;
        assert!(ip("address show dev lo").contains("2001:db8::1/128"), "stays until routers have withdrawn");
        until("address show dev lo", |lo| !lo.contains("2001:db8::1")).await;
        running.end(Finish::Remove).await;
        assert!(!ip("address show dev lo").contains("192.0.2.1"));
    });
}

#[test]
fn addresses_of_others_stay_and_a_predecessors_are_taken_over() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        ip("link set lo up");
        ip("address add 192.0.2.7/32 dev lo");
        ip("address add 192.0.2.8/32 dev lo");
        let mut killed = start(true, dir.path(), &["192.0.2.1", "192.0.2.2", "192.0.2.8"]);
        killed.until_ready(&["192.0.2.1", "192.0.2.2", "192.0.2.8"]).await;
        killed.task.abort();

        let empty = tempfile::tempdir().expect("a folder");
        let mut successor = start(true, empty.path(), &["192.0.2.2"]);
        successor.until_ready(&["192.0.2.2"]).await;
        until("address show dev lo", |lo| !lo.contains("192.0.2.1/")).await;
        successor.end(Finish::Remove).await;
        let lo = ip("address show dev lo");
        assert!(lo.contains("192.0.2.7/32") && lo.contains("192.0.2.8/32"), "{lo}");
        assert!(!lo.contains("192.0.2.2/"), "{lo}");
    });
}

#[test]
fn nothing_is_removed_before_the_first_plan() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut killed = start(true, dir.path(), &["192.0.2.1"]);
        killed.until_ready(&["192.0.2.1"]).await;
        killed.task.abort();

        let successor = start(true, dir.path(), &[]);
        successor.desired.send_replace(None);
        tokio::time::sleep(LINGER + Duration::from_millis(200)).await;
        assert!(ip("address show dev lo").contains("192.0.2.1/32"));
        successor.end(Finish::Remove).await;
        assert!(!ip("address show dev lo").contains("192.0.2.1/32"), "for good is for good");
    });
}

#[test]
fn restart_leaves_the_addresses_in_place() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut running = start(true, dir.path(), &["192.0.2.1"]);
        running.until_ready(&["192.0.2.1"]).await;
        running.end(Finish::Keep).await;
        assert!(ip("address show dev lo").contains("192.0.2.1/32"));
    });
}

#[test]
fn address_that_somebody_removes_comes_back() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut running = start(true, dir.path(), &["192.0.2.1"]);
        running.until_ready(&["192.0.2.1"]).await;
        ip("address del 192.0.2.1/32 dev lo");
        until("address show dev lo", |lo| lo.contains("192.0.2.1/32")).await;
        running.until_ready(&["192.0.2.1"]).await;
        running.end(Finish::Remove).await;
    });
}

#[test]
fn beside_kube_proxy_nothing_is_put_on_lo() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut running = start(false, dir.path(), &["192.0.2.1"]);
        running.until_ready(&["192.0.2.1"]).await;
        assert!(!ip("address show dev lo").contains("192.0.2.1"));
        running.end(Finish::Keep).await;
    });
}

#[test]
fn links_and_addresses_of_the_host_are_observed_as_they_change() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        let mut running = start(false, dir.path(), &[]);
        ip("link add up0 type veth peer name up1");
        ip("address add 198.51.100.5/24 dev up0");
        ip("link set up0 up");
        ip("link set up1 up");
        let seen = |host: &Arc<Host>| {
            let up = host.links.values().any(|l| l.name == "up0" && l.carrier);
            up && host.addresses.iter().any(|a| a.address == IpAddr::from([198, 51, 100, 5]))
        };
        running.host.wait_for(seen).await.expect("the task runs");
        ip("link set up1 down");
        let down = |host: &Arc<Host>| host.links.values().any(|l| l.name == "up0" && l.up && !l.carrier);
        running.host.wait_for(down).await.expect("the task runs");
        running.end(Finish::Keep).await;
    });
}

#[test]
fn routes_to_peers_are_added_replaced_and_removed_and_those_of_others_stay() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().expect("a folder");
        ip("link add up0 type veth peer name up1");
        ip("address add 198.51.100.5/24 dev up0");
        ip("address add 2001:db8:1::5/64 dev up0 nodad");
        ip("link set up1 up");
        ip("link set up0 up");
        ip("route add 203.0.113.9/32 via 198.51.100.9");
        let spec = |to: &str, via: &str| route::Spec {
            destination: to.parse().expect("valid"),
            gateway: via.parse().expect("valid"),
        };
        let running = start(false, dir.path(), &[]);
        let six = spec("2001:db8:ffff::1/128", "2001:db8:1::1");
        running.routes.send_replace([spec("203.0.113.1/32", "198.51.100.1"), six].into());
        until("route show proto 73", |r| r.contains("203.0.113.1 via 198.51.100.1")).await;
        until("-6 route show proto 73", |r| r.contains("2001:db8:ffff::1 via 2001:db8:1::1")).await;
        running
            .routes
            .send_replace([spec("203.0.113.1/32", "198.51.100.2"), spec("203.0.113.9/32", "198.51.100.1")].into());
        until("route show proto 73", |r| r.contains("203.0.113.1 via 198.51.100.2") && r.lines().count() == 1).await;
        running.routes.send_replace([].into());
        until("route show proto 73", str::is_empty).await;
        assert!(ip("route show").contains("203.0.113.9 via 198.51.100.9"));
        running.end(Finish::Remove).await;
    });
}
