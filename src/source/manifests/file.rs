//! One file: whether it changed, and what it holds.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;

use super::{
    decode::{Decoded, decode},
    document::documents,
};
use crate::{
    source::index::{Kind, Object, ObjectKey},
    types::{ObjectRef, Problem, Severity},
};

/// A file that changed less than this ago may change again without another time stamp.
const RECENT: Duration = Duration::from_secs(2);

/// More than ten thousand Services; as much again is needed to read it.
const LIMIT: u64 = 64 << 20;

/// What an object is called.
pub(super) type Identity = (Kind, ObjectKey);

/// Times of change, number and size: two equal ones are the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    length: u64,
}

/// `None` for a file that cannot be looked at, or changed just now.
pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    let age = SystemTime::now().duration_since(metadata.modified().ok()?).ok()?;
    (age >= RECENT).then(|| Stamp {
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
        length: metadata.len(),
    })
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its objects, or why one cannot be read.
    pub(super) objects: BTreeMap<Identity, Result<Object, Problem>>,
    /// What is wrong with the file, or may surprise in its objects.
    pub(super) problems: Vec<Problem>,
    /// Some of it could not be read: which objects it holds is not known.
    pub(super) incomplete: bool,
}

/// Reads it; what cannot be read is a problem of the file.
pub(super) fn read(path: &Path) -> Content {
    let file = file_name(path);
    let mut content = Content::default();
    let text = match text(path) {
        Ok(text) => text,
        Err(error) => {
            content.broken(&file, format!("cannot be read: {error}"), "make it a readable text file");
            return content;
        }
    };
    for document in documents(&text, path.extension().is_some_and(|extension| extension == "json")) {
        match document {
            Ok(value) => content.add(value, &file),
            Err(error) => {
                content.broken(&file, format!("line {}: {}", error.line, error.message), "correct the document")
            }
        }
    }
    content
}

/// The text of a file. A pipe would be waited for, and a device has no end.
fn text(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    file.take(LIMIT + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LIMIT {
        true => Err(io::Error::other(format!("it has more than {} MiB", LIMIT >> 20))),
        false => Ok(text),
    }
}

/// The name alone: every file is in the one folder.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).display().to_string()
}

impl Content {
    fn broken(&mut self, file: &str, message: String, hint: &str) {
        self.incomplete = true;
        self.problems.push(Problem {
            object: ObjectRef::new("File", "", file),
            field: String::new(),
            message,
            hint: format!("{hint}; what it held before, if anything, stays in use"),
            severity: Severity::Error,
            file: None,
        });
    }

    fn add(&mut self, value: serde_json::Value, file: &str) {
        let here = |problem: Problem| Problem { file: Some(file.to_owned()), ..problem };
        let (identity, object) = match decode(value) {
            Decoded::Object(object, problems) => {
                self.problems.extend(problems.into_iter().map(here));
                ((object.kind(), object.key()), Ok(object))
            }
            Decoded::Rejected(kind, key, problem) => ((kind, key), Err(problem)),
            Decoded::Other(problem) => {
                // It may be meant for an object that is known.
                self.incomplete |= problem.as_ref().is_some_and(|problem| problem.severity == Severity::Error);
                return self.problems.extend(problem.map(here));
            }
        };
        let reference = identity.1.reference(identity.0);
        if self.objects.insert(identity, object).is_some() {
            self.problems.push(here(Problem {
                object: reference,
                field: String::new(),
                message: "stands twice in the file; the last one counts".into(),
                hint: "remove one of the two".into(),
                severity: Severity::Warning,
                file: None,
            }));
        }
    }
}
