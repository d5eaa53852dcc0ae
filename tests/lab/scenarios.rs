//! Every scenario ends well, with every router that is here, in time, and leaves nothing.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{alone, is_possible, lab, support::skip};

/// What the issue promises after the build.
const AT_MOST: Duration = Duration::from_secs(60);

pub(crate) fn is_installed(router: &str) -> bool {
    let (program, package) = match router {
        "bird" => ("bird", "bird2"),
        "frr" => ("zebra", "frr"),
        "gobgp" => ("gobgpd", "gobgpd"),
        "exabgp" => ("exabgp", "exabgp"),
        _ => return true,
    };
    let here = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/lib/frr", "/usr/libexec/frr"]
        .iter()
        .any(|folder| std::path::Path::new(folder).join(program).exists());
    if !here {
        skip(&format!("--router {router}: install the package {package}"));
    }
    here
}

fn ends_well(router: &str, scenario: &str, more: &[&str]) {
    if !is_possible() || !is_installed(router) {
        return;
    }
    let _alone = alone();
    let started = Instant::now();
    let arguments = ["--router", router, "--scenario", scenario, "--json", "--timeout", "58"];
    let output = lab(&[&arguments, more].concat());
    let (took, log) = (started.elapsed(), String::from_utf8_lossy(&output.stderr).into_owned());
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no verdict: {e}\n{log}"));
    assert_eq!(verdict["ok"], true, "{verdict:#}\n{log}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((verdict["router"].as_str(), verdict["scenario"].as_str()), (Some(router), Some(scenario)));
    assert!(verdict["expectations"].as_array().is_some_and(|all| all.iter().all(|e| e["ok"] == true)), "{verdict:#}");
    assert!(took < AT_MOST, "{took:?}\n{log}");
}

macro_rules! scenarios {
    ($($(#[$only:meta])? $test:ident: $router:literal $scenario:literal $($more:literal)*,)*) => {
        $($(#[$only])?
        #[test]
        fn $test() {
            ends_well($router, $scenario, &[$($more),*]);
        })*
    };
}

scenarios! {
    service_appears_and_goes_with_the_builtin_router: "builtin" "first-light",
    service_appears_and_goes_with_bird: "bird" "first-light",
    service_appears_and_goes_with_frr: "frr" "first-light",
    service_appears_and_goes_with_gobgp: "gobgp" "first-light",
    lost_node_leaves_the_route_and_returns: "builtin" "node-loss" "--datapath" "none",
    drained_node_fails_no_new_request: "builtin" "drain",
    churning_services_end_in_agreement: "builtin" "service-churn",
    #[cfg(feature = "xdp")]
    service_is_served_by_xdp_without_any_rule: "bird" "first-light" "--datapath" "xdp",
    #[cfg(feature = "xdp")]
    lost_node_leaves_the_route_and_returns_with_xdp: "builtin" "node-loss",
    #[cfg(feature = "xdp")]
    drained_node_cuts_no_connection_with_xdp: "builtin" "drain" "--datapath" "xdp",
    rehash_breaks_connections_without_xdp: "builtin" "ecmp-rehash" "--datapath" "none",
    #[cfg(feature = "xdp")]
    rehash_breaks_no_connection_with_xdp: "builtin" "ecmp-rehash",
    #[cfg(feature = "xdp")]
    daemons_come_and_go_without_losing_a_packet_with_xdp: "builtin" "restart",
    #[cfg(feature = "xdp")]
    rehash_breaks_no_connection_behind_xdp: "builtin" "ecmp-rehash" "--datapath" "tcx",
    #[cfg(feature = "xdp")]
    flood_of_forged_syns_breaks_no_connection: "builtin" "flood",
    #[cfg(feature = "xdp")]
    packet_path_works_beside_others_that_change_packets: "builtin" "coexistence" "--datapath" "xdp",
    #[cfg(feature = "xdp")]
    churning_services_end_in_agreement_with_xdp: "builtin" "service-churn" "--datapath" "xdp",
}
