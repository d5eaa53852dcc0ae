//! Manifest mode's record: `DIR/.ironcast/state.json` holds the addresses of Services beside the manifests, so
//! that a restart keeps every address. One daemon of those that share the folder writes it: the one that holds the
//! lock on `DIR/.ironcast/lock`. All read it.
//!
//! ```text
//!  Planned ─▶ Record::update ─▶ state.json ─▶ every daemon's source ─▶ Service.assigned ─▶ plan …
//! ```
//!
//! The file is replaced whole (written beside, synced, renamed), and the version before stays as `state.json.bak`:
//! a crash leaves one or the other. A file that cannot be read is an error that a person settles; it is never taken for an empty one, since
//! addresses in use would look free. Meanwhile what was read before stays in use, at a start the version before; nobody
//! records.

mod journal;
mod lead;
mod record;

#[cfg(test)]
mod tests;

pub use journal::{ClaimsFile, cluster_id, known_cluster_id, load_claims, load_former_claims};
pub use lead::{LeadError, lead};
pub use record::{Entry, Pending, Record};

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::types::stored::Unreadable;

/// The folder beside the manifests.
const FOLDER: &str = ".ironcast";
const FILE: &str = "state.json";

/// Why the record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refuses.
    #[error("{attempt} {}", path.display())]
    Io {
        /// `read`, `write` …
        attempt: &'static str,
        /// What was touched.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is torn or edited badly.
    #[error("{} is damaged; put {}.bak beside it in its place, or remove it to begin anew", path.display(), name(path))]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// The file is from the future.
    #[error("{} is of version {found}, this program reads {known}; run the newer release", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// The latest that is known.
        known: u64,
    },
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

impl StateError {
    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
    }

    fn unreadable(path: &Path) -> impl Fn(Unreadable) -> Self {
        let path = path.to_owned();
        move |why| match why {
            Unreadable::Damaged(source) => Self::Corrupt { path: path.clone(), source },
            Unreadable::Version { found, known } => Self::Version { path: path.clone(), found, known },
        }
    }

    /// The name of the file.
    pub fn file(&self) -> String {
        let (Self::Io { path, .. } | Self::Corrupt { path, .. } | Self::Version { path, .. }) = self;
        name(path).into_owned()
    }
}

/// The folder of the record, beside the manifests in `dir`.
pub fn folder(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// The record; `None` where there is none yet.
///
/// # Errors
/// The file is there and cannot be read, is torn, or of a later version.
pub fn load(dir: &Path) -> Result<Option<Record>, StateError> {
    load_from(&folder(dir).join(FILE))
}

/// The record before the last change, for who cannot read the last one: enough to go on with, not to give out more by.
///
/// # Errors
/// As [`load`].
pub fn load_former(dir: &Path) -> Result<Option<Record>, StateError> {
    load_from(&former(&folder(dir), FILE))
}

fn load_from(path: &Path) -> Result<Option<Record>, StateError> {
    read(path)?.map(|text| Record::decode(&text).map_err(StateError::unreadable(path))).transpose()
}

/// The content of a file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io("read", path)(error)),
    }
}

/// Replaces the record, atomically and so that it survives a power failure.
///
/// # Errors
/// The file system refuses; the old record is untouched then.
pub fn store(dir: &Path, record: &Record) -> Result<(), StateError> {
    replace(&folder(dir), FILE, &record.encode())
}

/// Where the version before a file stands.
fn former(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.bak"))
}

/// Replaces a file whole: written beside, synced, renamed; the version before stays.
fn replace(folder: &Path, name: &str, text: &[u8]) -> Result<(), StateError> {
    fs::create_dir_all(folder).map_err(StateError::io("make", folder))?;
    let (path, half, backup) = (folder.join(name), folder.join(format!("{name}.tmp")), former(folder, name));
    let write = || -> io::Result<()> {
        let mut file = File::create(&half)?;
        file.write_all(text)?;
        file.sync_all()
    };
    write().map_err(StateError::io("write", &half))?;
    // A name for the version before; that there is none, or no hard links here, costs only the spare copy.
    let _ = fs::remove_file(&backup)
        .and_then(|()| fs::hard_link(&path, &backup))
        .or_else(|_| fs::hard_link(&path, &backup));
    fs::rename(&half, &path).map_err(StateError::io("write", &path))?;
    let sync = File::open(folder).and_then(|folder| folder.sync_all());
    sync.map_err(StateError::io("sync", folder))
}
