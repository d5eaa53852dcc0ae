//! Something that must not be seen.

use std::{fmt, sync::Arc};

/// A token or password. `Debug` shows nothing of it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// From what a Secret object holds; white space around it (a newline, most often) is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// The secret itself, for the header that needs it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// A text without the secret.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&*self.0, "…") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
