//! The host's default gateways, for peers that are found by them. Looked up only where a peer asks, and one that was
//! found stays until there is another: a default route that blinks must end no session.

use std::{
    convert::Infallible,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, TryFutureExt};
use tokio::{sync::watch, time::sleep};

use super::tasks::Tasks;
use crate::{
    plan::Gateway,
    types::{AddressFrom, Snapshot},
};

const PAUSE: Duration = Duration::from_secs(5);

/// Starts looking.
pub(super) fn start(
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    tasks: &mut Tasks,
) -> watch::Receiver<Vec<Gateway>> {
    let (found, gateways) = watch::channel(Vec::new());
    tasks.spawn("gateways", look(snapshots, found).map(Ok::<Infallible, Infallible>).map_ok(|never| match never {}));
    gateways
}

async fn look(mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>, found: watch::Sender<Vec<Gateway>>) -> Infallible {
    loop {
        let asked = snapshots.borrow_and_update().as_ref().is_some_and(|snapshot| {
            snapshot.peers.values().any(|peer| matches!(peer.address_from, Some(AddressFrom::DefaultGateway(_))))
        });
        if asked {
            let now = [
                fs::read_to_string("/proc/net/route").ok().and_then(|text| ipv4(&text)),
                fs::read_to_string("/proc/net/ipv6_route").ok().and_then(|text| ipv6(&text)),
            ];
            found.send_if_modified(|before| {
                let kept = |gateway: &&Gateway| {
                    now.iter().flatten().all(|now| now.address.is_ipv4() != gateway.address.is_ipv4())
                };
                let mut next: Vec<Gateway> = before.iter().filter(kept).cloned().collect();
                next.extend(now.iter().flatten().cloned());
                next.sort_by_key(|gateway| gateway.address);
                let news = *before != next;
                *before = next;
                news
            });
        }
        if asked {
            sleep(PAUSE).await;
        } else if snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The gateway of the default route with the smallest metric.
fn ipv4(text: &str) -> Option<Gateway> {
    let routes = text.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [interface, "00000000", gateway, flags, _, _, metric, "00000000", ..] = words[..] else { return None };
        let is_gateway = u16::from_str_radix(flags, 16).ok()? & 3 == 3; // up, by a gateway
        let address: IpAddr = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes()).into();
        is_gateway.then(|| Some((metric.parse::<u32>().ok()?, Gateway { address, interface: interface.into() })))?
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

fn ipv6(text: &str) -> Option<Gateway> {
    const ANY: &str = "00000000000000000000000000000000";
    let routes = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [ANY, "00", _, _, gateway, metric, _, _, flags, interface] = words[..] else { return None };
        let is_gateway = u32::from_str_radix(flags, 16).ok()? & 3 == 3;
        let address: IpAddr = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?).into();
        let metric = u32::from_str_radix(metric, 16).ok()?;
        is_gateway.then(|| (metric, Gateway { address, interface: interface.into() }))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn gateway_is_that_of_the_default_route_with_the_smallest_metric() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  eth1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\t0\t0\t0\n\
                  eth0\t00000000\t0101010A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                  eth0\t0000010A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let found = ipv4(v4).expect("there are two");
        assert_eq!((found.address.to_string().as_str(), found.interface.as_str()), ("10.1.1.1", "eth0"));
        let v6 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  fe800000000000000000000000000001 00000400 00000001 00000000 00450003 eth0\n\
                  00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n";
        let found = ipv6(v6).expect("there is one");
        assert_eq!((found.address.to_string().as_str(), found.interface.as_str()), ("fe80::1", "eth0"));
        assert_eq!((ipv4(""), ipv6("")), (None, None));
    }
}
