//! A folder of ordinary Kubernetes YAML, watched: a source that needs no cluster.
//!
//! Every `*.yaml`, `*.yml` and `*.json` in the folder itself (not below it, not hidden) holds one or more objects,
//! those of a `List` too. Kinds that mean nothing here are passed over. An object without a namespace is in
//! `default`, as with kubectl. Addresses of Services come from the state file ([`super::state_file`]), not from
//! their `status`.
//!
//! Nothing is lost by a mistake: of a file with a broken document, the objects of its last good version stay in
//! use; and a Service that holds an address keeps it even if its file cannot be read at the start.

mod decode;
mod document;
mod file;
mod folder;
mod watch;

#[cfg(test)]
mod tests;

pub use folder::Folder;
pub(crate) use {
    decode::{Decoded, decode},
    document::{Malformed, documents},
};

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch::Sender, task::spawn_blocking, time::timeout};
use tracing::{error, info};

use self::watch::Changes;
use super::state_file;
use crate::types::Snapshot;

/// Editors and `cp` write several files in a row: they are read together.
const SETTLE: Duration = Duration::from_millis(20);
/// The folder is looked at so often even if no change is told: network file systems tell none.
const POLL: Duration = Duration::from_secs(10);

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestsError {
    /// It cannot be read at the start.
    #[error("read the folder {}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel gives no watch.
    #[error("watch the folder {}", dir.display())]
    Watch {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

/// Reads the folder, and again whenever it or the state file changes; every difference becomes a snapshot. Owns the
/// index; cancelling leaves the last snapshot in place.
///
/// # Errors
/// The folder cannot be read at the start, or not be watched.
pub async fn run(dir: PathBuf, snapshots: Sender<Option<Arc<Snapshot>>>) -> Result<Infallible, ManifestsError> {
    // Watched before it is read: a change in between is told.
    let mut changes = Changes::watch(&dir).map_err(|source| ManifestsError::Watch { dir: dir.clone(), source })?;
    std::fs::read_dir(&dir).map_err(|source| ManifestsError::Folder { dir: dir.clone(), source })?;
    let mut folder = Folder::new(dir.clone());
    let mut told = String::new();
    loop {
        let look = move || {
            let error = look(&mut folder).err();
            let snapshot = folder.snapshot();
            (folder, snapshot, error)
        };
        let (back, snapshot, error) = spawn_blocking(look).await.expect("reading does not panic");
        folder = back;
        publish(&snapshots, snapshot);
        let error = error.unwrap_or_default();
        if !error.is_empty() && error != told {
            error!(folder = %dir.display(), "{error}; what was read before stays in use");
        }
        told = error;
        // A folder that could not be watched yet is looked at again.
        changes.watch_state(&state_file::folder(&dir));
        if timeout(POLL, changes.next()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Reads what changed; the error as people read it.
fn look(folder: &mut Folder) -> Result<(), String> {
    let words = |error: &dyn std::error::Error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let scanned = folder.scan().map_err(|error| format!("cannot read the folder: {error}"));
    scanned.and(folder.read_record().map_err(|error| words(&error)))
}

fn publish(snapshots: &Sender<Option<Arc<Snapshot>>>, snapshot: Option<Snapshot>) {
    let Some(snapshot) = snapshot else { return };
    snapshots.send_if_modified(|current| {
        let differs = current.as_deref() != Some(&snapshot);
        if differs {
            if current.is_none() {
                info!(services = snapshot.services.len(), nodes = snapshot.nodes.len(), "the folder has been read");
            }
            *current = Some(Arc::new(snapshot));
        }
        differs
    });
}

/// Whether a file of this name is a manifest.
pub(super) fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}
