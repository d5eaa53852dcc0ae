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
//! addresses in use would look free.

mod journal;
mod lead;
mod record;

#[cfg(test)]
mod tests;

pub use journal::{ClaimsFile, cluster_id, known_cluster_id, load_claims};
pub use lead::{LeadError, lead};
pub use record::{Entry, Pending, Record};

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

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
    #[error(
        "{} is damaged; put state.json.bak beside it in its place, or remove it to give out addresses anew",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where it breaks.
        #[source]
        source: serde_json::Error,
    },
    /// The file is from the future.
    #[error("{} is of version {found}, this program reads {}; run the newer release", path.display(), record::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
}

impl StateError {
    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { attempt, path, source }
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
    let path = folder(dir).join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::io("read", &path)(error)),
    };
    Record::decode(&text, &path).map(Some)
}

/// Replaces the record, atomically and so that it survives a power failure.
///
/// # Errors
/// The file system refuses; the old record is untouched then.
pub fn store(dir: &Path, record: &Record) -> Result<(), StateError> {
    let folder = folder(dir);
    fs::create_dir_all(&folder).map_err(StateError::io("make", &folder))?;
    let (path, half, backup) = (folder.join(FILE), folder.join("state.json.tmp"), folder.join("state.json.bak"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&half)?;
        file.write_all(&record.encode())?;
        file.sync_all()
    };
    write().map_err(StateError::io("write", &half))?;
    // A name for the version before; that there is none, or no hard links here, costs only the spare copy.
    let _ = fs::remove_file(&backup)
        .and_then(|()| fs::hard_link(&path, &backup))
        .or_else(|_| fs::hard_link(&path, &backup));
    fs::rename(&half, &path).map_err(StateError::io("write", &path))?;
    let sync = File::open(&folder).and_then(|folder| folder.sync_all());
    sync.map_err(StateError::io("sync", &folder))
}
