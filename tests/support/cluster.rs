//! A control plane of one machine: etcd, kube-apiserver and kube-controller-manager on loopback, or in a network
//! namespace, with a folder of its own. Ready in about four seconds, 430 MB.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use k8s_openapi::ByteString;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{program::Program, skip, until};

const READY: Duration = Duration::from_secs(60);
const CONTROLLERS: &str = "endpointslice-controller,serviceaccount-controller,node-lifecycle-controller,namespace-controller,root-ca-certificate-publisher-controller";
/// What pods on kubelets need beside.
const WORKLOADS: &str = "daemonset-controller,deployment-controller,replicaset-controller,garbage-collector-controller,pod-garbage-collector-controller";

/// Who may speak to the API server: token, user, uid, groups. The last is the daemon's ServiceAccount with the
/// rights that the manifests give it, and no other.
const TOKENS: &str = "admin-token,admin,1,\"system:masters\"\n\
    daemon-token,system:serviceaccount:ironcast-system:ironcast,2,\"system:serviceaccounts,system:serviceaccounts:ironcast-system,system:authenticated\"\n";

/// Who asked for what, of the daemon alone.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
    - {level: Metadata, users: ['system:serviceaccount:ironcast-system:ironcast']}\n- {level: None}\n";

/// A running control plane.
pub struct Cluster {
    // Order is the order of dropping: clients first, the folder last.
    controllers: Option<Program>,
    apiserver: Option<Program>,
    etcd: Option<Program>,
    assets: PathBuf,
    place: Place,
    ports: [u16; 4],
    /// Names of the nodes that have a kubelet.
    kubelets: Vec<String>,
    /// What the daemon asks for is written down.
    audited: bool,
    folder: PathBuf,
    _sweep: Program,
}

/// Where a control plane runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// Network namespace under /run/netns; `None` is ours.
    pub netns: Option<String>,
    /// The address that the API server is reached at.
    pub address: IpAddr,
}

impl Default for Place {
    fn default() -> Self {
        Self { netns: None, address: Ipv4Addr::LOCALHOST.into() }
    }
}

static SHARED: OnceCell<Option<Cluster>> = OnceCell::const_new();

impl Cluster {
    /// The one that the tests of this program share; each brings its own names.
    pub async fn shared() -> Option<&'static Self> {
        SHARED.get_or_init(Self::start).await.as_ref()
    }

    /// Starts one and waits until it is ready. `None`, with a line that says why, where the programs are absent.
    pub async fn start() -> Option<Self> {
        Self::start_at(Place::default()).await
    }

    /// The same in a network namespace.
    pub async fn start_at(place: Place) -> Option<Self> {
        Self::start_for(place, &[]).await
    }

    /// The same for nodes with kubelets: each has a kubeconfig by its name, pods reach the API server by its Service,
    /// and there are the controllers that make pods.
    pub async fn start_for(place: Place, kubelets: &[&str]) -> Option<Self> {
        Self::start_with(place, kubelets, false).await
    }

    /// As [`Self::start_at`], and what the daemon asks for is written down, see [`Self::audit`].
    pub async fn start_audited(place: Place) -> Option<Self> {
        Self::start_with(place, &[], true).await
    }

    async fn start_with(place: Place, kubelets: &[&str], audited: bool) -> Option<Self> {
        let Some(assets) = assets() else {
            skip("no API server: run tests/cluster/build once, or set KUBEBUILDER_ASSETS");
            return None;
        };
        let folder = TempDir::with_prefix("ironcast-cluster-").expect("temporary folder").keep();
        let sweep = Program::sweep(&folder).expect("sh runs");
        let ports = free_ports();
        let kubelets: Vec<String> = kubelets.iter().map(|name| (*name).to_owned()).collect();
        write_files(&folder, place.address, ports[2], &kubelets);
        let etcd = Some(run(&place, &folder, &assets.join("etcd"), etcd_flags(&folder, &ports)));
        let mut cluster = Self {
            controllers: None,
            apiserver: None,
            etcd,
            assets,
            place,
            ports,
            kubelets,
            audited,
            folder,
            _sweep: sweep,
        };
        cluster.start_apiserver().await;
        let flags = controller_flags(&cluster.folder, ports[3], !cluster.kubelets.is_empty());
        let program = cluster.assets.join("kube-controller-manager");
        cluster.controllers = Some(run(&cluster.place, &cluster.folder, &program, flags));
        Some(cluster)
    }

    /// Starts the API server again and waits until it is ready: its watch cache is new, so that a watch from an
    /// older resourceVersion is answered with 410.
    pub async fn start_apiserver(&mut self) {
        let mut flags = apiserver_flags(&self.folder, &self.place, &self.ports);
        // Without kubelets nothing asks for the Service `kubernetes`.
        let reconciler = if self.kubelets.is_empty() { "none" } else { "lease" };
        flags.push(format!("endpoint-reconciler-type={reconciler}"));
        flags.push("kubelet-preferred-address-types=InternalIP".into());
        if self.audited {
            let folder = self.folder.display();
            flags.push(format!("audit-policy-file={folder}/audit.yaml"));
            flags.push(format!("audit-log-path={folder}/audit.log"));
            // As before 1.34: lists are lists, and not watches that begin with one.
            flags.push("feature-gates=WatchList=false".into());
        }
        let apiserver = run(&self.place, &self.folder, &self.assets.join("kube-apiserver"), flags);
        until(&format!("API server ready; its log is in {}", self.folder.display()), READY, || async {
            let etcd = self.etcd.as_ref().map(Program::tail).unwrap_or_default();
            assert!(apiserver.running(), "kube-apiserver ended:\n{}\netcd:\n{etcd}", apiserver.tail());
            self.ready().then_some(())
        })
        .await;
        self.apiserver = Some(apiserver);
    }

    /// Kills the API server.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Keeps what etcd has, for [`Self::put_back`]. The API server is away meanwhile.
    pub async fn back_up(&mut self) {
        self.with_etcd_stopped("etcd", "backup").await;
    }

    /// Puts back what etcd had, with the versions of then: what is newer never was.
    pub async fn put_back(&mut self) {
        std::fs::remove_dir_all(self.folder.join("etcd")).expect("it is there");
        self.with_etcd_stopped("backup", "etcd").await;
    }

    async fn with_etcd_stopped(&mut self, from: &str, to: &str) {
        (self.apiserver, self.etcd) = (None, None);
        let [from, to] = [from, to].map(|name| self.folder.join(name));
        // Absent at first.
        let _ = std::fs::remove_dir_all(&to);
        let copied = Command::new("cp").arg("-a").args([&from, &to]).status().expect("cp runs");
        assert!(copied.success());
        let program = self.assets.join("etcd");
        self.etcd = Some(run(&self.place, &self.folder, &program, etcd_flags(&self.folder, &self.ports)));
        self.start_apiserver().await;
    }

    fn ready(&self) -> bool {
        self.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer == "ok")
    }

    /// A client with every right. One per test: a client belongs to the runtime that made it.
    pub async fn client(&self) -> Client {
        self.client_as("admin").await
    }

    /// A client with the rights of a user, see [`Self::kubeconfig`].
    pub async fn client_as(&self, user: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(user)).expect("written by us");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("valid");
        Client::try_from(config).expect("valid configuration")
    }

    /// A node's daemon in its network namespace, its files below `folder`.
    pub fn daemon(&self, netns: &str, node: &str, folder: &Path, datapath: &str) -> Program {
        let flag = |name: &str, value: &Path| format!("--{name}={}", value.display()).into();
        let command = [
            env!("CARGO_BIN_EXE_ironcast").into(),
            "run".into(),
            format!("--node={node}").into(),
            flag("kubeconfig", &self.kubeconfig("daemon")),
            flag("state-dir", folder),
            flag("admin-socket", &folder.join("admin.sock")),
            format!("--datapath={datapath}").into(),
        ];
        Program::start(Some(netns), &folder.join("daemon.log"), &command).expect("sh runs")
    }

    /// The file for `admin` (every right), `daemon` (the ServiceAccount of the manifests) or a node with a kubelet.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// The folder with kubectl.
    pub fn assets(&self) -> &Path {
        &self.assets
    }

    /// The daemon's requests that are over, and watches that began: `audit.k8s.io/v1` events.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let log = std::fs::read_to_string(self.folder.join("audit.log")).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// A folder for the test's own files, removed with the cluster.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs kubectl as `admin`: standard output, or standard error where it failed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(if self.place.netns.is_some() { "nsenter" } else { "env" });
        if let Some(netns) = &self.place.netns {
            command.arg(format!("--net=/run/netns/{netns}"));
        }
        command.arg(self.assets.join("kubectl")).arg("--kubeconfig").arg(self.kubeconfig("admin"));
        command.args(["--cache-dir".as_ref(), self.folder.join("kubectl").as_os_str()]).args(arguments);
        let Output { status, stdout, stderr } = command.output().expect("kubectl runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_string();
        if status.success() { Ok(text(stdout)) } else { Err(text(stderr)) }
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, yaml: &str) -> Result<String, String> {
        self.apply_with(yaml, &[])
    }

    /// The same, for what is too large for the annotation of a plain apply.
    pub fn apply_server_side(&self, yaml: &str) -> Result<String, String> {
        self.apply_with(yaml, &["--server-side", "--force-conflicts"])
    }

    /// What the API server would say.
    pub fn dry_run(&self, yaml: &str) -> Result<String, String> {
        self.apply_with(yaml, &["--dry-run=server"])
    }

    fn apply_with(&self, yaml: &str, flags: &[&str]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::with_suffix_in(".yaml", &self.folder).expect("temporary file");
        std::fs::write(file.path(), yaml).expect("written");
        let file = file.path().to_str().expect("UTF-8");
        self.kubectl(&[&["apply", "-f", file], flags].concat())
    }
}

fn assets() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/build");
    let output = Command::new(script).arg("--find").output().expect("tests/cluster/build runs");
    match output.status.code() {
        Some(0) => Some(String::from_utf8(output.stdout).expect("UTF-8").trim().into()),
        Some(3) => None,
        _ => panic!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Client and peer port of etcd, port of the API server, of the controllers; free a moment ago.
fn free_ports() -> [u16; 4] {
    let held = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}

fn run(place: &Place, folder: &Path, program: &Path, flags: Vec<String>) -> Program {
    let name = program.file_name().expect("a program").to_string_lossy();
    let command: Vec<OsString> =
        std::iter::once(program.into()).chain(flags.into_iter().map(|f| format!("--{f}").into())).collect();
    Program::start(place.netns.as_deref(), &folder.join(format!("{name}.log")), &command).expect("sh runs")
}

fn etcd_flags(folder: &Path, &[client, peer, ..]: &[u16; 4]) -> Vec<String> {
    vec![
        format!("data-dir={}/etcd", folder.display()),
        format!("listen-client-urls=http://127.0.0.1:{client}"),
        format!("advertise-client-urls=http://127.0.0.1:{client}"),
        format!("listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("initial-cluster=default=http://127.0.0.1:{peer}"),
        "unsafe-no-fsync=true".into(),
        "warning-unary-request-duration=5s".into(),
    ]
}

fn apiserver_flags(folder: &Path, place: &Place, &[etcd, _, port, _]: &[u16; 4]) -> Vec<String> {
    let (folder, address) = (folder.display(), place.address);
    vec![
        format!("etcd-servers=http://127.0.0.1:{etcd}"),
        format!("bind-address={address}"),
        format!("advertise-address={address}"),
        format!("secure-port={port}"),
        format!("cert-dir={folder}/certificates"),
        format!("token-auth-file={folder}/tokens.csv"),
        "anonymous-auth=false".into(),
        "authorization-mode=Node,RBAC".into(),
        "service-account-issuer=https://kubernetes.default.svc".into(),
        format!("service-account-key-file={folder}/service-accounts.pub"),
        format!("service-account-signing-key-file={folder}/service-accounts.key"),
        "service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".into(),
        "allow-privileged=true".into(),
    ]
}

fn controller_flags(folder: &Path, port: u16, kubelets: bool) -> Vec<String> {
    let folder = folder.display();
    let workloads = if kubelets { format!(",{WORKLOADS}") } else { String::new() };
    vec![
        format!("kubeconfig={folder}/admin.kubeconfig"),
        format!("controllers={CONTROLLERS}{workloads}"),
        format!("service-account-private-key-file={folder}/service-accounts.key"),
        format!("root-ca-file={folder}/certificates/apiserver.crt"),
        "leader-elect=false".into(),
        "bind-address=127.0.0.1".into(),
        format!("secure-port={port}"),
        format!("cert-dir={folder}/controllers"),
        // Nodes of the tests have no kubelet that says it lives.
        "node-monitor-grace-period=10m".into(),
    ]
}

fn write_files(folder: &Path, address: IpAddr, port: u16, kubelets: &[String]) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("the folder is writable");
    write("audit.yaml", AUDIT);
    let of_node = |name: &String| format!("{name}-token,system:node:{name},{name},\"system:nodes\"\n");
    write("tokens.csv", &kubelets.iter().fold(TOKENS.to_owned(), |all, name| all + &of_node(name)));
    let [private, public] = signing_keys();
    write("service-accounts.key", &private);
    write("service-accounts.pub", &public);
    for user in ["admin", "daemon"].into_iter().chain(kubelets.iter().map(String::as_str)) {
        // The API server signs its own certificate and writes its authority into the same file.
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"https://{address}:{port}\", certificate-authority: {}/certificates/apiserver.crt}}}}]\n\
             users: [{{name: {user}, user: {{token: {user}-token}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: {user}}}}}]\n",
            folder.display()
        );
        write(&format!("{user}.kubeconfig"), &text);
    }
}

/// A fresh P-256 key for the tokens of service accounts: private (PKCS #8) and public (RFC 5480) in PEM.
fn signing_keys() -> [String; 2] {
    /// Everything of a SubjectPublicKeyInfo of P-256 before the point.
    const SPKI: [u8; 26] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random");
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random).expect("just made");
    let public = [&SPKI[..], pair.public_key().as_ref()].concat();
    [pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", &public)]
}

fn pem(label: &str, bytes: &[u8]) -> String {
    let base64 = serde_json::to_value(ByteString(bytes.to_vec())).expect("base64 is a string");
    let base64 = base64.as_str().expect("base64 is a string").as_bytes();
    let lines: Vec<&str> = base64.chunks(64).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
