//! The status page in a real browser, headless: what it shows, in light and dark, wide and narrow, of a running lab and
//! of nodes with bad news and bad manners.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
};

use ironcast::{
    admin::page::{Nodes, PagePort},
    types::{
        DatapathState, NodeState, RouteState, ServiceState, SessionState, SourceState, UplinkState, WithheldState,
    },
};
use serde_json::Value;

use super::{alone, is_possible, program, support::skip};

/// What is asked of the page: a value that JSON can say.
const ASKED: &str = include_str!("asked.js");

/// What a browser has on the screen.
fn browse(url: &str, wait: &str, flags: &[&str]) -> Value {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pictures/browser"));
    let output = command.args([url, "--wait", wait, "--print", ASKED]).args(flags).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn has_browser() -> bool {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .any(|name| std::path::Path::new("/usr/bin").join(name).exists());
    if !found {
        skip("no Chromium: install the package chromium");
    }
    found
}

fn has(value: &Value, word: &str) -> bool {
    value.as_array().is_some_and(|all| all.iter().any(|text| text.as_str().is_some_and(|text| text.contains(word))))
}

/// Two nodes: one with a session down, a Service withheld, and names as an attacker would choose them.
fn bad_news() -> Vec<NodeState> {
    let hostile = "<img src=x onerror='window.ran = 1'><script>window.ran = 2</script>";
    let session = |peer: &str, up: bool| SessionState {
        peer: peer.into(),
        address: "192.0.2.1".parse().expect("valid"),
        state: if up { "Established" } else { "Active" }.into(),
        since_seconds: 75,
        local_asn: 64512,
        remote_asn: up.then_some(64513),
        families: vec![],
        capabilities: vec!["graceful-restart=120s".into()],
        hold_time_seconds: up.then_some(9),
        advertised: usize::from(up),
        last_error: (!up).then(|| hostile.to_owned()),
        established_count: 1,
        bfd: None,
        unacknowledged: None,
    };
    let node = |name: &str, up: bool| NodeState {
        node: name.into(),
        version: "0.1.0".into(),
        source: SourceState { kind: "kubernetes".into(), complete: true },
        leader: up,
        sessions: vec![session("tor-a", true), session("tor-b", up)],
        services: vec![ServiceState {
            service: "shop/web".into(),
            addresses: vec!["192.0.2.7".parse().expect("valid")],
            pool: Some("edge".into()),
            pool_reason: Some(hostile.into()),
            families: vec![],
            pending: None,
            endpoints: 3,
        }],
        routes: vec![RouteState {
            prefix: "192.0.2.7/32".into(),
            peer: "tor-a".into(),
            services: vec!["shop/web".into()],
            communities: vec![],
            med: None,
            local_pref: None,
        }],
        withheld: vec![WithheldState {
            service: "shop/api".into(),
            peer: None,
            reason: "noLocalEndpoints".into(),
            detail: "no pod here takes traffic".into(),
        }],
        datapath: Some(DatapathState {
            uplinks: vec![UplinkState {
                interface: "eth0".into(),
                mode: "generic".into(),
                failed: vec!["native: not supported".into()],
            }],
            ..DatapathState::default()
        }),
        ..NodeState::default()
    };
    vec![node("n1", true), node("n2", false)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn page_tells_bad_news_legibly_and_runs_nothing_that_it_shows() {
    if !has_browser() {
        return;
    }
    let port = PagePort::open("127.0.0.1:0".parse().expect("valid")).await.expect("a port");
    let url = format!("http://{}/", port.address().expect("known"));
    let nodes: Nodes = Ok(bad_news());
    let (_keep, receiver) = tokio::sync::watch::channel(Arc::new(nodes));
    let server = tokio::spawn(port.serve(receiver));
    let views: [&[&str]; 3] = [&[], &["--dark"], &["--size", "360x0"]];
    let mut grounds = Vec::new();
    for flags in views {
        let url = url.clone();
        let shown = tokio::task::spawn_blocking(move || browse(&url, "1.5", flags)).await.expect("it ran");
        assert!(
            shown["verdict"]
                .as_str()
                .is_some_and(|v| v.contains("Something is down") && v.contains("n2: tor-b is Active")),
            "{shown:#}"
        );
        assert_eq!(shown["map"], "n1, n2: 3 of 4 sessions up, 1 Service");
        assert!(has(&shown["services"], "192.0.2.7") && has(&shown["services"], "to tor-a by n1 n2"), "{shown:#}");
        assert!(
            has(&shown["withheld"], "noLocalEndpoints") && has(&shown["path"], "native: not supported"),
            "{shown:#}"
        );
        assert!(has(&shown["sessions"], "<img src=x"), "shown as text: {shown:#}");
        assert_eq!((&shown["ran"], &shown["images"]), (&Value::Null, &0.into()), "and nothing else: {shown:#}");
        assert_eq!(shown["overflow"], 0, "{flags:?}: it is wider than the window");
        assert_eq!(shown["unlabelled"], 0);
        // WCAG 2.1 §1.4.3.
        assert!(shown["dimmest"].as_f64().is_some_and(|ratio| ratio >= 4.5), "{flags:?}: {}", shown["dimmest"]);
        grounds.push(shown["ground"].clone());
    }
    assert_ne!(grounds[0], grounds[1], "dark is another ground than light");
    server.abort();
}

#[test]
fn page_of_a_running_lab_shows_its_nodes_and_their_traffic() {
    if !is_possible() || !has_browser() {
        return;
    }
    let _alone = alone();
    let path: &[&str] = if cfg!(feature = "xdp") { &["--datapath", "xdp"] } else { &[] };
    let mut command = program();
    command.args(["--keep", "--page", "127.0.0.1:0", "--timeout", "60"]).args(path);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut url = None;
    let mut kept = false;
    for line in lines.by_ref() {
        url = line.split("page of all nodes: ").nth(1).map(str::to_owned).or(url);
        kept |= line.contains("kept until Ctrl-C");
        if kept {
            break;
        }
    }
    // Who reads no more must not block who writes.
    std::thread::spawn(move || lines.for_each(drop));
    let shown = kept.then(|| browse(&url.expect("it is printed"), "14", &[]));
    let ended = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(ended.success() && child.wait().expect("our child").success());
    let shown = shown.expect("the lab came so far");
    assert_eq!(shown["map"], "n1, n2, n3: 6 of 6 sessions up, 1 Service", "{shown:#}");
    assert_eq!(shown["verdict"], "Everything that is wanted is announced");
    assert!(has(&shown["services"], "to 6 routers by n1 n2 n3"), "{shown:#}");
    if cfg!(feature = "xdp") {
        let busy =
            |text: &Value| text.as_str().is_some_and(|text| text.ends_with("packets/s") && !text.starts_with("0 "));
        assert!(shown["services"].as_array().is_some_and(|all| all.iter().any(busy)), "{shown:#}");
        assert!(has(&shown["path"], "connections/s"), "{shown:#}");
    }
}
