//! The folder as it was last read, and the index that it feeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Service as KubeService;
use tracing::debug;

use super::{
    file::{Content, Identity, Stamp, file_name, read, stamp},
    is_manifest,
};
use crate::{
    source::{
        index::{Index, Kind, Object, ObjectKey},
        state_file::{self, Record, StateError},
    },
    types::{FamilyPolicy, ObjectRef, Problem, Service, ServiceKey, Severity, Snapshot, family_of},
};

/// A folder of manifests.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    index: Index,
    files: BTreeMap<PathBuf, FileState>,
    /// Which file an object in the index is of.
    owners: BTreeMap<Identity, PathBuf>,
    /// The state file, as it could last be read.
    record: Option<Record>,
    /// The journal of claims could be read once.
    journal_read: bool,
    /// Why they cannot be read now.
    record_problems: Vec<Problem>,
}

/// A file as it was last read.
#[derive(Debug, Default)]
struct FileState {
    /// `None` reads it again.
    stamp: Option<Stamp>,
    /// The objects in use from it, and those that are rejected.
    objects: BTreeSet<Identity>,
    /// Objects of it that cannot be read.
    rejected: BTreeSet<Identity>,
    problems: Vec<Problem>,
    /// It could not be read, or not all of it: which objects it holds is not known.
    incomplete: bool,
}

impl Folder {
    /// A folder that was not read yet.
    pub fn new(dir: PathBuf) -> Self {
        let (files, owners) = (BTreeMap::new(), BTreeMap::new());
        let index = Index::new([]);
        Self { dir, index, files, owners, record: None, journal_read: false, record_problems: Vec::new() }
    }

    /// Reads the files that changed since the last time.
    ///
    /// # Errors
    /// The folder itself cannot be read; what was read before stays.
    pub fn scan(&mut self) -> io::Result<()> {
        let mut present = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if is_manifest(&path) && !path.is_dir() {
                present.insert(path);
            }
        }
        self.read_files(present);
        Ok(())
    }

    /// Reads those of the files of the folder that changed. One that was removed since they were listed is no broken file.
    pub(super) fn read_files(&mut self, present: BTreeSet<PathBuf>) {
        let files = self.files.len();
        self.files.retain(|path, _| present.contains(path));
        let mut gone = files - self.files.len();
        let mut changed: BTreeMap<PathBuf, Content> = BTreeMap::new();
        for path in present {
            let stamp = stamp(&path);
            if stamp.is_some() && self.files.get(&path).is_some_and(|file| file.stamp == stamp) {
                continue;
            }
            let mut content = read(&path);
            if content.incomplete && is_removed(&path) {
                gone += usize::from(self.files.remove(&path).is_some());
                continue;
            }
            let file = self.files.entry(path.clone()).or_default();
            file.stamp = stamp;
            file.settle(&mut content);
            changed.insert(path, content);
        }
        if gone > 0 || !changed.is_empty() {
            debug!(changed = changed.len(), gone, "files changed");
            self.feed(changed);
        }
    }

    /// Reads the state files again. What was read before stays in use while one is gone or cannot be read; where nothing
    /// was, its version before the last change is.
    ///
    /// # Errors
    /// One cannot be read, is torn or of a later version.
    pub fn read_record(&mut self) -> Result<(), StateError> {
        let (record, claims) = (state_file::load(&self.dir), state_file::load_claims(&self.dir));
        self.record_problems =
            [record.as_ref().err(), claims.as_ref().err()].into_iter().flatten().map(state_problem).collect();
        let usable = match (&record, &self.record) {
            (Ok(Some(record)), _) => Some(record.clone()),
            (Ok(None), None) => Some(Record::default()),
            // The folder is gone, and the journal with it.
            (Ok(None), Some(_)) => return Ok(()),
            (Err(_), None) => state_file::load_former(&self.dir).ok().flatten(),
            (Err(_), Some(_)) => None,
        };
        if let Some(usable) = usable {
            self.index.assign(usable.addresses());
            self.record = Some(usable);
        }
        let usable = match &claims {
            Ok(claims) => Some(claims.clone()),
            Err(_) if self.journal_read => None,
            Err(_) => state_file::load_former_claims(&self.dir).ok(),
        };
        if let Some(usable) = usable {
            self.index.set_journal(usable);
            self.journal_read = true;
        }
        record.and(claims).map(drop)
    }

    /// Goes on as if there were no state file.
    pub fn forget_record(&mut self) {
        self.index.assign(BTreeMap::new());
        self.record = Some(Record::default());
    }

    /// A Service as it stands in its file now.
    pub fn service(&self, key: &ServiceKey) -> Option<KubeService> {
        let identity = (Kind::Service, ObjectKey::new(&*key.namespace, &*key.name));
        match read(self.owners.get(&identity)?).objects.remove(&identity) {
            Some(Ok(Object::Service(service))) => Some(*service),
            _ => None,
        }
    }

    /// What the folder says; `None` while the state file could never be read.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        let mut snapshot = self.index.snapshot()?;
        let record = self.record.as_ref()?;
        for (key, addresses) in record.addresses() {
            if !snapshot.services.contains_key(&key) && self.may_exist(&key) {
                let class = record.services().get(&key).and_then(|entry| entry.class.clone());
                snapshot.services.insert(key.clone(), Arc::new(stand_in(key, addresses, class)));
            }
        }
        for problem in &mut snapshot.problems {
            problem.file = self.file_of(&problem.object);
        }
        snapshot.problems.extend(self.files.values().flat_map(|file| file.problems.iter().cloned()));
        snapshot.problems.extend(self.record_problems.iter().cloned());
        snapshot.problems.sort();
        snapshot.problems.dedup();
        Some(snapshot)
    }

    /// How many objects are in use or rejected.
    pub fn objects(&self) -> usize {
        self.owners.len()
    }

    /// The file that an object is of.
    pub fn file_of(&self, object: &ObjectRef) -> Option<String> {
        let kind = Kind::from_name(&object.kind)?;
        let key = ObjectKey::new(object.namespace.clone(), object.name.clone());
        self.owners.get(&(kind, key)).map(|path| file_name(path))
    }

    /// Whether a Service that is not known may be in what could not be read.
    fn may_exist(&self, key: &ServiceKey) -> bool {
        let identity = (Kind::Service, ObjectKey::new(&*key.namespace, &*key.name));
        self.files.values().any(|file| file.incomplete || file.rejected.contains(&identity))
    }

    /// Tells the index what changed. Where two files hold one object, the first counts.
    fn feed(&mut self, mut changed: BTreeMap<PathBuf, Content>) {
        let owners = self.own();
        for (kind, key) in self.owners.keys().filter(|identity| !owners.contains_key(*identity)) {
            self.index.delete(*kind, key);
        }
        // An object that was another file's before is read from its new one even if that did not change.
        for (identity, path) in &owners {
            if self.owners.get(identity) != Some(path) && !changed.contains_key(path) {
                changed.insert(path.clone(), read(path));
            }
        }
        for (path, content) in changed {
            for (identity, object) in content.objects {
                if owners.get(&identity) != Some(&path) {
                    continue;
                }
                match object {
                    Ok(object) => self.index.apply(&object),
                    Err(problem) => self.index.reject(identity.0, identity.1, problem),
                };
            }
        }
        self.owners = owners;
    }

    /// Which file each object is of; of others that hold it too, a problem.
    fn own(&mut self) -> BTreeMap<Identity, PathBuf> {
        let mut owners: BTreeMap<Identity, PathBuf> = BTreeMap::new();
        for (path, file) in &mut self.files {
            file.problems.retain(|problem| problem.message != TWICE);
            for identity in &file.objects {
                match owners.get(identity) {
                    None => drop(owners.insert(identity.clone(), path.clone())),
                    Some(first) => file.problems.push(twice(identity, path, first)),
                }
            }
        }
        owners
    }
}

/// A link that leads nowhere is still there.
fn is_removed(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

impl FileState {
    /// Of a file that is broken in part, what its last good version held stays in use.
    fn settle(&mut self, content: &mut Content) {
        let before = std::mem::take(&mut self.objects);
        self.objects = content.objects.keys().cloned().collect();
        if content.incomplete {
            self.objects.extend(before);
        }
        let rejected = content.objects.iter().filter(|(_, object)| object.is_err());
        self.rejected = rejected.map(|(identity, _)| identity.clone()).collect();
        self.incomplete = content.incomplete;
        self.problems = std::mem::take(&mut content.problems);
    }
}

fn state_problem(error: &StateError) -> Problem {
    Problem {
        object: ObjectRef::new("File", "", &format!(".ironcast/{}", error.file())),
        field: String::new(),
        message: error.to_string(),
        hint: std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
        severity: Severity::Error,
        file: None,
    }
}

const TWICE: &str = "stands in another file too";

fn twice((kind, key): &Identity, path: &Path, first: &Path) -> Problem {
    Problem {
        object: key.reference(*kind),
        field: String::new(),
        message: TWICE.into(),
        hint: format!("the one in {} counts; remove one of the two", file_name(first)),
        severity: Severity::Warning,
        file: Some(file_name(path)),
    }
}

/// A Service that holds addresses and whose object cannot be read: it keeps them, and is announced nowhere.
fn stand_in(key: ServiceKey, assigned: Vec<IpAddr>, class: Option<String>) -> Service {
    let mut families: Vec<_> = assigned.iter().map(|address| family_of(*address)).collect();
    families.dedup();
    let family_policy = match families.len() {
        1 => FamilyPolicy::SingleStack,
        _ => FamilyPolicy::RequireDualStack,
    };
    Service {
        uid: key.to_string(),
        key,
        labels: BTreeMap::new(),
        load_balancer: true,
        deleting: false,
        class,
        families,
        family_policy,
        traffic_policy: Default::default(),
        ports: Vec::new(),
        selector: BTreeMap::new(),
        affinity: None,
        source_ranges: false,
        requested_addresses: Vec::new(),
        requested_pool: None,
        sharing_key: None,
        assigned,
        created: 0,
    }
}
