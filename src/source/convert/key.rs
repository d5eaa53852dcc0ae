//! Keys: in the clear, or in Secrets that peers and BFD profiles name.

use ironcast_bgp::speaker::{AoAlgorithm, AoKey, Md5Key};
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;

use super::{Converted, report::Report};
use crate::source::{
    api::{BGPPeer, BGPPeerSpec, SecretReference, TcpAoAlgorithm},
    index::ObjectKey,
};

/// Octets of a key for TCP, at most: Linux takes no more (`TCP_MD5SIG_MAXKEYLEN`, `TCP_AO_MAXKEYLEN`).
const KEY_MAX: usize = 80;

/// A TCP-AO key whose Secret is not resolved yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoDraft {
    send_id: u8,
    receive_id: u8,
    algorithm: AoAlgorithm,
    /// Where the key is.
    pub secret: ObjectKey,
}

impl AoDraft {
    /// With the value of its Secret.
    pub fn with(&self, key: &Md5Key) -> AoKey {
        let Self { send_id, receive_id, algorithm, secret: _ } = *self;
        AoKey { send_id, receive_id, algorithm, key: key.0.clone() }
    }
}

/// The Secret that an object names; in the object's namespace where it says none.
pub(super) fn secret<K: Resource>(object: &K, reference: &SecretReference) -> ObjectKey {
    let own = object.meta().namespace.clone().unwrap_or_default();
    ObjectKey::new(reference.namespace.clone().unwrap_or(own), reference.name.clone())
}

/// `password`.
pub(super) fn password(report: &mut Report, spec: &BGPPeerSpec) -> Option<Md5Key> {
    let text = spec.password.as_deref()?;
    if spec.password_secret.is_some() {
        report.error("spec.password", "is set beside passwordSecret", "keep passwordSecret");
    }
    report.take("spec.password", key(text.as_bytes()), "use 1 to 80 octets, the same as on the router")
}

/// `tcpAO`.
pub(super) fn tcp_ao(report: &mut Report, object: &BGPPeer) -> Vec<AoDraft> {
    let spec = &object.spec;
    if !spec.tcp_ao.is_empty() && (spec.password.is_some() || spec.password_secret.is_some()) {
        report.error("spec.tcpAO", "is set beside a password", "keep one of the two, the same as the router has");
    }
    let mut keys: Vec<AoDraft> = Vec::new();
    for (n, given) in spec.tcp_ao.iter().enumerate() {
        let ids = [("sendID", given.send_id), ("receiveID", given.receive_id)];
        for (field, id) in ids {
            let same = |other: &AoDraft| id == if field == "sendID" { other.send_id } else { other.receive_id };
            if keys.iter().any(same) {
                let hint = "give each key of the peer ids of its own, the same as at the router";
                report.error(format!("spec.tcpAO[{n}].{field}"), format!("{id} is there twice"), hint);
            }
        }
        keys.push(AoDraft {
            send_id: given.send_id,
            receive_id: given.receive_id,
            algorithm: match given.algorithm {
                TcpAoAlgorithm::HmacSha1 => AoAlgorithm::HmacSha1,
                TcpAoAlgorithm::Aes128Cmac => AoAlgorithm::AesCmac,
            },
            secret: secret(object, &given.secret),
        });
    }
    keys
}

fn key(octets: &[u8]) -> Result<Md5Key, String> {
    match octets.len() {
        1..=KEY_MAX => Ok(Md5Key(octets.into())),
        0 => Err("is empty".into()),
        n => Err(format!("is {n} octets long, the kernel takes {KEY_MAX}")),
    }
}

/// The key in a Secret of type kubernetes.io/basic-auth, under `password` (in manifests also from `stringData`). Its
/// value is in no message.
pub fn secret_password(object: &Secret) -> Converted<Md5Key> {
    const TYPE: &str = "kubernetes.io/basic-auth";
    let mut report = Report::new(object);
    let kind = object.type_.as_deref().unwrap_or("Opaque");
    if kind != TYPE {
        report.error("type", format!("is {kind}"), format!("a peer's key must be in a Secret of type {TYPE}"));
    }
    let text = object.string_data.as_ref().and_then(|data| data.get("password")).map(|s| s.as_bytes());
    let octets = text.or_else(|| object.data.as_ref()?.get("password").map(|b| b.0.as_slice()));
    let value = match octets {
        None => {
            report.error("data.password", "is missing", "put the key there, the same as on the router");
            None
        }
        Some(octets) => report.take("data.password", key(octets), "use 1 to 80 octets, the same as on the router"),
    };
    report.finish(value)
}
