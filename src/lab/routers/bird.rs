//! BIRD 2. Its kernel protocol writes ECMP routes with `merge paths`; direct sessions end with the carrier, and
//! BIRD refuses the peer for a minute after that unless `error wait time` says otherwise.

use super::{Bench, Router};
use crate::lab::{
    site::{NODE_ASN, ROUTER_ASN, UPLINKS},
    tools::find,
};

pub(super) fn check() -> anyhow::Result<()> {
    find("bird", "bird2").map(drop)
}

pub(super) fn start(bench: &Bench<'_>) -> anyhow::Result<Router> {
    let config = bench.write("bird.conf", &config())?;
    let arguments = ["-f", "-c", &config, "-s", &bench.path("bird.ctl"), "-P", &bench.path("bird.pid")];
    let process = bench.start("router", &find("bird", "bird2")?, &arguments)?;
    Ok(Router { processes: vec![process], description: "BIRD, routes by its kernel protocol".into() })
}

fn config() -> String {
    let [v4, v6] = UPLINKS;
    format!(
        r#"router id 10.255.0.1;
log stderr all;
protocol device {{ scan time 5; }}
protocol kernel into4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths on limit 64; }}
protocol kernel into6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths on limit 64; }}
template bgp node {{
  local as {ROUTER_ASN};
  passive on;
  direct;
  hold time 90;
  error wait time 1, 5;
  graceful restart aware;
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}
protocol bgp nodes4 from node {{ neighbor range {v4} as {NODE_ASN}; dynamic name "four"; }}
protocol bgp nodes6 from node {{ neighbor range {v6} as {NODE_ASN}; dynamic name "six"; }}
"#
    )
}
