//! The forms of our own files: every JSON file begins with the version of its form. A field that is added keeps the
//! version, since older programs pass over it; what an older program would misread raises it.

use serde::{Deserialize, de::DeserializeOwned};

/// A file of ours that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is torn, or edited badly.
    #[error("damaged")]
    Damaged(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("of version {found}, this program reads {known}")]
    Version {
        /// What it says.
        found: u64,
        /// The latest that is known.
        known: u64,
    },
}

/// Files of before there were versions are of the first.
#[derive(Deserialize)]
struct Head {
    #[serde(default = "first")]
    version: u64,
}

/// The version of files that say none.
pub fn first() -> u64 {
    1
}

/// Reads the text of a file, its version first: a later form is told from a damaged one.
///
/// # Errors
/// It is of a later version than `known`, or not of its form.
pub fn read<T: DeserializeOwned>(text: &[u8], known: u64) -> Result<T, Unreadable> {
    let Head { version: found } = serde_json::from_slice(text)?;
    if found > known {
        return Err(Unreadable::Version { found, known });
    }
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Form {
        a: u8,
    }

    #[test]
    fn version_comes_before_the_form_and_what_is_unknown_is_passed_over() {
        let read = |text: &str| read::<Form>(text.as_bytes(), 2);
        assert_eq!(read(r#"{"a": 1}"#).expect("without a version"), Form { a: 1 });
        assert_eq!(read(r#"{"version": 2, "a": 1, "b": {"c": []}}"#).expect("with more than is known"), Form { a: 1 });
        let later = read(r#"{"version": 3, "z": 1}"#).expect_err("of the future");
        assert_eq!(later.to_string(), "of version 3, this program reads 2");
        for damaged in ["", "{", "null", "[]", r#"{"version": -1, "a": 1}"#, r#"{"version": 2}"#, r#"{"a": 1}x"#] {
            assert!(matches!(read(damaged), Err(Unreadable::Damaged(_))), "{damaged}");
        }
    }
}
