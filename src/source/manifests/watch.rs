//! Tells that something in the folder changed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;
use tracing::debug;

/// Changes since the last call.
pub(super) struct Changes {
    watcher: RecommendedWatcher,
    changed: Arc<Notify>,
    /// The folder of the state file, once it is there and watched.
    state: Option<PathBuf>,
}

impl Changes {
    /// Watches the folder, not those below it.
    pub(super) fn watch(dir: &Path) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let tell = changed.clone();
        // An error (an overflow of the queue) is a change that nobody can name.
        let handler = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| matters(event.kind)) {
                tell.notify_one();
            }
        };
        let mut watcher = notify::recommended_watcher(handler)?;
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        Ok(Self { watcher, changed, state: None })
    }

    /// Watches the folder of the state file as well, as soon as it is there; if it was removed, the next one.
    pub(super) fn watch_state(&mut self, folder: &Path) {
        if self.state.is_some() && folder.exists() {
            return;
        }
        if self.state.take().is_some() {
            // The watch went with the folder; that it cannot be ended is as well.
            let _ = self.watcher.unwatch(folder);
        }
        match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.state = Some(folder.to_owned());
                // What was written before the watch began was told to nobody.
                self.changed.notify_one();
            }
            Err(error) => debug!(folder = %folder.display(), %error, "not watched yet"),
        }
    }

    /// Waits for the next change.
    pub(super) async fn next(&mut self) {
        self.changed.notified().await;
    }
}

/// That a file was read changes nothing, and we read.
fn matters(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
