//! The sessions that a restart leaves to the next process, in a file of the state folder.

use std::{
    fs, io,
    net::IpAddr,
    num::{NonZeroU8, NonZeroU32},
    path::Path as File,
    time::{Duration, SystemTime},
};

use ironcast_bgp::{
    bfd::{Discriminator, Endpoint, Handover, Interval, Path},
    net::bfd::Legacy,
};
use serde::{Deserialize, Serialize};

use super::policy;
use crate::types::stored;

/// How long peers are patient: as long as routers keep the routes of a node that restarts.
pub(super) const WINDOW: Duration = policy::RESTART_TIME;

/// Of the file's form.
const VERSION: u64 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(default = "stored::first")]
    version: u64,
    /// Seconds of Unix time.
    written: u64,
    sessions: Vec<Session>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Session {
    peer: String,
    address: IpAddr,
    local: Option<IpAddr>,
    interface: Option<String>,
    /// Several hops.
    minimum_ttl: Option<u8>,
    source_port: u16,
    local_discr: NonZeroU32,
    remote_discr: NonZeroU32,
    remote_detect_mult: NonZeroU8,
    remote_desired_min_tx: u32,
    remote_required_min_rx: u32,
    interval_micros: u64,
}

/// Writes what is left.
pub(super) fn write(file: &File, left: &[Legacy], now: SystemTime) -> io::Result<()> {
    let record = Record { version: VERSION, written: seconds(now), sessions: left.iter().map(Session::from).collect() };
    fs::write(file, serde_json::to_vec(&record)?)
}

/// Takes what a predecessor left; nothing if there was none, if its peers have lost their patience since, or if the
/// file is damaged or of a later version.
pub(super) fn take(file: &File, now: SystemTime) -> Vec<Legacy> {
    let Ok(text) = fs::read(file) else { return Vec::new() };
    let _ = fs::remove_file(file);
    let record = match stored::read::<Record>(&text, VERSION) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(%error, path = %file.display(), "BFD sessions of a predecessor begin anew");
            return Vec::new();
        }
    };
    let age = seconds(now).checked_sub(record.written);
    if age.is_none_or(|age| age >= WINDOW.as_secs()) {
        return Vec::new();
    }
    record.sessions.into_iter().filter_map(|session| session.legacy()).collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl From<&Legacy> for Session {
    fn from(left: &Legacy) -> Self {
        let Legacy { peer, endpoint, source_port, handover } = left;
        let minimum_ttl = match endpoint.path {
            Path::SingleHop => None,
            Path::MultiHop { minimum_ttl } => Some(minimum_ttl),
        };
        Self {
            peer: peer.to_string(),
            address: endpoint.peer,
            local: endpoint.local,
            interface: endpoint.interface.clone(),
            minimum_ttl,
            source_port: *source_port,
            local_discr: handover.local_discr.0,
            remote_discr: handover.remote_discr.0,
            remote_detect_mult: handover.remote_detect_mult,
            remote_desired_min_tx: handover.remote_desired_min_tx,
            remote_required_min_rx: handover.remote_required_min_rx,
            interval_micros: handover.interval.micros().into(),
        }
    }
}

impl Session {
    fn legacy(self) -> Option<Legacy> {
        let path = self.minimum_ttl.map_or(Path::SingleHop, |minimum_ttl| Path::MultiHop { minimum_ttl });
        Some(Legacy {
            peer: policy::peer_id(&self.peer),
            endpoint: Endpoint { peer: self.address, local: self.local, interface: self.interface, path },
            source_port: self.source_port,
            handover: Handover {
                local_discr: Discriminator(self.local_discr),
                remote_discr: Discriminator(self.remote_discr),
                remote_detect_mult: self.remote_detect_mult,
                remote_desired_min_tx: self.remote_desired_min_tx,
                remote_required_min_rx: self.remote_required_min_rx,
                interval: Interval::new(Duration::from_micros(self.interval_micros)).ok()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(path: Path) -> Legacy {
        Legacy {
            peer: policy::peer_id("tor"),
            endpoint: Endpoint { peer: [192, 0, 2, 1].into(), local: None, interface: Some("eth0".into()), path },
            source_port: 50_000,
            handover: Handover {
                local_discr: Discriminator(NonZeroU32::MIN),
                remote_discr: Discriminator(NonZeroU32::MAX),
                remote_detect_mult: NonZeroU8::MIN,
                remote_desired_min_tx: 10_000,
                remote_required_min_rx: 20_000,
                interval: Interval::SLOW,
            },
        }
    }

    #[test]
    fn what_is_left_is_taken_once_and_only_while_peers_are_patient() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bfd.json");
        let all = [left(Path::SingleHop), left(Path::MultiHop { minimum_ttl: 60 })];
        let now = SystemTime::now();
        assert_eq!(take(&file, now), [], "nobody was here");
        write(&file, &all, now).expect("written");
        assert_eq!(take(&file, now + Duration::from_secs(5)), all);
        assert_eq!(take(&file, now), [], "taken");
        write(&file, &all, now).expect("written");
        assert_eq!(take(&file, now + WINDOW), [], "too late");
        write(&file, &all, now + Duration::from_secs(3600)).expect("written");
        assert_eq!(take(&file, now), [], "from the future");
        fs::write(&file, "{").expect("written");
        assert_eq!(take(&file, now), [], "damaged");
        assert!(!file.exists());
    }

    /// As the release before versions wrote it.
    const WITHOUT_VERSION: &str = r#"{"written":1000,"sessions":[{"peer":"tor","address":"192.0.2.1","local":null,
        "interface":"eth0","minimum_ttl":null,"source_port":50000,"local_discr":1,"remote_discr":4294967295,
        "remote_detect_mult":1,"remote_desired_min_tx":10000,"remote_required_min_rx":20000,"interval_micros":1000000}]}"#;

    #[test]
    fn file_without_a_version_is_read_and_one_of_a_later_version_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bfd.json");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1001);
        let read = |text: &str| {
            fs::write(&file, text).expect("written");
            take(&file, now)
        };
        assert_eq!(read(WITHOUT_VERSION), [left(Path::SingleHop)]);
        assert_eq!(read(&WITHOUT_VERSION.replacen('{', r#"{"version":2,"#, 1)), []);
    }

    #[test]
    fn no_damage_to_the_file_is_too_much() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bfd.json");
        let now = SystemTime::now();
        let all = [left(Path::SingleHop), left(Path::MultiHop { minimum_ttl: 60 })];
        write(&file, &all, now).expect("written");
        let whole = fs::read(&file).expect("there");
        let value: serde_json::Value = serde_json::from_slice(&whole).expect("JSON");
        let look = |text: &[u8]| {
            fs::write(&file, text).expect("written");
            let taken = take(&file, now).len();
            assert!(!file.exists());
            taken
        };
        assert!(crate::mutated::damaged(&whole).map(|text| look(&text)).max() == Some(2));
        crate::mutated::each(1, |damage| _ = look(damage.value(&value).to_string().as_bytes()));
    }
}
