//! Rights that the daemon's account lacks. Trying again goes on, but only a person can help: each is said aloud once.

use std::collections::BTreeSet;

use tracing::warn;

/// What was said already.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    told: BTreeSet<String>,
}

impl Rights {
    /// Says what the account may not do, where that is why a request failed.
    pub(crate) fn complain(&mut self, error: &kube::Error) {
        let kube::Error::Api(status) = error else { return };
        if status.code != 403 {
            return;
        }
        // `services "web" is forbidden: User "…" cannot patch resource …`: the same for every object.
        let what = status.message.split_once(" is forbidden: ").map_or(&*status.message, |(_, what)| what);
        if self.told.insert(what.to_owned()) {
            warn!(error = %what, "a right is missing: give the account what deploy/manifests has");
        }
    }

    /// A request went through: what is refused from now on is news.
    pub(crate) fn forget(&mut self) {
        self.told.clear();
    }
}
