//! The list of addresses that we added to `lo`, for kernels that cannot mark them (before 5.18). Valid for one boot
//! and one network namespace: after either changed, an address that stands there is somebody else's.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::types::stored;

/// Of the file's form.
const VERSION: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    #[serde(default = "stored::first")]
    version: u64,
    boot: String,
    addresses: BTreeSet<IpAddr>,
}

/// The list and where it is kept.
#[derive(Debug)]
pub(super) struct Remembered {
    path: PathBuf,
    boot: String,
    addresses: BTreeSet<IpAddr>,
}

impl Remembered {
    /// Reads the list; a missing, damaged or outdated one, and one of a later version, is empty.
    pub(super) fn load(state_dir: &Path) -> Self {
        let path = state_dir.join("addresses.json");
        let boot = boot();
        let content = fs::read(&path).ok().and_then(|bytes| {
            let read = stored::read::<Content>(&bytes, VERSION);
            read.inspect_err(|error| {
                let path = path.display();
                tracing::warn!(%error, %path, "addresses of a predecessor stay where the kernel cannot mark them");
            })
            .ok()
        });
        let addresses = content.filter(|c| c.boot == boot).map(|c| c.addresses).unwrap_or_default();
        Self { path, boot, addresses }
    }

    pub(super) fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Replaces the list, on disk too, atomically. To be called before an address is added and after one is removed.
    pub(super) fn set(&mut self, addresses: BTreeSet<IpAddr>) -> io::Result<()> {
        if addresses == self.addresses {
            return Ok(());
        }
        self.addresses = addresses;
        let content = Content { version: VERSION, boot: self.boot.clone(), addresses: self.addresses.clone() };
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&content)?)?;
        fs::rename(&new, &self.path)
    }
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    format!("{} {}", id.trim(), namespace.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_outlives_the_process_but_not_the_boot() {
        let dir = tempfile::tempdir().expect("a folder");
        let mine: BTreeSet<IpAddr> = ["192.0.2.1".parse().expect("valid")].into();
        let mut list = Remembered::load(dir.path());
        list.set(mine.clone()).expect("written");
        assert_eq!(Remembered::load(dir.path()).addresses(), &mine);

        list.boot = "another".into();
        list.set(["192.0.2.2".parse().expect("valid")].into()).expect("written");
        assert!(Remembered::load(dir.path()).addresses().is_empty());
    }

    #[test]
    fn damaged_list_is_empty_or_says_what_it_can() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut list = Remembered::load(dir.path());
        list.set(["192.0.2.1".parse().expect("valid")].into()).expect("written");
        let file = dir.path().join("addresses.json");
        let whole = fs::read(&file).expect("there");
        for text in crate::mutated::damaged(&whole) {
            fs::write(&file, &text).expect("written");
            assert!(Remembered::load(dir.path()).addresses().len() <= 1);
        }
    }

    #[test]
    fn list_without_a_version_is_read_and_one_of_a_later_version_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |version: &str| {
            let text = format!(r#"{{{version}"boot": {:?}, "addresses": ["192.0.2.1"], "more": 1}}"#, boot());
            fs::write(dir.path().join("addresses.json"), text).expect("written");
            Remembered::load(dir.path()).addresses().len()
        };
        assert_eq!((read(""), read(r#""version": 1, "#), read(r#""version": 2, "#)), (1, 1, 0));
    }
}
