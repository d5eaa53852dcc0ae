//! Who writes the record: the daemon that holds the lock. The lock ends with its process, so another takes over.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use tokio::{
    sync::watch::{Receiver, Sender},
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{Record, StateError, folder, load, store};
use crate::plan::Planned;

/// Between attempts at the lock, and at a write that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The daemon cannot go on leading or waiting to lead.
#[derive(Debug, thiserror::Error)]
pub enum LeadError {
    /// Nothing plans any more.
    #[error("the plan ended, so nothing tells what to record")]
    NoPlan,
}

/// Takes the lock as soon as nobody else has it, and then records what the plan gives. `leader` tells whether
/// it has it. Owns lock and record; ends when `stop` is cancelled, and gives the lock back.
///
/// # Errors
/// The sender of the plan is gone.
pub async fn lead(
    dir: PathBuf,
    node: String,
    mut planned: Receiver<Option<Planned>>,
    leader: Sender<bool>,
    stop: CancellationToken,
) -> Result<(), LeadError> {
    let work = async {
        let mut told = String::new();
        loop {
            match take_over(&dir, &node).await {
                Ok(Some((lock, record))) => {
                    told.clear();
                    info!(folder = %dir.display(), "recording addresses");
                    leader.send_replace(true);
                    let mut writer = Writer { dir: dir.clone(), lock, record };
                    let result = writer.run(&mut planned).await;
                    leader.send_replace(false);
                    result?;
                    warn!(folder = %dir.display(), "the lock file was replaced; no longer recording");
                }
                Ok(None) => debug!("another daemon records addresses"),
                Err(error) => tell_once(&mut told, &error),
            }
            sleep(RETRY).await;
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = stop.cancelled() => Ok(()),
    };
    leader.send_replace(false);
    result
}

/// An error that goes on is told once.
fn tell_once(told: &mut String, error: &StateError) {
    let text = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    if *told != text {
        error!("cannot record addresses: {text}");
        *told = text;
    }
}

/// The lock, and the record if there is one; `None` where somebody else has the lock.
async fn take_over(dir: &Path, node: &str) -> Result<Option<(Lock, Option<Record>)>, StateError> {
    let (dir, node) = (dir.to_owned(), node.to_owned());
    let work = move || {
        let Some(lock) = Lock::take(&dir, &node)? else { return Ok(None) };
        Ok(Some((lock, load(&dir)?)))
    };
    spawn_blocking(work).await.expect("file work does not panic")
}

/// The lock, held as long as this lives.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    fn take(dir: &Path, node: &str) -> Result<Option<Self>, StateError> {
        let folder = folder(dir);
        fs::create_dir_all(&folder).map_err(StateError::io("make", &folder))?;
        let path = folder.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(StateError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(StateError::io("lock", &path)(errno.into())),
        }
        // For people who look.
        let note = file.set_len(0).and_then(|()| writeln!(file, "{node} {}", std::process::id()));
        note.map_err(StateError::io("write", &path))?;
        let lock = Self { file, path };
        Ok(lock.is_held().then_some(lock))
    }

    /// Whether the file at the path is still the one that is locked: if it was removed, somebody else may lock a
    /// new one.
    fn is_held(&self) -> bool {
        let id = |metadata: io::Result<fs::Metadata>| metadata.map(|m| (m.dev(), m.ino())).ok();
        id(self.file.metadata()).is_some_and(|ours| Some(ours) == id(fs::metadata(&self.path)))
    }
}

struct Writer {
    dir: PathBuf,
    lock: Lock,
    /// `None` until there is a file; while there is none, the first plan tells what every daemon remembers of it.
    record: Option<Record>,
}

impl Writer {
    /// Records every plan until the lock is lost.
    async fn run(&mut self, planned: &mut Receiver<Option<Planned>>) -> Result<(), LeadError> {
        let mut told = String::new();
        loop {
            let plan = planned.borrow_and_update().clone();
            let wanted = plan.and_then(|plan| {
                let record = self.record.get_or_insert_with(|| Record::remembered(&plan.snapshot));
                record.update(&plan, Timestamp::now())
            });
            if !self.lock.is_held() {
                return Ok(());
            }
            let missing = !folder(&self.dir).join(super::FILE).exists();
            if let Some(wanted) = wanted.filter(|wanted| missing || self.record.as_ref() != Some(wanted)) {
                match self.write(wanted).await {
                    Ok(()) => told.clear(),
                    Err(error) => tell_once(&mut told, &error),
                }
            }
            tokio::select! {
                changed = planned.changed() => changed.map_err(|_| LeadError::NoPlan)?,
                // A write that failed, a file that was removed, a lock that was lost.
                () = sleep(RETRY) => {}
            }
        }
    }

    async fn write(&mut self, wanted: Record) -> Result<(), StateError> {
        let dir = self.dir.clone();
        let work = move || store(&dir, &wanted).map(|()| wanted);
        let written = spawn_blocking(work).await.expect("file work does not panic")?;
        for (key, entry) in written.services() {
            let before = self.record.as_ref().and_then(|record| record.services().get(key)).map(|b| &b.addresses);
            if before != Some(&entry.addresses) && !entry.addresses.is_empty() {
                info!(service = %key, addresses = ?entry.addresses, "address recorded");
            }
        }
        self.record = Some(written);
        Ok(())
    }
}
