use std::{fs, net::IpAddr};

use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

use super::*;
use crate::types::ServiceKey;

fn pool(name: &str, addresses: &str) -> String {
    format!(
        "---\napiVersion: ironcast.dev/v1alpha1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\n\
         spec: {{addresses: [{addresses}]}}\n"
    )
}

fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}\n"
    )
}

fn state(name: &str, address: &str) -> String {
    format!(
        "{{\"version\": 1, \"services\": {{\"default/{name}\": {{\"addresses\": [\"{address}\"], \"pool\": \"a\"}}}}}}"
    )
}

/// A folder as it is read when something changed, without the watch.
struct Read {
    dir: TempDir,
    folder: Folder,
}

impl Read {
    fn new() -> Self {
        let dir = TempDir::new().expect("folder");
        let folder = Folder::new(dir.path().into());
        Self { dir, folder }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).expect("removed");
    }

    #[track_caller]
    fn snapshot(&mut self) -> Snapshot {
        look(&mut self.folder).expect("readable");
        self.folder.snapshot().expect("complete")
    }

    /// Pools and Services in use.
    #[track_caller]
    fn names(&mut self) -> Vec<String> {
        let snapshot = self.snapshot();
        snapshot.pools.keys().cloned().chain(snapshot.services.keys().map(|key| key.name.to_string())).collect()
    }

    #[track_caller]
    fn tells(&mut self, message: &str) {
        let told: Vec<String> = self.snapshot().problems.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|text| text.starts_with(message)), "{message:?} is not in {told:#?}");
    }
}

const A: &str = "192.0.2.0/25";

#[test]
fn only_manifests_of_the_folder_itself_are_read() {
    let mut read = Read::new();
    read.write("a.yaml", &pool("a", A));
    read.write("b.yml", &service("b"));
    read.write("c.json", "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"c\"}, \"spec\": {\"type\": \"LoadBalancer\"}}");
    read.write(".d.yaml", &service("hidden"));
    read.write("e.yaml~", &service("backup"));
    read.write("below/f.yaml", &service("below"));
    read.write("other.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n");
    assert_eq!(read.names(), ["a", "b", "c"]);
    assert!(read.snapshot().problems.is_empty());
}

#[test]
fn advertisement_without_a_spec_announces_everything() {
    let mut read = Read::new();
    read.write(
        "a.yaml",
        "apiVersion: ironcast.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: a, namespace: s}\n",
    );
    assert!(read.snapshot().advertisements.contains_key("a") && read.snapshot().problems.is_empty());
}

#[test]
fn files_that_change_and_go_take_their_objects_along() {
    let mut read = Read::new();
    read.write("a.yaml", &(pool("a", A) + &service("b")));
    assert_eq!(read.names(), ["a", "b"]);
    read.write("a.yaml", &(pool("a", A) + &service("c")));
    assert_eq!(read.names(), ["a", "c"]);
    read.remove("a.yaml");
    assert!(read.names().is_empty());
}

#[test]
fn a_broken_document_leaves_its_last_good_version_in_use() {
    let mut read = Read::new();
    read.write("a.yaml", &(pool("a", A) + &service("b")));
    assert_eq!(read.names(), ["a", "b"]);
    read.write("a.yaml", &(pool("c", "198.51.100.0/24") + "---\nkind: [\n"));
    assert_eq!(read.names(), ["a", "c", "b"], "the new one, and those that may be in the broken one");
    read.tells("File a.yaml: line ");
    read.write("a.yaml", &pool("c", "198.51.100.0/24"));
    assert_eq!(read.names(), ["c"], "mended, and the others are really gone");
    assert!(read.snapshot().problems.is_empty());
}

#[test]
fn a_field_that_cannot_be_read_leaves_the_last_good_version_in_use() {
    let mut read = Read::new();
    read.write("a.yaml", &pool("a", A));
    let before = read.snapshot().pools;
    read.write("a.yaml", &pool("a", A).replace("spec: {", "spec: {autoAssign: maybe, "));
    assert_eq!(read.snapshot().pools, before);
    read.tells("a.yaml: IPAddressPool default/a: spec.autoAssign: invalid type: string \"maybe\", expected a boolean");
}

/// A number where a text belongs: the reader's own message would repeat it.
#[test]
fn a_password_that_is_no_text_is_in_no_message() {
    let mut read = Read::new();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/basic-auth\nstringData: {password: 777123}\n";
    let peer = |name: &str, key: &str| {
        format!(
            "---\napiVersion: ironcast.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\n\
             spec: {{myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, {key}}}\n"
        )
    };
    let peers = peer("a", "password: 777123") + &peer("b", "passwordSecret: {name: s}");
    read.write("a.yaml", &format!("{secret}{peers}"));
    let problems: Vec<String> = read.snapshot().problems.iter().map(ToString::to_string).collect();
    let of = |field: &str| problems.iter().any(|problem| problem.contains(field) && problem.contains("quote it"));
    assert!(of("spec.password:") && of("stringData.password:"), "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.contains("777123")), "{problems:#?}");
}

#[test]
fn an_object_in_two_files_is_that_of_the_first_until_it_goes() {
    let mut read = Read::new();
    read.write("a.yaml", &pool("a", A));
    read.write("b.yaml", &pool("a", "198.51.100.0/24"));
    let first = |read: &mut Read| read.snapshot().pools["a"].ranges[0].to_string();
    assert_eq!(first(&mut read), "192.0.2.0-192.0.2.127");
    read.tells("b.yaml: IPAddressPool default/a: stands in another file too; the one in a.yaml counts");
    read.remove("a.yaml");
    assert_eq!(first(&mut read), "198.51.100.0-198.51.100.255", "read again although it did not change");
    assert!(read.snapshot().problems.is_empty());
}

#[test]
fn addresses_are_those_of_the_state_file_and_stay_while_it_is_gone() {
    let mut read = Read::new();
    read.write("a.yaml", &service("a"));
    let assigned = |read: &mut Read| read.snapshot().services[&ServiceKey::new("default", "a")].assigned.len();
    assert_eq!(assigned(&mut read), 0);
    read.write(".ironcast/state.json", &state("a", "192.0.2.1"));
    assert_eq!(assigned(&mut read), 1);
    read.remove(".ironcast/state.json");
    assert_eq!(assigned(&mut read), 1);
    read.write(".ironcast/state.json", "{\"vers");
    let error = look(&mut read.folder).expect_err("torn");
    assert!(error.contains("state.json is damaged"), "{error}");
    read.write("b.yaml", &service("b"));
    assert!(look(&mut read.folder).is_err());
    let snapshot = read.folder.snapshot().expect("with the record that was read before");
    assert_eq!(snapshot.services.len(), 2, "the manifests are read all the same");
    assert_eq!(snapshot.problems[0].object.to_string(), "File .ironcast/state.json");
}

#[test]
fn nothing_is_known_while_the_state_file_could_never_be_read() {
    let mut read = Read::new();
    read.write("a.yaml", &service("a"));
    read.write(".ironcast/state.json", "{\"vers");
    assert!(look(&mut read.folder).is_err());
    assert!(read.folder.snapshot().is_none(), "addresses in use would look free");
}

#[test]
fn state_file_that_is_damaged_at_the_start_leaves_the_version_before_in_use() {
    for later in ["{\"version\": 1, \"services\": {\"def", "{\"version\": 2, \"all\": {}}"] {
        let mut read = Read::new();
        read.write("a.yaml", &(pool("a", A) + &service("b")));
        read.write(".ironcast/state.json", later);
        read.write(".ironcast/state.json.bak", &state("b", "192.0.2.7"));
        let error = look(&mut read.folder).expect_err("unreadable");
        assert!(error.contains("state.json is "), "{error}");
        let snapshot = read.folder.snapshot().expect("the version before is there");
        assert_eq!(snapshot.services[&ServiceKey::new("default", "b")].assigned, [IpAddr::from([192, 0, 2, 7])]);
        assert!(snapshot.problems.iter().any(|problem| problem.message.contains("state.json is ")));
        // Once it is mended it counts, and nothing else does when it is damaged again.
        read.write(".ironcast/state.json", &state("b", "192.0.2.8"));
        read.snapshot();
        read.write(".ironcast/state.json", later);
        look(&mut read.folder).expect_err("unreadable");
        let snapshot = read.folder.snapshot().expect("read before");
        assert_eq!(snapshot.services[&ServiceKey::new("default", "b")].assigned, [IpAddr::from([192, 0, 2, 8])]);
    }
}

#[test]
fn claims_that_cannot_be_read_do_not_take_the_record_along() {
    let mut read = Read::new();
    read.write("a.yaml", &(pool("a", A) + &service("b")));
    read.write(".ironcast/state.json", &state("b", "192.0.2.7"));
    read.write(".ironcast/claims.json", "{\"version\": 1, \"cl");
    let error = look(&mut read.folder).expect_err("torn");
    assert!(error.contains("claims.json is damaged; put claims.json.bak"), "{error}");
    let snapshot = read.folder.snapshot().expect("the record is there");
    assert_eq!(snapshot.services[&ServiceKey::new("default", "b")].assigned.len(), 1);
}

#[test]
fn what_is_no_file_of_text_is_said_and_not_waited_for() {
    let mut read = Read::new();
    read.write("a.yaml", &pool("a", A));
    let pipe = read.dir.path().join("pipe.yaml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("made");
    std::os::unix::fs::symlink("/dev/zero", read.dir.path().join("zero.json")).expect("made");
    fs::File::create(read.dir.path().join("large.yaml")).and_then(|f| f.set_len(1 << 40)).expect("made");
    assert_eq!(read.names(), ["a"]);
    read.tells("File pipe.yaml: cannot be read: it is no regular file");
    read.tells("File zero.json: cannot be read: it is no regular file");
    read.tells("File large.yaml: cannot be read: it has more than 64 MiB");
}

#[test]
fn a_service_that_cannot_be_read_at_the_start_keeps_its_address() {
    let mut read = Read::new();
    read.write(".ironcast/state.json", &state("a", "192.0.2.1"));
    read.write("a.yaml", "kind: [\n");
    assert_eq!(read.names(), ["a"], "it may be in the broken file");
    read.write("a.yaml", &service("a").replace("port: 80", "port: many"));
    assert_eq!(read.names(), ["a"], "it is there, and cannot be read");
    read.write("a.yaml", &service("b"));
    assert_eq!(read.names(), ["b"], "it is really gone");
}

#[test]
fn a_file_that_is_removed_while_the_folder_is_read_is_gone_and_no_problem() {
    let mut read = Read::new();
    read.write("a.yaml", &service("a"));
    read.write("b.yaml", &service("b"));
    assert_eq!(read.names(), ["a", "b"]);
    let listed: std::collections::BTreeSet<_> =
        ["a.yaml", "b.yaml", "c.yaml"].map(|name| read.dir.path().join(name)).into();
    read.remove("b.yaml");
    read.folder.read_files(listed);
    let snapshot = read.folder.snapshot().expect("complete");
    assert_eq!((snapshot.services.len(), snapshot.problems.len()), (1, 0), "{:?}", snapshot.problems);
    std::os::unix::fs::symlink("nowhere", read.dir.path().join("c.yaml")).expect("made");
    assert_eq!(read.snapshot().problems.len(), 1, "a link that leads nowhere is a problem");
}

struct Running {
    dir: TempDir,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    task: JoinHandle<Result<Infallible, ManifestsError>>,
}

impl Running {
    fn start() -> Self {
        let dir = TempDir::new().expect("folder");
        let (sender, snapshots) = watch::channel(None);
        let task = tokio::spawn(run(dir.path().into(), sender));
        Self { dir, snapshots, task }
    }

    /// Waits for a snapshot that fulfils the condition; far less than a poll's time.
    async fn sees(&mut self, what: &str, condition: impl Fn(&Snapshot) -> bool) {
        let seen = self.snapshots.wait_for(|snapshot| snapshot.as_deref().is_some_and(&condition));
        let seen = tokio::time::timeout(Duration::from_secs(5), seen).await;
        drop(seen.unwrap_or_else(|_| panic!("{what} is not seen in time")).expect("the task runs"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn changes_are_seen_at_once_also_by_rename_and_in_the_state_file() {
    let mut running = Running::start();
    running.sees("the empty folder", |_| true).await;
    let path = |name: &str| running.dir.path().join(name);
    let (file, half, state_dir) = (path("a.yaml"), path(".a.half"), path(".ironcast"));
    fs::write(&file, service("a")).expect("written");
    running.sees("a new file", |snapshot| snapshot.services.len() == 1).await;
    fs::write(&half, service("a") + &service("b")).expect("written");
    fs::rename(&half, &file).expect("renamed");
    running.sees("a renamed file", |snapshot| snapshot.services.len() == 2).await;
    fs::create_dir(&state_dir).expect("made");
    fs::write(state_dir.join("state.json.tmp"), state("a", "192.0.2.1")).expect("written");
    fs::rename(state_dir.join("state.json.tmp"), state_dir.join("state.json")).expect("renamed");
    let has = |snapshot: &Snapshot, address: &str| {
        let assigned = &snapshot.services[&ServiceKey::new("default", "a")].assigned;
        assigned.iter().any(|ip| ip.to_string() == address)
    };
    running.sees("the first record", |snapshot| has(snapshot, "192.0.2.1")).await;
    fs::write(state_dir.join("state.json.tmp"), state("a", "192.0.2.2")).expect("written");
    fs::rename(state_dir.join("state.json.tmp"), state_dir.join("state.json")).expect("renamed");
    running.sees("the next record", |snapshot| has(snapshot, "192.0.2.2")).await;
    fs::remove_file(&file).expect("removed");
    running.sees("a removed file", |snapshot| snapshot.services.is_empty()).await;
}

#[tokio::test]
async fn reading_the_folder_is_no_change_of_it() {
    let mut running = Running::start();
    running.sees("the empty folder", |_| true).await;
    fs::write(running.dir.path().join("a.yaml"), service("a")).expect("written");
    running.sees("a new file", |snapshot| snapshot.services.len() == 1).await;
    let mut changes = Changes::watch(running.dir.path()).expect("watched");
    let mut folder = Folder::new(running.dir.path().into());
    look(&mut folder).expect("readable");
    look(&mut folder).expect("readable");
    let quiet = timeout(Duration::from_millis(300), changes.next()).await;
    assert!(quiet.is_err(), "else the daemon would read for ever");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let (sender, _snapshots) = watch::channel(None);
    let error = run("/nonexistent/manifests".into(), sender).await.expect_err("it is not there");
    assert_eq!(error.to_string(), "watch the folder /nonexistent/manifests");
}
