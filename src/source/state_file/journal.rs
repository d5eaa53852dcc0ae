//! Manifest mode's journal of claims: `claims.json` beside the record, replaced whole like it, in the form of
//! `AddressClaim` objects. And the mark of this folder, by which a provider's leases are known to be ours.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::{Deserialize, Serialize};

use super::{StateError, folder, former, read, replace};
use crate::{
    source::{api::AddressClaim, convert},
    types::{Claim, ClaimId, stored},
};

const FILE: &str = "claims.json";
const VERSION: u64 = 1;
/// The mark of this folder.
const CLUSTER: &str = "cluster-id";
/// How marks begin that are made here; people may have written others.
const MADE: &str = "folder-";

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
    load_from(&folder(dir).join(FILE))
}

/// The claims before the last change, for who cannot read the last ones: what was bound is most likely bound still.
///
/// # Errors
/// As [`load_claims`].
pub fn load_former_claims(dir: &Path) -> Result<BTreeMap<ClaimId, Claim>, StateError> {
    load_from(&former(&folder(dir), FILE))
}

fn load_from(path: &Path) -> Result<BTreeMap<ClaimId, Claim>, StateError> {
    let Some(text) = read(path)? else { return Ok(BTreeMap::new()) };
    let form: Form = stored::read(&text, VERSION).map_err(StateError::unreadable(path))?;
    let read = |object: &AddressClaim| {
        let converted = convert::claim(object);
        let problem = || converted.problems.first().map(ToString::to_string).unwrap_or_default();
        let damaged = || StateError::Corrupt { path: path.into(), source: serde::de::Error::custom(problem()) };
        converted.value.clone().ok_or_else(damaged)
    };
    form.claims.iter().map(|object| read(object).map(|claim| (claim.id, claim))).collect()
}

/// Replaces the claims, atomically and so that it survives a power failure.
fn store_claims(dir: &Path, claims: &BTreeMap<ClaimId, Claim>) -> Result<(), StateError> {
    let object = |claim: &Claim| {
        let mut object = AddressClaim::new(&claim.id.to_string(), convert::claim_spec(claim));
        object.status = Some(convert::claim_status(claim, None));
        object
    };
    let form = Form { version: VERSION, claims: claims.values().map(object).collect() };
    let mut text = serde_json::to_vec_pretty(&form).expect("plain data");
    text.push(b'\n');
    replace(&folder(dir), FILE, &text)
}

/// The mark of this folder, where it has one.
///
/// # Errors
/// It is there and cannot be read, or is damaged as its copy is.
pub fn known_cluster_id(dir: &Path) -> Result<Option<String>, StateError> {
    let folder = folder(dir);
    match read_id(&folder.join(CLUSTER)) {
        Err(StateError::Corrupt { path, source }) => match read_id(&former(&folder, CLUSTER)) {
            Ok(Some(copy)) => Ok(Some(copy)),
            _ => Err(StateError::Corrupt { path, source }),
        },
        read => read,
    }
}

/// One word. Leases bear it: another one would make them another cluster's.
fn read_id(path: &Path) -> Result<Option<String>, StateError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let id = String::from_utf8_lossy(&text).trim().to_owned();
    let is_whole = match id.strip_prefix(MADE) {
        Some(number) => number.len() == 32 && number.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => !MADE.starts_with(&id) && id.bytes().all(|byte| byte.is_ascii_graphic()),
    };
    match is_whole {
        true => Ok(Some(id)),
        false => {
            let source = serde::de::Error::custom("it must be one word");
            Err(StateError::Corrupt { path: path.into(), source })
        }
    }
}

/// The mark of this folder: made once by the daemon that leads, and copied with the folder.
///
/// # Errors
/// It can be neither read nor made.
pub fn cluster_id(dir: &Path) -> Result<String, StateError> {
    if let Some(id) = known_cluster_id(dir)? {
        return Ok(id);
    }
    let mut random = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
    read.map_err(StateError::io("read", Path::new("/dev/urandom")))?;
    let id = format!("{MADE}{:032x}", u128::from_be_bytes(random));
    // The second time leaves the first as a copy.
    for _ in 0..2 {
        replace(&folder(dir), CLUSTER, format!("{id}\n").as_bytes())?;
    }
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
