//! The programs in the kernel: loaded, filled, attached, asked. One owner, no locks: whoever holds the
//! [`Datapath`] decides. Dropping it detaches nothing that is pinned.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    programs::{SchedClassifier, Xdp},
    util::nr_cpus,
};
use tokio::sync::watch;

use super::{
    image::{Image, ImageError, Nodes, Numbers, Placement, backend_entry, image},
    mapped::{Array, Head, give_back_memory, keep_large_values_apart, wait_for_readers},
    ranges::Ranges,
    slots::{lay_out, next_on_ring},
    spec::{Spec, Table, TableId},
    types::{self, ServiceCounters},
};
use crate::types::ServiceKey;

mod attach;
mod inspect;
mod pins;

pub use attach::{Mode, Step, is_bpffs, is_pinned, remove, skipped_policy};
pub use inspect::{Answer, Side};

/// The compiled programs.
static AT_XDP: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ironcast.bpf.o"));
/// The same for tcx ingress.
static AT_TCX: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tcx.bpf.o"));

/// The program for incoming frames.
const IN: &str = "ironcast_in";
/// The program for replies.
const OUT: &str = "ironcast_out";

/// `bypass`: what comes in, at ingress of an uplink.
const TO_POD: &str = "ironcast_to_pod";
/// `bypass`: replies, at ingress of a pod's interface.
const FROM_POD: &str = "ironcast_from_pod";

/// What went wrong with the packet path.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The programs were refused.
    #[error("load the packet path")]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused, or could not be attached or run.
    #[error("{what}")]
    Program {
        /// The attempt and its object.
        what: String,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A map could not be read or mapped.
    #[error("map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A pin could not be made, read or removed.
    #[error("pin {path}")]
    Pin {
        /// The path in the bpffs.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tables do not fit.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// Where incoming frames are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hook {
    /// XDP, in the driver or on the kernel's packet buffers.
    #[default]
    Xdp,
    /// tcx ingress: behind XDP, where another program may be.
    Tcx,
}

/// How large the maps are, and where things are pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where incoming frames are met.
    pub hook: Hook,
    /// A folder in a bpffs; `None` pins nothing, and everything ends with the process.
    pub pins: Option<PathBuf>,
    /// Slots of all tables together.
    pub slots: u32,
    /// Backends of all tables together.
    pub backends: u32,
    /// Established connections of this node's pods, and half as many flows of datagrams.
    pub flows: u32,
    /// Handshakes under way.
    pub syns: u32,
    /// Services that are counted one by one.
    pub services: u32,
    /// Load the programs of `bypass` delivery as well.
    pub bypass: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hook: Hook::default(),
            pins: None,
            slots: types::SLOTS as u32,
            backends: types::BACKENDS as u32,
            flows: 1 << 18,
            syns: 1 << 16,
            services: 1 << 12,
            bypass: false,
        }
    }
}

/// What the packet path serves now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ready {
    /// The generation of the tables that hold; `None` before the first.
    pub generation: Option<u32>,
    /// How each uplink is served.
    pub modes: BTreeMap<String, Mode>,
}

/// Where the tables stand.
struct Arrays {
    head: Head,
    tables: Array,
    slots: Array,
    backends: Array,
    /// Length of the map, which may be a predecessor's.
    handshake_buckets: u32,
}

/// A table in the kernel.
struct Placed {
    of: Table,
    backends: Vec<super::spec::Backend>,
    /// Of these, one for each node.
    ring: Vec<u16>,
    /// The same as written: with the numbers of their nodes.
    written: Vec<types::Backend>,
    at: Placement,
}

impl Placed {
    /// Where it stands, and who is next on its ring as ways are now.
    fn seen_from(&self, spec: &Spec) -> Placement {
        Placement { ring: next_on_ring(&self.ring, &self.backends, spec).unwrap_or(0), ..self.at }
    }
}

/// The loaded packet path.
pub struct Datapath {
    ebpf: Ebpf,
    options: Options,
    arrays: Arrays,
    free_slots: Ranges,
    free_backends: Ranges,
    placed: BTreeMap<TableId, Placed>,
    nodes: Numbers<String>,
    services: Numbers<ServiceKey>,
    ready: watch::Sender<Ready>,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath").field("options", &self.options).field("tables", &self.placed.len()).finish()
    }
}

impl Datapath {
    /// Loads the programs with empty tables of their own, and takes over the pinned flows. Attaches nothing.
    pub fn load(options: Options) -> Result<Self, DatapathError> {
        let mut ebpf = load_object(&options)?;
        let failed = |name: &'static str| {
            move |e: aya::programs::ProgramError| DatapathError::Program {
                what: format!("load program {name}"),
                cause: e.into(),
            }
        };
        match options.hook {
            Hook::Xdp => xdp(&mut ebpf).load().map_err(failed(IN))?,
            Hook::Tcx => classifier(&mut ebpf, IN).load().map_err(failed(IN))?,
        }
        let of_bypass: &[&str] = if options.bypass && options.hook == Hook::Xdp { &[TO_POD, FROM_POD] } else { &[] };
        for &name in of_bypass {
            classifier(&mut ebpf, name).load().map_err(failed(name))?;
        }
        classifier(&mut ebpf, OUT).load().map_err(failed(OUT))?;
        let arrays = Arrays::map(&ebpf, &options)?;
        Ok(Self {
            ebpf,
            arrays,
            free_slots: Ranges::new(options.slots),
            free_backends: Ranges::new(options.backends),
            options,
            placed: BTreeMap::new(),
            nodes: Numbers::default(),
            services: Numbers::default(),
            ready: watch::Sender::default(),
        })
    }

    /// What is served, and how; changes when it does.
    pub fn ready(&self) -> watch::Receiver<Ready> {
        self.ready.subscribe()
    }

    /// Makes the tables what they should be. A packet sees all of the old ones or all of the new ones. On an
    /// error the old ones stay.
    pub fn apply(&mut self, spec: &Spec) -> Result<(), DatapathError> {
        let mut nodes = self.nodes.clone();
        nodes.keep(spec.nodes.keys().filter(|n| **n != spec.node), 1);
        let mut services = self.services.clone();
        services.keep(spec.ports.values().map(|t| &t.service), 1);
        self.count_from_zero(&services)?;
        let named = Nodes::new(spec, &nodes);
        let changed = self.place_changed(spec, &named)?;
        let place = |id: &TableId| changed.get(id).or(self.placed.get(id)).map(|p| (id.clone(), p.seen_from(spec)));
        let places = spec.tables.keys().filter_map(place);
        let image = match image(spec, &places.collect(), &named, &services) {
            Ok(image) => image,
            Err(e) => {
                changed.into_values().for_each(|p| self.give_back(&p));
                return Err(e.into());
            }
        };
        let failed = |cause| DatapathError::Map { map: "tables", cause };
        if let Err(e) = self.arrays.publish(&image) {
            changed.into_values().for_each(|p| self.give_back(&p));
            return Err(failed(e));
        }
        wait_for_readers().map_err(failed)?;
        (self.nodes, self.services) = (nodes, services);
        self.forget_old(spec, changed);
        self.ready.send_modify(|r| r.generation = Some(spec.generation));
        Ok(())
    }

    /// A Service may get the number, and with it the counters, of one that is gone.
    fn count_from_zero(&mut self, services: &Numbers<ServiceKey>) -> Result<(), DatapathError> {
        let name = "service_counters";
        let known = &self.services;
        let new = services.iter().filter(|(key, n)| known.of(key) != Some(*n) && *n < self.options.services);
        let map = self.ebpf.map_mut(name).expect("it is in the object");
        let mut counters: PerCpuArray<&mut MapData, ServiceCounters> =
            PerCpuArray::try_from(map).map_err(read(name))?;
        for (_, n) in new {
            let zeros = vec![
                ServiceCounters::default();
                nr_cpus().map_err(|(_, cause)| DatapathError::Map { map: name, cause })?
            ];
            let zeros = PerCpuValues::try_from(zeros).map_err(|cause| DatapathError::Map { map: name, cause })?;
            counters.set(n, zeros, 0).map_err(read(name))?;
        }
        Ok(())
    }

    /// Writes the tables that are new or different to free ranges, where no packet sees them yet.
    fn place_changed(&mut self, spec: &Spec, nodes: &Nodes<'_>) -> Result<BTreeMap<TableId, Placed>, DatapathError> {
        let mut changed = BTreeMap::new();
        for (id, table) in &spec.tables {
            let stands = |p: &Placed| {
                p.of == *table && p.backends.iter().map(|b| backend_entry(b, spec, nodes)).eq(p.written.iter().copied())
            };
            if self.placed.get(id).is_some_and(stands) {
                continue;
            }
            match self.place(spec, table, nodes) {
                Ok(placed) => drop(changed.insert(id.clone(), placed)),
                Err(e) => {
                    changed.into_values().for_each(|p| self.give_back(&p));
                    return Err(e);
                }
            }
        }
        Ok(changed)
    }

    fn place(&mut self, spec: &Spec, table: &Table, nodes: &Nodes<'_>) -> Result<Placed, DatapathError> {
        let layout = lay_out(table);
        let written: Vec<types::Backend> = layout.backends.iter().map(|b| backend_entry(b, spec, nodes)).collect();
        let full =
            |what, wanted: usize, ranges: &Ranges| ImageError::Full { what, wanted, room: ranges.left() as usize };
        let (wanted, count) = (layout.slots.len() as u32, written.len() as u32);
        let slots = self.free_slots.take(wanted).ok_or_else(|| full("slots", wanted as usize, &self.free_slots))?;
        let Some(backends) = self.free_backends.take(count) else {
            self.free_slots.give(slots, wanted);
            return Err(full("backends", count as usize, &self.free_backends).into());
        };
        let planes = layout.planes();
        let at = Placement { slots, log2: layout.log2, backends, ring: 0, deep: layout.deep };
        let placed = Placed { of: table.clone(), backends: layout.backends, ring: layout.ring, written, at };
        match self.arrays.place(at, &planes, &placed.written) {
            Ok(()) => Ok(placed),
            Err(cause) => {
                self.give_back(&placed);
                Err(DatapathError::Map { map: "slots", cause })
            }
        }
    }

    /// Writes slots to the end of their array, for harnesses that measure it: nothing may stand there.
    pub fn write_spare_slots(&self, slots: &[u64]) -> Result<(), DatapathError> {
        let at = self.options.slots as usize * size_of::<u64>() - size_of_val(slots);
        self.arrays.slots.store(at, slots).map_err(|cause| DatapathError::Map { map: "slots", cause })
    }

    fn give_back(&mut self, placed: &Placed) {
        self.free_slots.give(placed.at.slots, 1 << placed.at.log2);
        self.free_backends.give(placed.at.backends, placed.written.len() as u32);
    }

    /// No packet sees the old tables any more: their ranges are free.
    fn forget_old(&mut self, spec: &Spec, changed: BTreeMap<TableId, Placed>) {
        let gone: Vec<TableId> = self
            .placed
            .keys()
            .filter(|id| changed.contains_key(*id) || !spec.tables.contains_key(*id))
            .cloned()
            .collect();
        for id in gone {
            if let Some(placed) = self.placed.remove(&id) {
                self.give_back(&placed);
            }
        }
        self.placed.extend(changed);
    }

    fn map(&self, name: &str) -> &Map {
        self.ebpf.map(name).expect("it is in the object")
    }
}

fn read(map: &'static str) -> impl Fn(aya::maps::MapError) -> DatapathError {
    move |e| DatapathError::Map { map, cause: io::Error::other(e) }
}

fn load_object(options: &Options) -> Result<Ebpf, DatapathError> {
    let object = match options.hook {
        Hook::Xdp => AT_XDP,
        Hook::Tcx => AT_TCX,
    };
    keep_large_values_apart();
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("slots", options.slots)
        .map_max_entries("backends", options.backends)
        .map_max_entries("flows", options.flows)
        .map_max_entries("replies", options.flows)
        .map_max_entries("datagrams", options.flows.div_ceil(2))
        .map_max_entries("answers", options.flows.div_ceil(2))
        .map_max_entries("handshakes", options.syns.div_ceil(types::HANDSHAKE_WAYS as u32).max(1))
        .map_max_entries("service_counters", options.services);
    if let Some(pins) = &options.pins {
        pins::make_way(pins)?;
        for pinned in pins::PINNED {
            loader.map_pin_path(pinned.name, pinned.path(pins));
        }
    }
    let loaded = loader.load(object).map_err(|e| DatapathError::Load(Box::new(e)));
    drop(loader);
    give_back_memory();
    if let (Some(pins), Ok(_)) = (&options.pins, &loaded) {
        pins::forget_others(pins)?;
    }
    loaded
}

fn xdp(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(IN).and_then(|p| p.try_into().ok()).expect("it is in the object, an XDP program")
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(name).and_then(|p| p.try_into().ok()).expect("it is in the object, a classifier")
}

impl Arrays {
    fn map(ebpf: &Ebpf, options: &Options) -> Result<Self, DatapathError> {
        let tables = fd_of(ebpf, "tables");
        Ok(Self {
            head: Head::new(tables).map_err(|cause| DatapathError::Map { map: "tables", cause })?,
            tables: array(ebpf, "tables", size_of::<types::Tables>())?,
            slots: array(ebpf, "slots", options.slots as usize * size_of::<u64>())?,
            backends: array(ebpf, "backends", options.backends as usize * size_of::<types::Backend>())?,
            handshake_buckets: length_of(ebpf, "handshakes")?,
        })
    }

    /// Writes a table to where no packet sees it.
    fn place(&self, at: Placement, slots: &[u64], backends: &[types::Backend]) -> io::Result<()> {
        self.slots.store(at.slots as usize * size_of::<u64>(), slots)?;
        self.backends.store(at.backends as usize * size_of::<types::Backend>(), backends)
    }

    /// Writes the idle bank, and makes it the one that holds.
    fn publish(&self, image: &Image) -> io::Result<()> {
        use std::mem::offset_of;
        let mut config = self.head.load();
        let idle = (config.seed & 1 ^ 1) as usize;
        let bank = offset_of!(types::Tables, banks) + idle * size_of::<types::Bank>();
        let nodes = bank + offset_of!(types::Bank, nodes);
        self.tables.store(bank + offset_of!(types::Bank, address_bits), &image.address_bits)?;
        self.tables.store(bank + offset_of!(types::Bank, addresses), &image.addresses)?;
        self.tables.store(bank + offset_of!(types::Bank, address_buckets), &image.address_buckets)?;
        self.tables.store(bank + offset_of!(types::Bank, services), &image.services)?;
        self.tables.store(bank + offset_of!(types::Bank, service_buckets), &image.service_buckets)?;
        self.tables.store(nodes, &image.nodes)?;
        let stale = vec![types::Node::default(); types::NODES - image.nodes.len()];
        self.tables.store(nodes + size_of_val(&image.nodes[..]), &stale)?;
        config.vips[idle] = image.vips;
        config.flow_key = image.flow_keys.0;
        config.id = image.id;
        (config.mss4, config.mss6) = (image.mss4, image.mss6);
        (config.flags, config.way_back) = (image.flags, image.way_back);
        config.handshake_buckets = self.handshake_buckets;
        config.seed = image.seed & !1 | idle as u64;
        self.head.publish(config);
        Ok(())
    }
}

fn fd_of<'a>(ebpf: &'a Ebpf, name: &'static str) -> BorrowedFd<'a> {
    let Some(Map::Array(data)) = ebpf.map(name) else { unreachable!("{name} is an array of the object") };
    data.fd().as_fd()
}

fn length_of(ebpf: &Ebpf, name: &'static str) -> Result<u32, DatapathError> {
    let Some(Map::Array(data)) = ebpf.map(name) else { unreachable!("{name} is an array of the object") };
    data.info().map(|info| info.max_entries()).map_err(read(name))
}

fn array(ebpf: &Ebpf, name: &'static str, length: usize) -> Result<Array, DatapathError> {
    Array::new(fd_of(ebpf, name), length).map_err(|cause| DatapathError::Map { map: name, cause })
}
