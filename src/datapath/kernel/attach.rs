//! The ladder: native XDP, generic XDP, tcx ingress, nothing. Links are pinned, so that they outlive the daemon; one that is
//! found gets the new program in one step, and packets never see none.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions},
    xdp::XdpLink,
};

use super::{Datapath, DatapathError, FROM_POD, Hook, IN, OUT, TO_POD, classifier, xdp};

/// How an uplink is served, and why not better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// The step of the ladder.
    pub step: Step,
    /// The better steps that failed, with the kernel's reason.
    pub failed: Vec<(Step, String)>,
}

/// A step of the ladder, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// XDP in the driver.
    Native,
    /// XDP on the kernel's packet buffers: slower, works with every driver.
    Generic,
    /// The same path behind XDP, at tcx ingress: where the XDP hook is taken or refused.
    Tcx,
    /// Addresses are announced; kube-proxy does the rest.
    AnnounceOnly,
}

impl Step {
    /// The word for status and pins.
    pub fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::AnnounceOnly => "announce-only",
        }
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// `.` is not allowed in a bpffs.
fn pin(pins: &Path, kind: &str, interface: &str) -> PathBuf {
    pins.join(format!("{kind}-{}", interface.replace('.', "~")))
}

/// A pinned link, if there is one.
fn pinned(path: Option<&Path>) -> Option<FdLink> {
    PinnedLink::from_pin(path?).ok().map(FdLink::from)
}

impl Datapath {
    /// Attaches to an uplink: replies first, so that no packet that comes in is answered with the pod's address.
    /// `best` is the step to begin with. Never fails as a whole: the answer says how far it got, and why.
    pub fn attach(&mut self, interface: &str, best: Step) -> Mode {
        let mode = match self.attach_out(interface) {
            Err(e) => Mode { step: Step::AnnounceOnly, failed: vec![(best, because(&e))] },
            Ok(out) => {
                let mode = self.attach_in(interface, best);
                self.clean_up(interface, mode.step, out);
                mode
            }
        };
        self.ready.send_modify(|r| drop(r.modes.insert(interface.to_string(), mode.clone())));
        mode
    }

    /// Without pins, the link that ends with this value.
    fn attach_out(&mut self, interface: &str) -> Result<Option<SchedClassifierLinkId>, DatapathError> {
        self.attach_tcx(interface, OUT, "out", TcAttachType::Egress, LinkOrder::last())
    }

    /// `bypass`: what comes in by this uplink finds its pod.
    pub fn attach_to_pods(&mut self, uplink: &str) -> Result<(), DatapathError> {
        self.attach_tcx(uplink, TO_POD, "to", TcAttachType::Ingress, LinkOrder::first()).map(drop)
    }

    /// `bypass`: what the pod behind this interface answers goes to the client.
    pub fn attach_from_pod(&mut self, interface: &str) -> Result<(), DatapathError> {
        self.attach_tcx(interface, FROM_POD, "pod", TcAttachType::Ingress, LinkOrder::first()).map(drop)
    }

    /// `bypass` ends: as if the two had never been there.
    pub fn detach_bypass(&self) {
        let Some(pins) = &self.options.pins else { return };
        let of_bypass = |name: &str| name.starts_with("to-") || name.starts_with("pod-");
        for entry in std::fs::read_dir(pins).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(of_bypass) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn attach_tcx(
        &mut self,
        interface: &str,
        program: &str,
        kind: &str,
        at: TcAttachType,
        order: LinkOrder,
    ) -> Result<Option<SchedClassifierLinkId>, DatapathError> {
        let path = self.options.pins.as_deref().map(|p| pin(p, kind, interface));
        let program: &mut SchedClassifier = classifier(&mut self.ebpf, program);
        let renewed = pinned(path.as_deref())
            .and_then(|link| SchedClassifierLink::try_from(link).ok())
            .is_some_and(|link| program.attach_to_link(link).is_ok());
        if renewed {
            return Ok(None);
        }
        unpin(path.as_deref());
        let what = format!("attach to tcx {at:?} of {interface}");
        let failed = |e: Cause| DatapathError::Program { what: what.clone(), cause: e };
        let order = TcAttachOptions::TcxOrder(order);
        let id = program.attach_with_options(interface, at, order).map_err(|e| failed(e.into()))?;
        let Some(path) = path else { return Ok(Some(id)) };
        let link = program.take_link(id).map_err(|e| failed(e.into()))?;
        keep(FdLink::try_from(link).map_err(|e| failed(e.into()))?, &path)?;
        Ok(None)
    }

    /// What does not belong to the step that was reached goes: links of other steps that a predecessor pinned, and
    /// the program for replies where there will be none.
    fn clean_up(&mut self, interface: &str, reached: Step, out: Option<SchedClassifierLinkId>) {
        let pins = self.options.pins.clone();
        let gone = |kind: &str| unpin(pins.as_deref().map(|p| pin(p, kind, interface)).as_deref());
        let steps = [Step::Native, Step::Generic, Step::Tcx].into_iter();
        steps.filter(|step| *step != reached).for_each(|step| gone(step.word()));
        if reached == Step::AnnounceOnly {
            gone("out");
            if let Some(id) = out {
                // It ends with the program at the latest.
                let _ = classifier(&mut self.ebpf, OUT).detach(id);
            }
        }
    }

    fn attach_in(&mut self, interface: &str, best: Step) -> Mode {
        let mut failed = Vec::new();
        if self.options.hook == Hook::Tcx {
            // First, as XDP would be: others see what it leaves.
            let attached = self.attach_tcx(interface, IN, "tcx", TcAttachType::Ingress, LinkOrder::first());
            return match attached {
                Ok(_) => Mode { step: Step::Tcx, failed },
                Err(e) => Mode { step: Step::AnnounceOnly, failed: vec![(Step::Tcx, because(&e))] },
            };
        }
        for (step, mode) in [(Step::Native, XdpMode::Driver), (Step::Generic, XdpMode::Skb)] {
            if step < best {
                continue;
            }
            match self.attach_xdp(interface, step, mode) {
                Ok(()) => return Mode { step, failed },
                Err(e) => failed.push((step, because(&e))),
            }
        }
        Mode { step: Step::AnnounceOnly, failed }
    }

    fn attach_xdp(&mut self, interface: &str, step: Step, mode: XdpMode) -> Result<(), DatapathError> {
        let path = self.options.pins.as_deref().map(|p| pin(p, step.word(), interface));
        let program: &mut Xdp = xdp(&mut self.ebpf);
        let renewed = pinned(path.as_deref())
            .and_then(|link| XdpLink::try_from(link).ok())
            .is_some_and(|link| program.attach_to_link(link).is_ok());
        if renewed {
            return Ok(());
        }
        unpin(path.as_deref());
        let what = format!("attach {} XDP to {interface}", step.word());
        let failed = |e: Cause| DatapathError::Program { what: what.clone(), cause: e };
        let id = program.attach(interface, mode).map_err(|e| failed(e.into()))?;
        if let Some(path) = path {
            let link = program.take_link(id).map_err(|e| failed(e.into()))?;
            keep(FdLink::try_from(link).map_err(|e| failed(e.into()))?, &path)?;
        }
        Ok(())
    }
}

/// A pin whose interface is gone keeps a dead link: it makes room for a new one.
fn unpin(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
    }
}

fn keep(link: FdLink, path: &Path) -> Result<(), DatapathError> {
    let failed = |e| DatapathError::Pin { path: path.to_path_buf(), cause: Box::new(e) };
    link.pin(path).map(drop).map_err(failed)
}

/// An error with its causes, for a person.
fn because(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        words = format!("{words}: {e}");
        cause = e.source();
    }
    words
}

/// Whether a link of this name says that its CNI enforces policies where `bypass` does not pass: Cilium's programs on
/// the pods' interfaces, Calico's rules or programs on its `cali…`.
pub fn skipped_policy(link: &str) -> bool {
    link == "cilium_host" || link.starts_with("cali")
}

/// Whether programs of a predecessor are attached by links that are pinned there.
pub fn is_pinned(pins: &Path) -> bool {
    let is_link = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("out-");
    std::fs::read_dir(pins).is_ok_and(|entries| entries.flatten().any(is_link))
}

/// Whether a folder is, or would be, in a bpffs.
pub fn is_bpffs(folder: &Path) -> bool {
    /// `BPF_FS_MAGIC`.
    const MAGIC: rustix::fs::FsWord = 0xcafe_4a11;
    let there = folder.ancestors().find(|f| f.exists());
    there.is_some_and(|f| rustix::fs::statfs(f).is_ok_and(|s| s.f_type == MAGIC))
}

/// Removes everything that is pinned there: links first, so that packets take their ordinary way at once.
pub fn remove(pins: &Path) -> Result<(), DatapathError> {
    let failed = |path: &Path, e: io::Error| DatapathError::Pin { path: path.to_path_buf(), cause: Box::new(e) };
    let entries = match std::fs::read_dir(pins) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| failed(pins, e))?,
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort_by_key(|path| super::pins::is_map(path));
    for path in paths {
        std::fs::remove_file(&path).map_err(|e| failed(&path, e))?;
    }
    std::fs::remove_dir(pins).map_err(|e| failed(pins, e))
}
