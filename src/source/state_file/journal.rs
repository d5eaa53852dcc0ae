//! Manifest mode's journal of claims: `claims.json` beside the record, replaced whole like it, in the form of
//! `AddressClaim` objects. And the mark of this folder, by which a provider's leases are known to be ours.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};

use super::{StateError, folder};
use crate::{
    source::{api::AddressClaim, convert},
    types::{Claim, ClaimId},
};

const FILE: &str = "claims.json";
const VERSION: u64 = 1;
/// The mark of this folder.
const CLUSTER: &str = "cluster-id";

#[derive(Serialize, Deserialize)]
struct Form {
    version: u64,
    claims: Vec<AddressClaim>,
}

/// The claims; empty where there is no file yet.
///
/// # Errors
/// The file is there and cannot be read, is torn, of a later version, or holds something that is no claim.
pub fn load_claims(dir: &Path) -> Result<BTreeMap<ClaimId, Claim>, StateError> {
    let path = folder(dir).join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(StateError::io("read", &path)(error)),
    };
    let corrupt = |source| StateError::Corrupt { path: path.clone(), source };
    let form: Form = serde_json::from_slice(&text).map_err(corrupt)?;
    if form.version != VERSION {
        return Err(StateError::Version { path, found: form.version });
    }
    let read = |object: &AddressClaim| {
        let converted = convert::claim(object);
        let problem = || converted.problems.first().map(ToString::to_string).unwrap_or_default();
        converted.value.clone().ok_or_else(|| corrupt(serde::de::Error::custom(problem())))
    };
    form.claims.iter().map(|object| read(object).map(|claim| (claim.id, claim))).collect()
}

/// Replaces the claims, atomically and so that it survives a power failure.
fn store_claims(dir: &Path, claims: &BTreeMap<ClaimId, Claim>) -> Result<(), StateError> {
    let folder = folder(dir);
    fs::create_dir_all(&folder).map_err(StateError::io("make", &folder))?;
    let object = |claim: &Claim| {
        let mut object = AddressClaim::new(&claim.id.to_string(), convert::claim_spec(claim));
        object.status = Some(convert::claim_status(claim, None));
        object
    };
    let form = Form { version: VERSION, claims: claims.values().map(object).collect() };
    let mut text = serde_json::to_vec_pretty(&form).expect("plain data");
    text.push(b'\n');
    write_whole(&folder, FILE, &text)
}

fn write_whole(folder: &Path, name: &str, text: &[u8]) -> Result<(), StateError> {
    let (path, half) = (folder.join(name), folder.join(format!("{name}.tmp")));
    let write = || -> io::Result<()> {
        let mut file = File::create(&half)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&half, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(StateError::io("write", &path))
}

/// The mark of this folder, where it has one.
pub fn known_cluster_id(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(folder(dir).join(CLUSTER)).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The mark of this folder: made once by the daemon that leads, and copied with the folder.
///
/// # Errors
/// It can be neither read nor made.
pub fn cluster_id(dir: &Path) -> Result<String, StateError> {
    let folder = folder(dir);
    let path = folder.join(CLUSTER);
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StateError::io("read", &path)(error)),
        Ok(_) | Err(_) => {}
    }
    let mut random = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.map_err(StateError::io("read", Path::new("/dev/urandom")))?;
    let id = format!("folder-{:032x}", u128::from_be_bytes(random));
    fs::create_dir_all(&folder).map_err(StateError::io("make", &folder))?;
    write_whole(&folder, CLUSTER, format!("{id}\n").as_bytes())?;
    Ok(id)
}

/// The file, for who leads. One write at a time; what it holds is read before the first.
#[derive(Debug)]
pub struct ClaimsFile {
    dir: PathBuf,
    known: Mutex<Option<BTreeMap<ClaimId, Claim>>>,
}

impl ClaimsFile {
    /// The file beside the manifests in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, known: Mutex::new(None) }
    }

    /// What it holds now.
    ///
    /// # Errors
    /// As [`load_claims`].
    pub fn load(&self) -> Result<Vec<Claim>, StateError> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let claims = load_claims(&self.dir)?;
        *known = Some(claims.clone());
        Ok(claims.into_values().collect())
    }

    /// Changes it: `None` removes a claim.
    ///
    /// # Errors
    /// The file system refuses; what the file holds is then read again by [`Self::load`].
    pub fn change(&self, changes: impl IntoIterator<Item = (ClaimId, Option<Claim>)>) -> Result<(), StateError> {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut claims = match known.take() {
            Some(claims) => claims,
            None => load_claims(&self.dir)?,
        };
        for (id, claim) in changes {
            match claim {
                Some(claim) => claims.insert(id, claim),
                None => claims.remove(&id),
            };
        }
        store_claims(&self.dir, &claims)?;
        *known = Some(claims);
        Ok(())
    }
}
