//! Devices, their BGP sessions and their routers.

use std::net::IpAddr;

use ironcast_bgp::speaker::Md5Key;
use serde_json::{Value, json};

use super::{Api, Metadata, of_project, refine};
use crate::provider::{
    Answer, BgpMode, Device, DeviceState, Enabled, NodeId, NodePeers, PeerSource, ProjectBgp, ProvidedPeer,
    RouteNeeded, SourceError,
    account::{address, asn, items, number, text},
    http::{Call, encode},
};

/// TTL towards routers beyond the gateway, as the vendor's guides set it.
const MULTIHOP_TTL: u8 = 5;
/// Our AS of local BGP, which the provider assigns.
const LOCAL_ASN: u32 = 65000;
/// Prefixes per server unless people raised it; the metadata service does not say.
const USUAL_BUDGET: u32 = 10;

impl PeerSource for Api {
    fn enable_project<'a>(&'a self, wanted: &'a ProjectBgp) -> Answer<'a, Enabled> {
        Box::pin(async move {
            if let Some(state) = enabled(&self.bgp_config().await?) {
                return Ok(state);
            }
            let global = wanted.mode == BgpMode::Global;
            let mut body = json!({
                "deployment_type": if global { "global" } else { "local" },
                "asn": wanted.asn.map_or(LOCAL_ASN, |asn| asn.value()),
            });
            if let Some(Md5Key(key)) = &wanted.password {
                body["md5"] = json!(String::from_utf8_lossy(key));
            }
            if global {
                body["use_case"] = json!("LoadBalancer Services of a Kubernetes cluster");
            }
            let call = Call::post(format!("/projects/{}/bgp-configs", encode(&self.project)), body);
            self.http.send(&call).await.map_err(of_project)?;
            let after = enabled(&self.bgp_config().await?);
            Ok(after.unwrap_or_else(|| Enabled::Requested("the project's BGP is not enabled yet".into())))
        })
    }

    fn enable_node<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Enabled> {
        Box::pin(async move {
            let machine = self.machine(node).await?;
            let path = format!("/devices/{}/bgp/sessions", encode(&node.device));
            let sessions = self.http.send(&Call::get(path.as_str())).await.map_err(refine)?.body;
            let public_v6 = addresses(&machine).any(|address| matches!(address, IpAddr::V6(_)));
            for (family, wanted) in [("ipv4", true), ("ipv6", public_v6)] {
                let there = items(&sessions, "bgp_sessions")
                    .iter()
                    .any(|session| text(session, "address_family").as_deref() == Some(family));
                if there || !wanted {
                    continue;
                }
                let call = Call::post(path.as_str(), json!({ "address_family": family }));
                match self.http.send(&call).await {
                    Err(failed) if failed.is(422) && failed.says(&["already has session"]) => {}
                    done => _ = done.map_err(refine)?,
                }
            }
            Ok(Enabled::Yes)
        })
    }

    fn device<'a>(&'a self, node: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            match self.machine(node).await {
                Err(SourceError::Gone) => Ok(Device { state: DeviceState::Gone, addresses: Vec::new() }),
                Err(error) => Err(error),
                Ok(machine) => Ok(Device { state: state(&machine), addresses: addresses(&machine).collect() }),
            }
        })
    }

    fn peers<'a>(&'a self, node: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let path = format!("/devices/{}/bgp/neighbors", encode(&node.device));
            let neighbours = self.http.send(&Call::get(path)).await.map_err(refine)?.body;
            let machine = self.machine(node).await?;
            let budget = number(&self.bgp_config().await?, "max_prefix").and_then(|max| u32::try_from(max).ok());
            let own = items(&machine, "ip_addresses");
            Ok(node_peers(items(&neighbours, "bgp_neighbors"), own, budget.unwrap_or(USUAL_BUDGET)))
        })
    }
}

impl Api {
    async fn bgp_config(&self) -> Result<Value, SourceError> {
        let call = Call::get(format!("/projects/{}/bgp-config", encode(&self.project)));
        Ok(self.http.send(&call).await.map_err(of_project)?.body)
    }

    async fn machine(&self, node: &NodeId) -> Result<Value, SourceError> {
        let call = Call::get(format!("/devices/{}", encode(&node.device)));
        Ok(self.http.send(&call).await.map_err(refine)?.body)
    }
}

impl PeerSource for Metadata {
    /// A machine that answers runs.
    fn device<'a>(&'a self, _: &'a NodeId) -> Answer<'a, Device> {
        Box::pin(async move {
            let own = self.http.send(&Call::get("")).await.map_err(refine)?.body;
            let addresses = items(&own["network"], "addresses");
            let addresses = addresses.iter().filter_map(|entry| address(entry, "address")).collect();
            Ok(Device { state: DeviceState::Active, addresses })
        })
    }

    fn peers<'a>(&'a self, _: &'a NodeId) -> Answer<'a, NodePeers> {
        Box::pin(async move {
            let own = self.http.send(&Call::get("")).await.map_err(refine)?.body;
            Ok(node_peers(items(&own, "bgp_neighbors"), items(&own["network"], "addresses"), USUAL_BUDGET))
        })
    }
}

/// `None`: never enabled, or not any more.
fn enabled(config: &Value) -> Option<Enabled> {
    match text(config, "status").as_deref() {
        Some("enabled") => Some(Enabled::Yes),
        Some("requested") => Some(Enabled::Requested("the provider reviews the project's BGP".into())),
        _ => None,
    }
}

fn state(machine: &Value) -> DeviceState {
    match text(machine, "state").as_deref() {
        Some("active") => DeviceState::Active,
        Some("inactive" | "powering_off") => DeviceState::PoweredOff,
        Some("queued" | "provisioning" | "reinstalling" | "powering_on" | "failed") => DeviceState::Maintenance,
        Some("deprovisioning" | "deleted") => DeviceState::Gone,
        other => DeviceState::Unknown(other.unwrap_or_default().into()),
    }
}

/// The machine's own addresses, without elastic ones.
fn addresses(machine: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    let own = |entry: &&Value| entry.get("management").and_then(Value::as_bool) != Some(false);
    items(machine, "ip_addresses").iter().filter(own).filter_map(|entry| address(entry, "address"))
}

/// Routers from the neighbours' block. An entry without AS numbers means nothing and is left out. `own` holds the
/// machine's addresses with their gateways.
pub(super) fn node_peers(neighbours: &[Value], own: &[Value], budget: u32) -> NodePeers {
    let mut found = NodePeers::default();
    for neighbour in neighbours {
        let (Some(my_asn), Some(peer_asn)) = (asn(neighbour, "customer_as"), asn(neighbour, "peer_as")) else {
            continue;
        };
        let source = address(neighbour, "customer_ip");
        let multihop = neighbour.get("multihop").and_then(Value::as_bool).unwrap_or(false);
        let gateway = own
            .iter()
            .find(|entry| source.is_some() && address(entry, "address") == source)
            .and_then(|entry| address(entry, "gateway"));
        let off = neighbour.get("md5_enabled").and_then(Value::as_bool) == Some(false);
        let password = text(neighbour, "md5_password").filter(|_| !off).map(|key| Md5Key(key.into_bytes().into()));
        for router in items(neighbour, "peer_ips").iter().filter_map(|ip| ip.as_str()?.parse::<IpAddr>().ok()) {
            found.peers.push(ProvidedPeer {
                address: router,
                my_asn,
                peer_asn,
                source,
                multihop: multihop.then_some(MULTIHOP_TTL),
                password: password.clone(),
                prefix_budget: Some(budget),
            });
            if let Some(gateway) = gateway.filter(|gateway| multihop && gateway.is_ipv4() == router.is_ipv4()) {
                found.routes.push(RouteNeeded { destination: router.into(), gateway });
            }
        }
    }
    found
}
