//! `ironcast run` with a folder of manifests, beside a real router: what an operator sees from outside.

#[path = "run/rack.rs"]
mod rack;
mod support;

use std::{net::IpAddr, time::Duration};

use rack::{LIMIT, Rack, ours, until};
use serde_json::{Value, json};

/// The addresses of a Service as its node's daemon shows them, once it has any.
fn addresses(rack: &Rack, node: usize, service: &str) -> Option<Vec<IpAddr>> {
    let state = rack.state(node)?;
    let entry = state["services"].as_array()?.iter().find(|s| s["service"] == service)?.clone();
    let addresses: Vec<IpAddr> = serde_json::from_value(entry["addresses"].clone()).ok()?;
    (!addresses.is_empty()).then_some(addresses)
}

fn has_address(rack: &Rack, node: usize, service: &str) -> Vec<IpAddr> {
    until(&format!("{service} has an address"), || addresses(rack, node, service))
}

fn announced_by(rack: &Rack, address: IpAddr, count: usize) {
    until(&format!("{address} goes to {count} nodes"), || (rack.next_hops(address).len() == count).then_some(()));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn service_gets_an_address_that_answers_and_keeps_it_over_every_kind_of_end() {
    let Some(rack) = Rack::new(1) else { return };
    rack.put("web", &["IPv4", "IPv6"]);
    rack.serve(1);
    let daemon = rack.daemon(1, &[]);
    let web = has_address(&rack, 1, "shop/web");
    assert_eq!(web.len(), 2);
    let record = rack.manifests().join(".ironcast/state.json");
    let record = std::fs::read_to_string(record).expect("the record is there");
    for address in &web {
        assert!(record.contains(&address.to_string()), "{record}");
        announced_by(&rack, *address, 1);
        assert_eq!(rack.fetch(*address).as_deref(), Ok("n1"), "{address}");
    }

    drop(daemon); // killed
    let lo = rack.ip("n1", "address show dev lo");
    assert!(web.iter().all(|a| lo.contains(&a.to_string())), "{lo}");
    let daemon = rack.daemon(1, &["--on-shutdown", "stop"]);
    assert_eq!(has_address(&rack, 1, "shop/web"), web);
    web.iter().for_each(|address| announced_by(&rack, *address, 1));

    assert!(daemon.terminate(LIMIT), "{}", daemon.tail());
    web.iter().for_each(|address| announced_by(&rack, *address, 0));
    let lo = rack.ip("n1", "address show dev lo");
    assert!(!web.iter().any(|a| lo.contains(&a.to_string())), "{lo}");
    let _daemon = rack.daemon(1, &[]);
    assert_eq!(has_address(&rack, 1, "shop/web"), web);
    web.iter().for_each(|address| announced_by(&rack, *address, 1));
}

#[test]
fn restart_takes_no_route_and_no_request_from_the_router() {
    let Some(rack) = Rack::new(1) else { return };
    rack.put("web", &["IPv4"]);
    rack.serve(1);
    let daemon = rack.daemon(1, &[]);
    let web = has_address(&rack, 1, "shop/web")[0];
    announced_by(&rack, web, 1);
    assert!(daemon.terminate(LIMIT), "{}", daemon.tail());
    assert_eq!((rack.next_hops(web).len(), rack.fetch(web).as_deref()), (1, Ok("n1")), "nobody runs");
    let daemon = rack.daemon(1, &[]);
    let up =
        |state: &Value| state["sessions"].as_array().is_some_and(|s| s.iter().all(|s| s["state"] == "Established"));
    until("sessions are up again", || {
        assert_eq!(rack.next_hops(web).len(), 1, "{}", daemon.tail());
        rack.state(1).filter(up)
    });
    assert_eq!(rack.fetch(web).as_deref(), Ok("n1"));
    assert_eq!(rack.next_hops(web).len(), 1);
}

#[test]
fn bad_manifests_are_named_and_everything_else_keeps_working() {
    let Some(rack) = Rack::new(1) else { return };
    rack.put("web", &["IPv4"]);
    let daemon = rack.daemon(1, &[]);
    let web = has_address(&rack, 1, "shop/web")[0];
    announced_by(&rack, web, 1);

    rack.write_text("broken", "kind: [never closed\n");
    rack.write("bad-peer", &[ours("BGPPeer", "zero", json!({"myASN": 0, "peerASN": 1, "peerAddress": "10.0.1.1"}))]);
    rack.put("api", &["IPv4"]);
    let problems = until("both are named", || {
        let problems = rack.state(1)?["problems"].as_array()?.clone();
        (problems.len() >= 2).then_some(problems)
    });
    let words = problems.iter().map(Value::to_string).collect::<String>();
    assert!(words.contains("broken.yaml") && words.contains("zero") && words.contains("myASN"), "{words}");
    until("the log names them", || {
        let log = daemon.log();
        (log.contains("broken.yaml") && log.contains("myASN")).then_some(())
    });
    announced_by(&rack, has_address(&rack, 1, "shop/api")[0], 1);
    announced_by(&rack, web, 1);
    let status = rack.ask(1, &["status"]);
    assert!(text(&status.stdout).contains("PROBLEMS"), "{}", text(&status.stdout));

    rack.put("broken", &["IPv4"]);
    rack.write("bad-peer", &[]);
    until("both are mended", || rack.state(1)?["problems"].as_array()?.is_empty().then_some(()));
    announced_by(&rack, has_address(&rack, 1, "shop/broken")[0], 1);
}

#[test]
fn daemons_that_share_a_folder_announce_both_and_one_of_them_leads() {
    let Some(rack) = Rack::new(2) else { return };
    rack.put("web", &["IPv4"]);
    let daemons = [rack.daemon(1, &[]), rack.daemon(2, &[])];
    let web = has_address(&rack, 1, "shop/web");
    assert_eq!(has_address(&rack, 2, "shop/web"), web);
    announced_by(&rack, web[0], 2);
    let leads = |node: usize| rack.state(node).is_some_and(|state| state["leader"] == true);
    assert!(leads(1) != leads(2), "exactly one leads");

    let leader = if leads(1) { 1 } else { 2 };
    let other = 3 - leader;
    let [first, second] = daemons;
    let _other = if leader == 1 {
        drop(first);
        second
    } else {
        drop(second);
        first
    };
    until("the other one leads", || leads(other).then_some(()));
    rack.put("api", &["IPv4"]);
    let api = has_address(&rack, other, "shop/api");
    assert_ne!(api, web);
    assert_eq!(has_address(&rack, other, "shop/web"), web);
    announced_by(&rack, api[0], 1);
}

#[test]
fn drained_node_withdraws_stays_so_over_a_restart_and_comes_back_on_undo() {
    let Some(rack) = Rack::new(1) else { return };
    rack.put("web", &["IPv4"]);
    rack.serve(1);
    let daemon = rack.daemon(1, &[]);
    let web = has_address(&rack, 1, "shop/web")[0];
    announced_by(&rack, web, 1);

    let drained = rack.ask(1, &["drain"]);
    assert!(drained.status.success(), "{}{}", text(&drained.stdout), text(&drained.stderr));
    announced_by(&rack, web, 0);
    assert!(rack.ip("n1", "address show dev lo").contains(&web.to_string()), "what is under way is still answered");
    let explained = rack.ask(1, &["explain", "service", "shop/web"]);
    assert!(text(&explained.stdout).contains("draining"), "{}", text(&explained.stdout));

    assert!(daemon.terminate(LIMIT), "{}", daemon.tail());
    let _daemon = rack.daemon(1, &[]);
    has_address(&rack, 1, "shop/web");
    std::thread::sleep(Duration::from_secs(2));
    announced_by(&rack, web, 0);
    assert!(rack.ask(1, &["drain", "--undo"]).status.success());
    announced_by(&rack, web, 1);
    assert_eq!(rack.fetch(web).as_deref(), Ok("n1"));
}

#[test]
fn hundred_services_fit_into_twenty_megabytes() {
    let Some(rack) = Rack::new(1) else { return };
    (0..100).for_each(|i| rack.put(&format!("s{i}"), &["IPv4"]));
    let daemon = rack.daemon(1, &[]);
    until("all are announced", || (rack.state(1)?["routes"].as_array()?.len() >= 100).then_some(()));
    // Of an unoptimised program most of what is resident is its own text; the whole figure is that of a release.
    let (own, whole) = memory(daemon.pid());
    eprintln!("100 Services: {:.1} MB of its own, {:.1} MB resident", own as f64 / 1e6, whole as f64 / 1e6);
    assert!(own < 10_000_000, "{own} octets of its own");
    assert!(cfg!(debug_assertions) || whole < 20_000_000, "{whole} octets are resident");
}

/// Anonymous and all resident memory of a process, in octets.
fn memory(pid: i32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    };
    (field("RssAnon:"), field("VmRSS:"))
}

#[test]
fn check_names_what_is_wrong_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ironcast"));
        let output = command.arg("check").arg(folder.path()).args(more).output().expect("it runs");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let write = |name: &str, object: Value| {
        let text = serde_norway::to_string(&object).expect("writable");
        std::fs::write(folder.path().join(name), text).expect("written");
    };
    write("pool.yaml", ours("IPAddressPool", "edge", json!({"addresses": ["203.0.113.0/24"]})));
    assert_eq!(check(&[]).0, Some(0), "{:?}", check(&[]));
    write("peer.yaml", ours("BGPPeer", "zero", json!({"myASN": 0, "peerASN": 1, "peerAddress": "10.0.1.1"})));
    let (code, out, _) = check(&[]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("peer.yaml") && out.contains("BGPPeer") && out.contains("myASN"), "{out}");
    let (code, out, _) = check(&["-o", "json"]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, report["problems"].as_array().map(Vec::len)), (Some(1), Some(1)), "{out}");

    let (code, _, err) = check(&["--unclassed", "false"]);
    assert!(code == Some(2) && err.contains("--load-balancer-class"), "{code:?} {err}");
    std::fs::remove_dir_all(folder.path()).expect("removed");
    let (code, _, err) = check(&[]);
    assert!(code == Some(2) && err.contains("read the folder"), "{code:?} {err}");
}

/// A shell that dumps, so that the test says something, and the daemon under the same limit, which does not.
#[test]
fn a_daemon_that_crashes_leaves_no_core() {
    use std::os::unix::process::ExitStatusExt;
    if !rustix::process::geteuid().is_root() {
        return support::skip("a network namespace needs root");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let dumping = |command: &str| {
        let mut shell = std::process::Command::new("unshare");
        shell.args(["--net", "sh", "-c"]).arg(format!("ulimit -c unlimited && {command}")).current_dir(&folder);
        shell
    };
    let control = dumping("kill -ABRT $$").status().expect("unshare runs");
    if !control.core_dumped() {
        return support::skip("this machine writes no core files: see /proc/sys/kernel/core_pattern");
    }
    let (program, socket) = (env!("CARGO_BIN_EXE_ironcast"), folder.path().join("admin.sock"));
    let flags = "--node n1 --manifests . --state-dir state --admin none --datapath none --vip-interface none";
    let mut daemon =
        dumping(&format!("exec {program} run {flags} --admin-socket admin.sock")).spawn().expect("it runs");
    until("the daemon is there", || socket.exists().then_some(()));
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).expect("it is ours");
    let ended = daemon.wait().expect("it ends");
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false));
}
