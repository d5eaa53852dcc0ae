//! The maps that outlive the daemon. A map is pinned by its name and the number of its layout, so that no program reads what
//! another release wrote in another form: an upgrade to a new layout, and the way back, begin with an empty map.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::maps::{MapData, MapType};
use tracing::{info, warn};

use super::DatapathError;
use crate::datapath::types::{Flow, FlowKey, Handshakes, Ip, Reason};

/// A map that is pinned, and what it must look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pinned {
    pub(super) name: &'static str,
    /// Raised by every change of what stands in it, also where the sizes stay.
    layout: u32,
    kind: MapType,
    key: usize,
    value: usize,
    /// Entries that the programs need; those of tables are the operator's, and a predecessor's stay.
    entries: usize,
}

const fn table(name: &'static str, key: usize, value: usize) -> Pinned {
    Pinned { name, layout: 1, kind: MapType::LruHash, key, value, entries: 1 }
}

/// Key of `fragments`: two addresses, an id and a protocol.
const FRAGMENT_KEY: usize = 2 * size_of::<Ip>() + 8;

/// Not those of Services: a new daemon numbers them anew.
pub(super) const PINNED: [Pinned; 7] = [
    table("flows", size_of::<FlowKey>(), size_of::<Flow>()),
    table("replies", size_of::<FlowKey>(), size_of::<Flow>()),
    table("datagrams", size_of::<FlowKey>(), size_of::<Flow>()),
    table("answers", size_of::<FlowKey>(), size_of::<Flow>()),
    table("fragments", FRAGMENT_KEY, size_of::<Flow>()),
    Pinned { kind: MapType::Array, ..table("handshakes", size_of::<u32>(), size_of::<Handshakes>()) },
    Pinned {
        kind: MapType::PerCpuArray,
        entries: Reason::ALL.len(),
        ..table("counters", size_of::<u32>(), size_of::<u64>())
    },
];

impl Pinned {
    /// Where it is pinned.
    pub(super) fn path(&self, pins: &Path) -> PathBuf {
        match self.layout {
            1 => pins.join(self.name),
            layout => pins.join(format!("{}-{layout}", self.name)),
        }
    }

    /// Whether a pin is this map, of whatever layout.
    fn is(&self, pin: &str) -> bool {
        let rest = pin.strip_prefix(self.name);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('-').is_some_and(|layout| layout.parse::<u32>().is_ok())
        })
    }

    /// Why what is pinned there cannot be taken over.
    fn differs(&self, path: &Path) -> Option<String> {
        if !path.exists() {
            return None;
        }
        let info = match MapData::from_pin(path).and_then(|map| map.info()) {
            Ok(info) => info,
            Err(error) => return Some(error.to_string()),
        };
        let is = (info.map_type().ok(), info.key_size() as usize, info.value_size() as usize);
        let wanted = (Some(self.kind), self.key, self.value);
        if is != wanted {
            return Some(format!("{is:?} is pinned there, {wanted:?} is needed"));
        }
        let entries = info.max_entries() as usize;
        (entries < self.entries).then(|| format!("it has {entries} entries, {} are needed", self.entries))
    }
}

/// Whether a pin is one of a map.
pub(super) fn is_map(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    PINNED.iter().any(|pinned| pinned.is(&name))
}

fn unpin(path: &Path) -> Result<(), DatapathError> {
    std::fs::remove_file(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DatapathError {
    let path = path.to_path_buf();
    move |cause| DatapathError::Pin { path, cause: Box::new(cause) }
}

/// Makes the folder, and takes away what cannot be taken over. Programs that are attached keep their maps.
pub(super) fn make_way(pins: &Path) -> Result<(), DatapathError> {
    std::fs::create_dir_all(pins).map_err(failed(pins))?;
    for pinned in PINNED {
        let path = pinned.path(pins);
        if let Some(why) = pinned.differs(&path) {
            let path = path.display();
            warn!(%path, why, "a map of another release is not taken over: what it knew is begun anew");
            unpin(&pinned.path(pins))?;
        }
    }
    Ok(())
}

/// Takes away maps of other layouts, once those of this release are there.
pub(super) fn forget_others(pins: &Path) -> Result<(), DatapathError> {
    for entry in std::fs::read_dir(pins).map_err(failed(pins))?.flatten() {
        let path = entry.path();
        if is_map(&path) && !PINNED.iter().any(|pinned| pinned.path(pins) == path) {
            info!(path = %path.display(), "a map of another layout is left behind");
            unpin(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::datapath::types::{HANDSHAKE_WAYS, Handshake};

    /// Whoever changes one of these raises the layout of the map in [`PINNED`], and then this.
    #[test]
    fn what_is_pinned_looks_as_the_number_of_its_layout_says() {
        assert!(PINNED.iter().all(|pinned| pinned.layout == 1));
        let key = [offset_of!(FlowKey, client), offset_of!(FlowKey, other), offset_of!(FlowKey, client_port)];
        assert_eq!((key, offset_of!(FlowKey, other_port), offset_of!(FlowKey, protocol)), ([0, 16, 32], 34, 36));
        let flow = [offset_of!(Flow, ip), offset_of!(Flow, port), offset_of!(Flow, closing)];
        assert_eq!((flow, size_of::<Flow>()), ([0, 16, 18], 24));
        let of = [offset_of!(Handshakes, tag), offset_of!(Handshakes, next), offset_of!(Handshakes, version)];
        assert_eq!((of, offset_of!(Handshakes, of), HANDSHAKE_WAYS), ([0, 16, 20], 64, 7));
        let one = [offset_of!(Handshake, client), offset_of!(Handshake, vip), offset_of!(Handshake, pod)];
        let ports = [offset_of!(Handshake, client_port), offset_of!(Handshake, pod_port), offset_of!(Handshake, order)];
        assert_eq!((one, ports), ([0, 16, 32], [48, 52, 56]));
        // Reasons are added at the end: one between others moves what those behind it have counted.
        let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        let known = "chained returned decapsulated echo probe too_big reply established clamped icmp_in icmp_out \
            pass_fragment pass_options pass_protocol pass_too_big pass_foreign pass_unreachable drop_malformed \
            drop_unknown_port drop_protocol drop_icmp drop_extensions drop_no_backend drop_spoofed drop_header drop_hops \
            drop_unreachable drop_adjust drop_collision";
        assert!(words.join(" ").starts_with(known), "{words:?}");
    }

    #[test]
    fn map_is_told_from_links_and_from_other_maps() {
        let is_map = |name: &str| is_map(&Path::new("/pins").join(name));
        assert!(["flows", "flows-2", "counters", "handshakes-17"].into_iter().all(is_map));
        assert!(
            !["out-eth0", "native-eth0", "flows-", "flows-x", "flowsy", "service_counters"].into_iter().any(is_map)
        );
        let newer = Pinned { layout: 2, ..PINNED[0] };
        assert_eq!(newer.path(Path::new("/pins")), Path::new("/pins/flows-2"));
    }
}
