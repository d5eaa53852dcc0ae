//! Collects what is wrong with one object.

use crate::{
    source::convert::Converted,
    types::{ObjectRef, Problem, Severity},
};

/// The problems of one object while it is converted.
#[derive(Debug)]
pub(super) struct Report {
    object: ObjectRef,
    problems: Vec<Problem>,
}

impl Report {
    /// For the object of this kind with this metadata.
    pub(super) fn new<K>(object: &K) -> Self
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let metadata = object.meta();
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let object = ObjectRef::new(&K::kind(&()), namespace.unwrap_or_default(), name.unwrap_or_default());
        Self { object, problems: Vec::new() }
    }

    /// The object is refused.
    pub(super) fn error(&mut self, field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Error, field.into(), message.into(), hint.into());
    }

    /// The object is used, but not as somebody may expect.
    pub(super) fn warn(&mut self, field: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, field.into(), message.into(), hint.into());
    }

    /// The value, or an error at this field.
    pub(super) fn take<T, E: std::fmt::Display>(&mut self, field: &str, result: Result<T, E>, hint: &str) -> Option<T> {
        result.map_err(|error| self.error(field, error.to_string(), hint)).ok()
    }

    /// Whether anything so far refuses the object.
    pub(super) fn refused(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// The value where nothing refuses it.
    pub(super) fn finish<T>(self, value: Option<T>) -> Converted<T> {
        let value = value.filter(|_| !self.refused());
        Converted { value, problems: self.problems }
    }

    /// The value even though something is wrong.
    pub(super) fn keep<T>(self, value: T) -> Converted<T> {
        Converted { value: Some(value), problems: self.problems }
    }

    fn push(&mut self, severity: Severity, field: String, message: String, hint: String) {
        let object = self.object.clone();
        self.problems.push(Problem { object, field, message, hint, severity, file: None });
    }
}
