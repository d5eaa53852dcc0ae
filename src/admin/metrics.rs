//! `/metrics` in the OpenMetrics text form. Label values come from configuration and enums, never from packets.

use std::{fmt, time::Duration};

use ironcast_bgp::{net::bmp::StationStatus, speaker::Counters};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use super::{BfdFigures, Figures};
use crate::{
    datapath::report::Counted,
    types::{DatapathState, NodeState, Severity},
};

/// What [`Metrics::encode`] writes.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Measurements that are taken as things happen; everything else is read at the moment of the scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    plan_duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        // 10 µs to 0.3 s: from one Service to tens of thousands.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(1e-5, 2.8, 11);
        Self { plan_duration: Histogram::new(buckets) }
    }
}

impl Metrics {
    /// One run of `plan` took so long.
    pub fn planned(&self, took: Duration) {
        self.plan_duration.observe(took.as_secs_f64());
    }

    /// The whole page.
    pub(super) fn encode(&self, state: &NodeState, figures: Figures) -> String {
        let mut registry = Registry::with_prefix("ironcast");
        registry.register("plan_duration_seconds", "Time that one decision took", self.plan_duration.clone());
        registry.register_collector(Box::new(Page(families(state, &figures))));
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// Families of samples that are read at the moment of the scrape.
#[derive(Debug)]
struct Page(Vec<Samples>);

/// One family: its samples with their labels.
#[derive(Debug)]
struct Samples {
    name: &'static str,
    help: &'static str,
    counts: bool,
    samples: Vec<(Labels, f64)>,
}

type Labels = Vec<(&'static str, String)>;

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let kind = if family.counts { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                let sample = metric.encode_family(labels)?;
                match family.counts {
                    true => ConstCounter::new(*value).encode(sample)?,
                    false => ConstGauge::new(*value).encode(sample)?,
                }
            }
        }
        Ok(())
    }
}

fn family(name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) -> Samples {
    Samples { name, help, counts: false, samples }
}

fn label(key: &'static str, value: impl fmt::Display) -> Labels {
    vec![(key, value.to_string())]
}

fn bit(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn families(state: &NodeState, figures: &Figures) -> Vec<Samples> {
    let mut all = vec![
        family("build_info", "Version that runs", vec![(label("version", &state.version), 1.0)]),
        family(
            "source_complete",
            "The first complete list of every kind has arrived",
            vec![(label("source", &state.source.kind), bit(state.source.complete))],
        ),
        family("leader", "This daemon gives out addresses", vec![(vec![], bit(state.leader))]),
    ];
    all.extend(bgp(state, figures));
    all.extend(bmp(figures));
    all.extend(paths(state));
    all.extend(figures.bfd.iter().flat_map(bfd));
    all.extend(plan(state, figures));
    all.extend(state.datapath.iter().flat_map(|path| datapath(path, &figures.packets)));
    all
}

/// The packet path. The kernel's counters outlive the daemon and never go down.
fn datapath(state: &DatapathState, packets: &Counted) -> [Samples; 5] {
    let uplink =
        |u: &crate::types::UplinkState| (vec![("interface", u.interface.clone()), ("mode", u.mode.clone())], 1.0);
    let reasons = packets.reasons.iter().map(|(reason, n)| (label("reason", reason.word()), *n as f64));
    let service = |name: &crate::types::ServiceKey| {
        vec![("namespace", name.namespace.to_string()), ("service", name.name.to_string())]
    };
    let per_service = packets.services.iter().flat_map(|(name, n)| {
        [("delivered", n.delivered), ("encapsulated", n.encapsulated), ("chained", n.chained), ("refused", n.refused)]
            .map(|(what, n)| ([service(name), label("outcome", what)].concat(), n as f64))
    });
    let bytes = packets.services.iter().map(|(name, n)| (service(name), n.bytes as f64));
    [
        family("datapath_uplink", "How an uplink is served", state.uplinks.iter().map(uplink).collect()),
        family(
            "datapath_nodes_unreachable",
            "Nodes to which no way is known",
            vec![(vec![], state.unreachable.len() as f64)],
        ),
        Samples {
            counts: true,
            ..family("datapath_packets", "Packets by what became of them beyond delivery", reasons.collect())
        },
        Samples {
            counts: true,
            ..family("datapath_service_packets", "Packets of a Service on this node", per_service.collect())
        },
        Samples {
            counts: true,
            ..family("datapath_service_bytes", "Bytes of a Service on this node", bytes.collect())
        },
    ]
}

fn bgp(state: &NodeState, figures: &Figures) -> [Samples; 7] {
    let per_session = |value: fn(&crate::types::SessionState) -> f64| -> Vec<(Labels, f64)> {
        state.sessions.iter().map(|s| (label("peer", &s.peer), value(s))).collect()
    };
    let established = per_session(|s| s.established_count as f64);
    let treated = figures.counters.iter().map(|(peer, c)| (label("peer", peer), c.treated_as_withdraw as f64));
    let refused = figures.counters.iter().map(|(peer, c)| (label("peer", peer), c.prefixes_received as f64));
    let leaked = figures.counters.iter().map(|(peer, c)| (label("peer", peer), c.prefixes_leaked as f64));
    [
        family("bgp_session_up", "1 where the session is Established", per_session(|s| bit(s.state == "Established"))),
        family("bgp_routes_advertised", "Prefixes in the Adj-RIB-Out", per_session(|s| s.advertised as f64)),
        Samples { counts: true, ..family("bgp_sessions_established", "Times the session came up", established) },
        Samples { counts: true, ..family("bgp_messages", "BGP messages by kind", messages(&figures.counters)) },
        Samples {
            counts: true,
            ..family("bgp_updates_treated_as_withdraw", "Malformed UPDATEs (RFC 7606)", treated.collect())
        },
        Samples {
            counts: true,
            ..family(
                "bgp_prefixes_refused",
                "Prefixes that the router announced; none is ever taken",
                refused.collect(),
            )
        },
        Samples {
            counts: true,
            ..family("bgp_prefixes_leaked", "Received prefixes against our role", leaked.collect())
        },
    ]
}

fn bmp(figures: &Figures) -> [Samples; 3] {
    let per_station = |value: fn(&StationStatus) -> f64| -> Vec<(Labels, f64)> {
        figures.stations.iter().map(|(station, s)| (label("station", station), value(s))).collect()
    };
    let connections = per_station(|s| s.connections as f64);
    let overflows = per_station(|s| s.overflows as f64);
    [
        family("bmp_station_up", "1 where there is a connection to the station", per_station(|s| bit(s.connected))),
        Samples { counts: true, ..family("bmp_connections", "Connections made to the station", connections) },
        Samples {
            counts: true,
            ..family("bmp_overflows", "Connections given up because the station read too slowly", overflows)
        },
    ]
}

/// BFD as an operator alerts on it.
fn paths(state: &NodeState) -> [Samples; 2] {
    let per_path = |value: fn(&crate::types::BfdState) -> f64| -> Vec<(Labels, f64)> {
        state.sessions.iter().filter_map(|s| Some((label("peer", &s.peer), value(s.bfd.as_ref()?)))).collect()
    };
    let failures = per_path(|bfd| bfd.failures as f64);
    [
        family("bfd_session_up", "1 where BFD is Up", per_path(|bfd| bit(bfd.state == "up"))),
        Samples { counts: true, ..family("bfd_failures", "Times that the path to the peer was lost", failures) },
    ]
}

/// The BFD driver: how punctual it is, and what it threw away.
fn bfd(figures: &BfdFigures) -> [Samples; 6] {
    let BfdFigures { report, packets } = figures;
    let of_peer = |(peer, packets): &(String, super::BfdPackets)| {
        let kinds = [
            ("sent", packets.sent),
            ("received", packets.received),
            ("discarded", packets.discarded),
            ("send-error", packets.send_errors),
        ];
        kinds.map(|(kind, n)| (vec![("peer", peer.clone()), ("kind", kind.into())], n as f64))
    };
    let stray = [
        ("malformed", report.malformed),
        ("no-session", report.unmatched),
        ("ttl", report.wrong_ttl),
        ("receive-error", report.receive_errors),
    ];
    let stray = stray.map(|(reason, n)| (label("reason", reason), n as f64)).to_vec();
    let count = |name, help, n: u64| Samples { counts: true, ..family(name, help, vec![(vec![], n as f64)]) };
    [
        Samples {
            counts: true,
            ..family("bfd_packets", "BFD control packets by kind", packets.iter().flat_map(of_peer).collect())
        },
        Samples { counts: true, ..family("bfd_packets_stray", "BFD packets that belong to no session", stray) },
        count("bfd_wakeups", "Timers of the BFD thread that fired", report.wakeups),
        count("bfd_wakeups_late", "Of these more than a millisecond late", report.late),
        count(
            "bfd_reliefs",
            "Times that BFD's second thread stood in, the first one's processor standing still",
            report.reliefs,
        ),
        family(
            "bfd_lateness_seconds_max",
            "The latest wake-up of the BFD thread since it started",
            vec![(vec![], report.max_lateness.as_secs_f64())],
        ),
    ]
}

fn messages(counters: &[(String, Counters)]) -> Vec<(Labels, f64)> {
    let of_peer = |(peer, c): &(String, Counters)| {
        [
            ("sent", "open", c.opens_sent),
            ("received", "open", c.opens_received),
            ("sent", "update", c.updates_sent),
            ("received", "update", c.updates_received),
            ("sent", "keepalive", c.keepalives_sent),
            ("received", "keepalive", c.keepalives_received),
            ("sent", "notification", c.notifications_sent),
            ("received", "notification", c.notifications_received),
            ("sent", "route-refresh", c.refreshes_sent),
            ("received", "route-refresh", c.refreshes_received),
        ]
        .map(|(direction, kind, n)| {
            (vec![("peer", peer.clone()), ("direction", direction.into()), ("kind", kind.into())], n as f64)
        })
    };
    counters.iter().flat_map(of_peer).collect()
}

fn plan(state: &NodeState, figures: &Figures) -> [Samples; 5] {
    let severity = |s: Severity| state.problems.iter().filter(|p| p.severity == s).count() as f64;
    let pools = figures.pools.iter().flat_map(|p| {
        [("assigned", p.assigned), ("available", p.available)].map(|(kind, n)| {
            (vec![("pool", p.pool.clone()), ("family", p.family.to_string()), ("state", kind.into())], n as f64)
        })
    });
    [
        family("services", "LoadBalancer Services of ours", vec![(vec![], figures.services as f64)]),
        family(
            "plan_withheld",
            "Services that are not announced, by reason",
            figures.withheld.iter().map(|(reason, n)| (label("reason", reason), *n as f64)).collect(),
        ),
        family(
            "problems",
            "Objects that somebody must mend",
            vec![
                (label("severity", "error"), severity(Severity::Error)),
                (label("severity", "warning"), severity(Severity::Warning)),
            ],
        ),
        family("pool_addresses", "Addresses of a pool", pools.collect()),
        family(
            "addresses",
            "Addresses that this node should and does answer for",
            vec![
                (label("state", "wanted"), figures.wanted_addresses as f64),
                (label("state", "ready"), figures.ready_addresses as f64),
            ],
        ),
    ]
}
