//! One request and one answer, as a vendor sees them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::{Value, json};

/// A request, parsed.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST` …
    pub method: String,
    /// Path without the query, as sent.
    pub path: String,
    /// Query, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Headers by lower-case name; the last one wins.
    pub headers: BTreeMap<String, String>,
    /// JSON or form body; `Null` without one.
    pub body: Value,
    /// Who asks: the metadata service knows a node by its address.
    pub from: IpAddr,
}

impl Request {
    /// A request made in the process.
    pub fn new(method: &str, path_and_query: &str, body: Value) -> Self {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        Self {
            method: method.into(),
            path: path.into(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: BTreeMap::new(),
            body,
            from: Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_ascii_lowercase(), value.into());
        self
    }

    /// A query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A number in the query.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.query(name)?.parse().ok()
    }

    /// The token of `Authorization: Bearer …`.
    pub fn bearer(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }

    /// A field of the body as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.body.get(name)?.as_str()
    }

    /// The path's segments below a prefix; `None` when the path is not below it.
    pub fn below(&self, prefix: &str) -> Option<Vec<&str>> {
        let rest = self.path.strip_prefix(prefix)?;
        Some(rest.split('/').filter(|segment| !segment.is_empty()).collect())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers besides the content type.
    pub headers: Vec<(String, String)>,
    /// Content type; JSON:API has its own.
    pub content_type: &'static str,
    /// JSON body; `Null` is an empty one, a string under a type that is not JSON is sent as it stands.
    pub body: Value,
}

impl Answer {
    /// A JSON answer.
    pub fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), content_type: "application/json", body }
    }

    /// 204.
    pub fn no_content() -> Self {
        Self::json(204, Value::Null)
    }

    /// What a proxy in front of the API says when the API is away.
    pub fn html(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: "text/html",
            body: json!("<html><body><h1>Service temporarily unavailable</h1></body></html>"),
        }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// The bytes of the body.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Value::Null => Vec::new(),
            Value::String(text) if !self.content_type.contains("json") => text.clone().into_bytes(),
            body => body.to_string().into_bytes(),
        }
    }
}
