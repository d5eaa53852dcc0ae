//! Keys in Secrets, as peers and BFD profiles use them.

use std::collections::BTreeMap;

use ironcast_bgp::speaker::Md5Key;

use super::{
    Kind, ObjectKey,
    configuration::{Objects, warning},
};
use crate::{
    source::convert::{PeerDraft, ProfileDraft},
    types::{BfdProfile, Peer, Problem},
};

/// The last valid key of every Secret that is named. A Secret that is gone leaves a running session its key: deleted
/// by mistake, it must not cost the routes.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<ObjectKey, Md5Key>);

impl Keys {
    /// Takes what is new and forgets what nobody names any more.
    pub(super) fn update(&mut self, objects: &Objects) {
        let named = objects.named_secrets().filter_map(|secret| {
            let key = objects.secrets.value(secret).or_else(|| self.0.get(secret))?;
            Some((secret.clone(), key.clone()))
        });
        self.0 = named.collect();
    }

    /// Puts the keys that the draft names into the peer, or says which one it waits for.
    pub(super) fn give(
        &self,
        objects: &Objects,
        key: &ObjectKey,
        draft: &PeerDraft,
        peer: &mut Peer,
        problems: &mut Vec<Problem>,
    ) {
        let mut resolve = |field: String, secret: &ObjectKey| {
            let found = self.0.get(secret);
            if found.is_none() {
                peer.missing_secret = Some(secret.name.clone());
            }
            problems.extend(problem(objects, (Kind::BGPPeer, key), field, secret, found.is_some()));
            found
        };
        if let Some(secret) = &draft.secret {
            peer.password = resolve("spec.passwordSecret".into(), secret).cloned();
        }
        let ao = draft.ao.iter().enumerate();
        let keys = ao.filter_map(|(n, ao)| Some(ao.with(resolve(format!("spec.tcpAO[{n}].secret"), &ao.secret)?)));
        let keys = keys.collect();
        peer.ao_keys = keys;
    }

    /// The profile with its key; as it was `before`, or none, where that cannot be had: to go on without would be to
    /// trust strangers.
    pub(super) fn profile(
        &self,
        objects: &Objects,
        key: &ObjectKey,
        draft: &ProfileDraft,
        before: Option<&BfdProfile>,
        problems: &mut Vec<Problem>,
    ) -> Option<BfdProfile> {
        const FIELD: &str = "spec.authentication.secret";
        let Some(auth) = &draft.auth else { return Some(draft.profile.clone()) };
        let found = self.0.get(&auth.secret);
        problems.extend(problem(objects, (Kind::BFDProfile, key), FIELD.into(), &auth.secret, found.is_some()));
        match auth.with(found?) {
            Ok(auth) => Some(BfdProfile { auth: Some(auth), ..draft.profile.clone() }),
            Err(error) => {
                let message = format!("{}: {error}", auth.secret.reference(Kind::Secret));
                let hint = "put a shorter key there and at the router; until then nothing changes";
                problems.push(warning(Kind::BFDProfile, key, FIELD.into(), message, hint));
                before.cloned()
            }
        }
    }
}

/// What there is to say of a Secret that is not there.
fn problem(
    objects: &Objects,
    (kind, key): (Kind, &ObjectKey),
    field: String,
    secret: &ObjectKey,
    known: bool,
) -> Option<Problem> {
    if objects.secrets.value(secret).is_some() {
        return None;
    }
    let what = secret.reference(Kind::Secret);
    let (message, hint) = match known {
        true => (format!("{what} is gone or invalid; its last key stays in use"), "create it again"),
        false => (
            format!("there is no valid {what}"),
            "the session waits for it; create it with type kubernetes.io/basic-auth and the key under password",
        ),
    };
    Some(warning(kind, key, field, message, hint))
}
