//! Another BGP speaker on this host. A router takes one session from an address: two speakers that dial the same
//! router from one host end each other's sessions, and neither log says why. The kernel's list of sockets does.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, TryFutureExt};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use super::tasks::Tasks;
use crate::{
    config::Config,
    plan::Desired,
    types::{ObjectRef, Problem, Severity},
};

/// The first look, when sessions had time to come up, and the others.
const LOOKS: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(60)];
const BGP: u16 = 179;

/// Starts looking; what is found is told to the receiver.
pub(super) fn start(
    config: &Config,
    desired: watch::Receiver<Option<Arc<Desired>>>,
    tasks: &mut Tasks,
) -> watch::Receiver<Arc<Vec<Problem>>> {
    let (found, problems) = watch::channel(Arc::default());
    let node = config.node.clone();
    tasks.spawn(
        "conflicts",
        look(node, desired, found).map(Ok::<Infallible, Infallible>).map_ok(|never| match never {}),
    );
    problems
}

async fn look(
    node: String,
    mut desired: watch::Receiver<Option<Arc<Desired>>>,
    found: watch::Sender<Arc<Vec<Problem>>>,
) -> Infallible {
    // Who plans has ended the process when he ended.
    let _ = desired.wait_for(Option::is_some).await;
    let mut pause = LOOKS[0];
    loop {
        sleep(pause).await;
        pause = LOOKS[1];
        let Some(plan) = desired.borrow().clone() else { continue };
        let node = node.clone();
        let Ok(problems) = spawn_blocking(move || problems(&node, &plan)).await else { continue };
        found.send_if_modified(|before| {
            let news = **before != problems;
            if news {
                *before = Arc::new(problems);
            }
            news
        });
    }
}

fn problems(node: &str, desired: &Desired) -> Vec<Problem> {
    let read = |file: &str| fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
    let sockets: Vec<Socket> = [read("tcp"), read("tcp6")].iter().flat_map(|text| sockets(text)).collect();
    let ours = inodes("/proc/self/fd");
    let routers =
        desired.peers.values().filter_map(|peer| Some((SocketAddr::new(peer.address?, peer.port), &*peer.name)));
    let conflicts = conflicts(&sockets, &ours, &routers.collect());
    let owners = if conflicts.is_empty() { BTreeMap::new() } else { owners() };
    let told: BTreeSet<Problem> =
        conflicts.iter().map(|conflict| conflict.problem(node, owners.get(&conflict.inode))).collect();
    told.into_iter().collect()
}

/// One line of `/proc/net/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

fn sockets(text: &str) -> impl Iterator<Item = Socket> + '_ {
    text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, remote) = (socket(words.next()?)?, socket(words.next()?)?);
        let state = u8::from_str_radix(words.next()?, 16).ok()?;
        let inode = words.nth(5)?.parse().ok()?;
        Some(Socket { local, remote, state, inode })
    })
}

/// `0100007F:00B3`: words of four octets, each in the order of the processor.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |i: usize| Some(u32::from_str_radix(address.get(8 * i..8 * i + 8)?, 16).ok()?.to_ne_bytes());
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let octets: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

/// Sockets among the open files of a process.
fn inodes(folder: &str) -> BTreeSet<u64> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let inode = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    files.filter_map(inode).collect()
}

/// Whose a socket is, as far as this process may see: in a pod without `hostPID` nobody's but its own.
fn owners() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else { continue };
        let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let open = inodes(&format!("/proc/{pid}/fd"));
        owners.extend(open.into_iter().map(|inode| (inode, format!(" ({}, process {pid})", program.trim()))));
    }
    owners
}

/// A socket that is not ours where ours should be alone.
#[derive(Debug, PartialEq, Eq)]
struct Conflict {
    inode: u64,
    /// The router and our name for it; `None` for a socket that listens.
    router: Option<(SocketAddr, String)>,
}

fn conflicts(sockets: &[Socket], ours: &BTreeSet<u64>, routers: &BTreeMap<SocketAddr, &str>) -> Vec<Conflict> {
    let others = sockets.iter().filter(|socket| socket.inode != 0 && !ours.contains(&socket.inode));
    let conflict = |socket: &Socket| match socket.state {
        LISTEN if socket.local.port() == BGP => Some(Conflict { inode: socket.inode, router: None }),
        ESTABLISHED => {
            // The router may have dialled.
            let dialled = SocketAddr::new(socket.remote.ip(), BGP);
            let at = if socket.local.port() == BGP { dialled } else { socket.remote };
            let name = routers.get(&at)?;
            Some(Conflict { inode: socket.inode, router: Some((at, (*name).to_owned())) })
        }
        _ => None,
    };
    others.filter_map(conflict).collect()
}

impl Conflict {
    fn problem(&self, node: &str, owner: Option<&String>) -> Problem {
        let owner = owner.map(String::as_str).unwrap_or_default();
        let (message, hint) = match &self.router {
            Some((router, peer)) => (
                format!(
                    "another BGP speaker{owner} on this node has a session with {}, which is BGPPeer {peer}",
                    router.ip()
                ),
                "a router takes one session from an address; take the router away from the other speaker (Calico, Cilium, \
                 kube-router, MetalLB, FRR), or from nodeSelectors of the BGPPeer",
            ),
            None => (
                format!("another BGP speaker{owner} listens on port {BGP} of this node"),
                "that is harmless unless both peer with the same router; a BGPPeer with passive: true needs another --listen",
            ),
        };
        let object = ObjectRef::new("Node", "", node);
        let (field, hint) = (String::new(), hint.into());
        Problem { object, field, message, hint, severity: Severity::Warning, file: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0200004E:9C40 0100004E:00B3 01 00000000:00000000 02:00000000 00000000     0        0 4712 2 0 20 4 30 10 -1
   2: 0200004E:9C41 0100004E:00B3 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
   3: 0200004E:00B3 0300004E:9C42 01 00000000:00000000 02:00000000 00000000     0        0 4713 2 0 20 4 30 10 -1
";

    fn routers() -> BTreeMap<SocketAddr, &'static str> {
        [("78.0.0.1:179", "tor-a"), ("78.0.0.3:179", "tor-b")]
            .map(|(at, name)| (at.parse().expect("an address"), name))
            .into()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn sockets_of_others_on_the_port_or_with_a_router_of_ours_are_named_and_our_own_are_not() {
        let all: Vec<Socket> = sockets(TCP).collect();
        assert_eq!(all.len(), 4);
        let found = |ours: &[u64]| {
            let found = conflicts(&all, &ours.iter().copied().collect(), &routers());
            found
                .into_iter()
                .map(|conflict| (conflict.inode, conflict.router.map(|(_, name)| name)))
                .collect::<Vec<_>>()
        };
        let (dialled, taken) = ((4712, Some("tor-a".into())), (4713, Some("tor-b".into())));
        assert_eq!(found(&[]), [(4711, None), dialled.clone(), taken]);
        assert_eq!(found(&[4711, 4713]), [dialled]);
        let told = Conflict { inode: 1, router: Some(("78.0.0.1:179".parse().expect("an address"), "tor-a".into())) };
        let text = told.problem("n1", Some(&" (bird, process 7)".into())).to_string();
        assert!(text.contains("bird, process 7") && text.contains("BGPPeer tor-a"), "{text}");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn ipv6_sockets_are_read_and_mapped_ones_are_ipv4() {
        let at = |text| socket(text).map(|at| at.to_string());
        assert_eq!(at("B80D0120000000000000000001000000:00B3").as_deref(), Some("[2001:db8::1]:179"));
        assert_eq!(at("0000000000000000FFFF00000100004E:00B3").as_deref(), Some("78.0.0.1:179"));
        assert_eq!(at("0100:00B3"), None);
    }
}
