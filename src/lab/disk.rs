//! What a daemon's process is given of the machine, where that is less than usual: disks that are soon full or cannot be
//! written, and groups with little memory. All of it goes with the lab's folder ([`remove`]).

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::netns::feed;

/// Of a disk; the record of some hundred Services takes a tenth.
const SIZE: &str = "size=4m,mode=0755";
/// What fills it.
const BALLAST: &str = "ballast";
/// Where groups by memory are, of the kernel's second and first kind of them; their files for the limit and the members.
const GROUPS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
const MEMBERS: &str = "cgroup.procs";

/// Mounts a small disk at a folder, which is made.
///
/// # Errors
/// The kernel refused.
pub(crate) async fn mount(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = tokio::process::Command::new("mount");
    feed(command.args(["-t", "tmpfs", "-o", SIZE, "ironcast-lab"]).arg(folder), "").await.context("mount a disk")
}

/// Fills the disk at a folder to the last byte, or makes room again.
///
/// # Errors
/// It cannot be written for another reason than that it is full.
pub(crate) fn fill(folder: &Path, on: bool) -> anyhow::Result<()> {
    let ballast = folder.join(BALLAST);
    if !on {
        return fs::remove_file(&ballast).with_context(|| format!("remove {}", ballast.display()));
    }
    let mut file = fs::File::create(&ballast).with_context(|| format!("write {}", ballast.display()))?;
    for length in [1 << 16, 1 << 12, 1] {
        let bytes = vec![0; length];
        loop {
            match file.write(&bytes) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error).with_context(|| format!("fill {}", folder.display())),
            }
        }
    }
    Ok(())
}

/// Makes the disk at a folder read-only, or writable again.
///
/// # Errors
/// The kernel refused; somebody may be writing.
pub(crate) async fn write_protect(folder: &Path, on: bool) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new("mount");
    let how = if on { "remount,ro" } else { "remount,rw" };
    feed(command.args(["-o", how]).arg(folder), "").await.with_context(|| format!("{how} {}", folder.display()))
}

/// Unmounts everything below a lab's folder, and removes its group. Doing it twice is harmless.
pub(crate) fn remove(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(folder));
    for at in below.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").args(["--quiet", "--lazy", at]).status();
    }
    for (root, _) in GROUPS {
        // Where there is none, there is nothing to remove.
        let _ = fs::remove_dir(group(root, folder));
    }
}

/// Named after the lab's folder, whose last part is its number.
fn group(root: &str, folder: &Path) -> PathBuf {
    Path::new(root).join(format!("ironcast-lab-{}", folder.file_name().unwrap_or_default().display()))
}

/// Processes that have so much memory together and no more: whoever wants more is killed by the kernel.
#[derive(Debug)]
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// With so many bytes, for the lab of this folder.
    ///
    /// # Errors
    /// The kernel has no such groups, or lets us make none.
    pub(crate) fn create(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        let has = |(root, _): &&(&str, &str)| Path::new(root).join("cgroup.procs").exists() && memory(root);
        let (root, limit) = GROUPS.iter().find(has).context("no groups by memory below /sys/fs/cgroup")?;
        let group = group(root, folder);
        fs::create_dir(&group).with_context(|| format!("make {}", group.display()))?;
        let group = Self(group);
        fs::write(group.0.join(limit), bytes.to_string()).context("set the limit of a group")?;
        Ok(group)
    }

    /// Puts a process into it.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn add(&self, process: u32) -> anyhow::Result<()> {
        fs::write(self.0.join(MEMBERS), process.to_string()).context("put a process into a group")
    }
}

/// Whether groups below this have limits for memory: the first kind always, the second where the root hands it down.
fn memory(root: &str) -> bool {
    let handed_down = fs::read_to_string(Path::new(root).join("cgroup.subtree_control"));
    handed_down.map_or(root.ends_with("memory"), |all| all.split_whitespace().any(|one| one == "memory"))
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Whoever was in it has ended.
        let _ = fs::remove_dir(&self.0);
    }
}
