//! What the watches showed last, on disk: a daemon that starts while the API server is away announces what its
//! predecessor did. One file for each kind, a line for each object as it came and for each that went; the last line
//! about an object counts, and a torn one is left out.
//!
//! ```text
//!  list begins ─▶ KIND.new, a line per object ─list complete─▶ KIND, a line per change ─too long─▶ written anew
//! ```
//!
//! The first line is the version of the form; a file of a later one is not used. A file without is of the first.
//!
//! Only the password Secrets that peers name are among them, and only root may read the folder. Nobody leads by what
//! was saved: see [`Snapshot::saved`].

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    decode::{self, decode},
    watch::Sent,
};
use crate::{
    source::index::{Index, Kind, Object, ObjectKey},
    types::Snapshot,
};

/// Folder within the state folder.
const FOLDER: &str = "objects";
/// Of the files' form.
const VERSION: u64 = 1;
/// A file is written anew when it has so many lines more than twice those of its last list.
const SLACK: usize = 10_000;

/// Writes what the watches show. What cannot be written is told once and left out from then on.
pub(super) struct Saving {
    folder: Option<PathBuf>,
    files: BTreeMap<Kind, Journal>,
}

struct Journal {
    file: BufWriter<File>,
    lines: usize,
    /// Lines of the last list, once it was complete.
    listed: Option<usize>,
}

impl Saving {
    /// Saves below `state_dir`, or nothing.
    pub(super) fn new(state_dir: Option<&Path>) -> Self {
        let folder = state_dir.map(|dir| dir.join(FOLDER));
        let made = folder.as_ref().map(|folder| fs::DirBuilder::new().recursive(true).mode(0o700).create(folder));
        let mut saving = Self { folder, files: BTreeMap::new() };
        if let Some(Err(error)) = made {
            saving.give_up(&error);
        }
        saving
    }

    /// A list begins; what was saved of the kind stays until it is complete.
    pub(super) fn begin(&mut self, kind: Kind) {
        self.attempt(|saving, folder| {
            let file = begun(create(&folder.join(format!("{kind}.new")))?)?;
            saving.files.insert(kind, Journal { file, lines: 0, listed: None });
            Ok(())
        });
    }

    /// An object as the API server has it.
    pub(super) fn put(&mut self, object: &Object) {
        self.line(object.kind(), '+', object);
    }

    /// An object that is gone.
    pub(super) fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        self.line(kind, '-', &json!({ "metadata": { "namespace": key.namespace, "name": key.name } }));
    }

    /// The list is complete.
    pub(super) fn complete(&mut self, kind: Kind) {
        self.attempt(|saving, folder| {
            let Some(journal) = saving.files.get_mut(&kind) else { return Ok(()) };
            journal.listed = Some(journal.lines);
            journal.file.flush()?;
            fs::rename(folder.join(format!("{kind}.new")), folder.join(kind.name()))
        });
    }

    /// Everything that was told is in the files.
    pub(super) fn flush(&mut self) {
        self.attempt(|saving, folder| {
            for (kind, journal) in &mut saving.files {
                journal.file.flush()?;
                if journal.listed.is_some_and(|listed| journal.lines > 2 * listed + SLACK) {
                    *journal = rewritten(folder, *kind)?;
                }
            }
            Ok(())
        });
    }

    fn line(&mut self, kind: Kind, sign: char, object: &impl Serialize) {
        self.attempt(|saving, folder| {
            let journal = match saving.files.entry(kind) {
                Entry::Occupied(entry) => entry.into_mut(),
                // Secrets come one by one, each with a list of its own.
                Entry::Vacant(entry) => {
                    let file = begun(append(&folder.join(kind.name()))?)?;
                    entry.insert(Journal { file, lines: 0, listed: Some(0) })
                }
            };
            write!(journal.file, "{sign}")?;
            serde_json::to_writer(&mut journal.file, object)?;
            journal.lines += 1;
            writeln!(journal.file)
        });
    }

    fn attempt(&mut self, step: impl FnOnce(&mut Self, &Path) -> io::Result<()>) {
        let Some(folder) = self.folder.take() else { return };
        let done = step(self, &folder);
        self.folder = Some(folder);
        if let Err(error) = done {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        if let Some(folder) = self.folder.take() {
            let folder = folder.display();
            warn!(%error, %folder, "the last state is not saved: a restart without the API server announces nothing");
        }
        self.files.clear();
    }
}

/// Says the version, each time that a process goes on with a file.
fn begun(mut file: BufWriter<File>) -> io::Result<BufWriter<File>> {
    writeln!(file, "v{VERSION}")?;
    Ok(file)
}

fn create(path: &Path) -> io::Result<BufWriter<File>> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map(BufWriter::new)
}

fn append(path: &Path) -> io::Result<BufWriter<File>> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(BufWriter::new)
}

/// The file with a line for each object that is there.
fn rewritten(folder: &Path, kind: Kind) -> io::Result<Journal> {
    let (path, half) = (folder.join(kind.name()), folder.join(format!("{kind}.half")));
    let objects = read(&path)?;
    let mut file = begun(create(&half)?)?;
    for object in objects.values() {
        writeln!(file, "+{}", object.read::<Value>()?)?;
    }
    file.flush()?;
    fs::rename(half, path)?;
    Ok(Journal { file, lines: objects.len(), listed: Some(objects.len()) })
}

/// The objects of a file. A line that is damaged is left out; nothing is used of a later version's.
fn read(path: &Path) -> io::Result<BTreeMap<ObjectKey, Sent>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        text => text?,
    };
    let (mut objects, mut damaged) = (BTreeMap::new(), 0_usize);
    for line in text.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
        match Line::read(line) {
            Some(Line::Version(found)) if found > VERSION => {
                let message = format!("of version {found}, this program reads {VERSION}");
                return Err(io::Error::new(io::ErrorKind::Unsupported, message));
            }
            Some(Line::Version(_)) => {}
            Some(Line::There(key, object)) => drop(objects.insert(key, object)),
            Some(Line::Gone(key)) => drop(objects.remove(&key)),
            None => damaged += 1,
        }
    }
    if damaged > 0 {
        warn!(path = %path.display(), lines = damaged, "damaged lines are left out of what was saved");
    }
    Ok(objects)
}

/// One line of a file.
enum Line {
    Version(u64),
    There(ObjectKey, Sent),
    Gone(ObjectKey),
}

impl Line {
    fn read(line: &[u8]) -> Option<Self> {
        let (sign, rest) = line.split_first()?;
        let object = || serde_json::from_slice::<Value>(rest).ok().map(Sent::Item);
        match sign {
            b'v' => serde_json::from_slice(rest).ok().map(Self::Version),
            b'+' => object().and_then(|object| Some(Self::There(decode::key(&object)?, object))),
            b'-' => object().and_then(|object| Some(Self::Gone(decode::key(&object)?))),
            _ => None,
        }
    }
}

/// What a predecessor saved below `state_dir`; `None` where no list of Services was ever complete.
pub(super) fn load(state_dir: &Path) -> Option<Snapshot> {
    let folder = state_dir.join(FOLDER);
    if !folder.join(Kind::Service.name()).exists() {
        return None;
    }
    let objects = Kind::ALL.into_iter().flat_map(|kind| {
        let objects = read(&folder.join(kind.name())).unwrap_or_else(|error| {
            warn!(%error, %kind, "what was saved is not used");
            BTreeMap::new()
        });
        objects.into_values().filter_map(move |object| decode(kind, &object).ok())
    });
    let snapshot = snapshot(objects);
    info!(services = snapshot.services.len(), "the API server is away: going on with what it said last");
    Some(snapshot)
}

/// What is known of saved objects alone.
pub(crate) fn snapshot(objects: impl IntoIterator<Item = Object>) -> Snapshot {
    let mut index = Index::new([]);
    objects.into_iter().for_each(|object| _ = index.apply(&object));
    Snapshot { saved: true, ..index.snapshot().expect("nothing is awaited") }
}

/// Whether an object is saved: of Secrets those alone that sessions need.
pub(super) fn is_saved(object: &Object) -> bool {
    match object {
        Object::Secret(secret) => secret.type_.as_deref() == Some("kubernetes.io/basic-auth"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: Kind, json: &Value) -> Object {
        decode(kind, &Sent::Item(json.clone())).expect("an object")
    }

    fn pool(name: &str, range: &str) -> Object {
        let pool = json!({
            "apiVersion": "ironcast.dev/v1alpha1", "kind": "IPAddressPool",
            "metadata": {"name": name, "namespace": "s"}, "spec": {"addresses": [range]},
        });
        object(Kind::IPAddressPool, &pool)
    }

    fn service(name: &str) -> Object {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "s"},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        });
        object(Kind::Service, &service)
    }

    fn list(saving: &mut Saving, kind: Kind, objects: &[Object]) {
        saving.begin(kind);
        objects.iter().for_each(|object| saving.put(object));
        saving.complete(kind);
    }

    fn pools(dir: &Path) -> Vec<String> {
        load(dir).map(|snapshot| snapshot.pools.into_keys().collect()).unwrap_or_default()
    }

    #[test]
    fn what_was_listed_and_watched_is_there_after_a_restart_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(load(dir.path()), None, "nothing was ever complete");
        let mut saving = Saving::new(Some(dir.path()));
        list(&mut saving, Kind::IPAddressPool, &[pool("a", "192.0.2.0/25"), pool("b", "192.0.2.128/25")]);
        saving.put(&pool("c", "198.51.100.0/24"));
        saving.remove(Kind::IPAddressPool, &ObjectKey::new("s", "a"));
        saving.flush();
        assert_eq!(load(dir.path()), None, "Services are awaited");
        list(&mut saving, Kind::Service, &[service("web")]);
        let snapshot = load(dir.path()).expect("saved");
        assert!(snapshot.saved && snapshot.services.len() == 1);
        assert_eq!(pools(dir.path()), ["b", "c"]);

        // A list that was under way when the process went is not taken for the whole.
        saving.begin(Kind::IPAddressPool);
        saving.put(&pool("z", "203.0.113.0/24"));
        saving.flush();
        assert_eq!(pools(dir.path()), ["b", "c"]);
        let mut file = OpenOptions::new().append(true).open(dir.path().join("objects/IPAddressPool")).expect("there");
        write!(file, "+{{\"metadata\":{{\"name\":\"b\",").expect("torn");
        assert_eq!(pools(dir.path()), ["b", "c"]);
    }

    #[test]
    fn file_that_grew_is_written_anew_with_the_last_of_each() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut saving = Saving::new(Some(dir.path()));
        list(&mut saving, Kind::Service, &[]);
        list(&mut saving, Kind::IPAddressPool, &[pool("a", "192.0.2.0/25")]);
        for n in 0..=SLACK + 1 {
            saving.put(&pool("b", if n % 2 == 0 { "198.51.100.0/24" } else { "203.0.113.0/24" }));
        }
        saving.flush();
        let lines = || fs::read_to_string(dir.path().join("objects/IPAddressPool")).expect("there").lines().count();
        assert_eq!(lines(), 1 + 2);
        saving.put(&pool("c", "192.0.2.128/25"));
        saving.flush();
        assert_eq!((lines(), pools(dir.path()).len()), (1 + 3, 3));
    }

    #[test]
    fn folder_is_for_its_owner_alone_and_one_that_cannot_be_made_stops_nothing() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a folder");
        let mut saving = Saving::new(Some(dir.path()));
        list(&mut saving, Kind::Service, &[service("web")]);
        let mode = |path: &str| fs::metadata(dir.path().join(path)).expect("there").mode() & 0o777;
        assert_eq!((mode("objects"), mode("objects/Service")), (0o700, 0o600));
        let mut none = Saving::new(Some(Path::new("/proc/nowhere")));
        list(&mut none, Kind::Service, &[service("web")]);
        none.flush();
    }

    /// A file as the release before versions wrote it.
    const WITHOUT_VERSION: &str = concat!(
        r#"+{"metadata":{"name":"a","namespace":"s"},"spec":{"addresses":["192.0.2.0/25"]}}"#,
        "\n",
        r#"+{"metadata":{"name":"b","namespace":"s"},"spec":{"addresses":["198.51.100.0/24"]}}"#,
        "\n",
        r#"-{"metadata":{"name":"a","namespace":"s"}}"#,
        "\n",
    );

    #[test]
    fn file_without_a_version_is_read_and_one_of_a_later_version_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut saving = Saving::new(Some(dir.path()));
        list(&mut saving, Kind::Service, &[service("web")]);
        let file = dir.path().join("objects/IPAddressPool");
        fs::write(&file, WITHOUT_VERSION).expect("written");
        assert_eq!(pools(dir.path()), ["b"]);
        fs::write(&file, format!("v2\n{WITHOUT_VERSION}")).expect("written");
        let error = read(&file).expect_err("of the future").to_string();
        assert_eq!(error, "of version 2, this program reads 1");
        assert_eq!(load(dir.path()).map(|snapshot| (snapshot.pools.len(), snapshot.services.len())), Some((0, 1)));
    }

    #[test]
    fn damage_to_a_file_costs_the_line_where_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut saving = Saving::new(Some(dir.path()));
        list(&mut saving, Kind::Service, &[service("web")]);
        let names = ["a", "b", "c"];
        let range = |n: usize| format!("198.51.{n}.0/24");
        let objects: Vec<Object> = names.iter().enumerate().map(|(n, name)| pool(name, &range(n))).collect();
        list(&mut saving, Kind::IPAddressPool, &objects);
        let file = dir.path().join("objects/IPAddressPool");
        let whole = fs::read(&file).expect("there");
        let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, o)| **o == b'\n').map(|(at, _)| at).collect();
        for text in crate::mutated::damaged(&whole) {
            fs::write(&file, &text).expect("written");
            let found = read(&file).map(|found| found.into_keys().map(|key| key.name).collect::<Vec<_>>());
            let Ok(found) = found else {
                assert!(
                    text.len() > ends[0] && text[..ends[0]] != whole[..ends[0]],
                    "the version alone refuses a file"
                );
                continue;
            };
            let first = text.iter().zip(&whole).position(|(is, was)| is != was).unwrap_or(text.len());
            let is_cut = text.len() < whole.len();
            let before = ends.iter().skip(1).filter(|end| **end < first + usize::from(is_cut)).count();
            let kept = |name: &&&str| found.iter().any(|found| found == **name);
            assert_eq!(names[..before].iter().filter(kept).count(), before, "{found:?}");
            // A line's end that is damaged makes two lines one.
            assert!(is_cut || names.iter().filter(kept).count() >= names.len() - 2, "{found:?}");
        }
    }
}
