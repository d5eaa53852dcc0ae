//! The secret of the cluster, which the packet path's hash is keyed with: the same on every node, and not known
//! to clients, who could aim at one pod with it. It protects nothing else.
//!
//! | source | secret |
//! |---|---|
//! | `--cluster-secret FILE` | the file's content (a mounted Secret) |
//! | a folder of manifests | `.ironcast/secret`, random, made by the daemon that leads |
//! | a cluster | the UID of the namespace `kube-system`, which only who may read the API knows; remembered in the state folder for starts without an API server |

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt, api::ListParams};
use tokio::sync::watch;

use crate::{datapath::maglev, source::state_file};

/// Between two looks.
const RETRY: Duration = Duration::from_millis(200);
/// Between two questions to an API server that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Shorter ones are guessed.
const SHORTEST: usize = 16;

type Secret = [u8; 32];

/// From a file that the operator gave.
///
/// # Errors
/// It cannot be read, or is too short to be a secret.
#[cfg(feature = "xdp")]
pub(super) fn from_file(path: &Path) -> anyhow::Result<Secret> {
    use anyhow::{Context, ensure};
    let bytes = std::fs::read(path).with_context(|| format!("read --cluster-secret {}", path.display()))?;
    let length = bytes.trim_ascii().len();
    ensure!(length >= SHORTEST, "--cluster-secret {} has {length} bytes; {SHORTEST} are needed", path.display());
    Ok(stretched(bytes.trim_ascii()))
}

/// Four words, each a hash of the whole.
fn stretched(bytes: &[u8]) -> Secret {
    let mut secret = [0; 32];
    for (n, word) in (0_u8..).zip(secret.chunks_exact_mut(8)) {
        word.copy_from_slice(&maglev::key(&[&[n], bytes].concat()).to_le_bytes());
    }
    secret
}

/// From the folder of manifests; the daemon that leads makes it where there is none.
pub(super) async fn from_folder(
    dir: PathBuf,
    leader: watch::Receiver<bool>,
    to: watch::Sender<Option<Secret>>,
) -> Result<(), Infallible> {
    let path = state_file::folder(&dir).join("secret");
    let mut told = false;
    loop {
        let leads = *leader.borrow();
        match read(&path, leads) {
            Ok(Some(secret)) => drop(to.send_replace(Some(secret))),
            Ok(None) => {}
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, path = %path.display(), "the secret of the cluster cannot be had");
            }
            Err(_) => {}
        }
        if to.borrow().is_some() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The secret; made where we lead and there is none.
fn read(path: &Path, leads: bool) -> io::Result<Option<Secret>> {
    match std::fs::read(path) {
        Ok(bytes) if bytes.len() >= SHORTEST => return Ok(Some(stretched(&bytes))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Torn, or none.
        Ok(_) | Err(_) if !leads => return Ok(None),
        Ok(_) | Err(_) => {}
    }
    let mut random = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    write(path, &random)?;
    Ok(Some(stretched(&random)))
}

/// From the cluster, or as it was remembered while the API server does not answer.
pub(super) async fn from_cluster(
    client: kube::Client,
    state_dir: PathBuf,
    to: watch::Sender<Option<Secret>>,
) -> Result<(), Infallible> {
    let namespaces: Api<Namespace> = Api::all(client);
    let remembered = state_dir.join("cluster-secret");
    // A list, since that is what the daemon may do with namespaces.
    let which = ListParams::default().fields("metadata.name=kube-system");
    let mut told = false;
    loop {
        let answer = tokio::time::timeout(ASK_AGAIN, namespaces.list(&which)).await;
        let uid = answer.map(|list| list.map(|list| list.items.first().and_then(|ns| ns.uid())));
        match uid {
            Ok(Ok(Some(uid))) => {
                let secret = stretched(uid.as_bytes());
                if let Err(error) = write(&remembered, &secret) {
                    tracing::warn!(%error, "a start without the API server will have no packet path; check --state-dir");
                }
                to.send_if_modified(|before| before.replace(secret) != Some(secret));
                std::future::pending::<()>().await;
            }
            Ok(Ok(None)) if !told => tracing::warn!("there is no namespace kube-system; give --cluster-secret"),
            Ok(Err(error)) if !told => tracing::warn!(%error, "the UID of the namespace kube-system cannot be had"),
            Err(_) if !told => tracing::warn!("the API server does not answer for the UID of kube-system"),
            _ => {}
        }
        if !told && let Some(secret) = std::fs::read(&remembered).ok().and_then(|bytes| bytes.try_into().ok()) {
            to.send_replace(Some(secret));
        }
        told = true;
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn write(path: &Path, secret: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let half = path.with_extension("half");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(secret)?;
    file.sync_all()?;
    std::fs::rename(&half, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "xdp")]
    #[test]
    fn secret_of_a_file_is_its_content_without_the_newline() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        std::fs::write(&path, "0123456789abcdef\n").expect("written");
        let one = from_file(&path).expect("long enough");
        std::fs::write(&path, "0123456789abcdef").expect("written");
        assert_eq!(from_file(&path).expect("long enough"), one);
        std::fs::write(&path, "0123456789abcdeg").expect("written");
        assert_ne!(from_file(&path).expect("long enough"), one);
        std::fs::write(&path, "short\n").expect("written");
        assert!(from_file(&path).expect_err("guessed").to_string().contains("16 are needed"));
    }

    #[test]
    fn only_who_leads_makes_the_secret_and_all_read_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        assert_eq!(read(&path, false).expect("none yet"), None);
        let made = read(&path, true).expect("made");
        assert!(made.is_some());
        assert_eq!(read(&path, false).expect("read"), made);
        assert_eq!(read(&path, true).expect("kept"), made);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).expect("there"));
        assert_eq!(mode & 0o777, 0o600);
    }
}
