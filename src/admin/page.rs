//! The page, for the admin port and for whoever shows several nodes on one.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

use crate::types::NodeState;

/// Draws `/state.json`; asks for nothing else, from nowhere else.
const PAGE: &str = include_str!("page.html");
/// What the page may do, told to the browser.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub(super) async fn page() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

/// What is known of several nodes, or why nothing is.
pub type Nodes = Result<Vec<NodeState>, String>;

/// An opened port for the page of several nodes.
#[derive(Debug)]
pub struct PagePort(TcpListener);

impl PagePort {
    /// Opens it.
    ///
    /// # Errors
    /// The address is taken or may not be used.
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where it is, for port 0.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves `/`, and `/state.json` as `{"nodes": […]}`, until dropped.
    ///
    /// # Errors
    /// None in practice: accepting is tried for ever.
    pub async fn serve(self, nodes: watch::Receiver<Arc<Nodes>>) -> std::io::Result<()> {
        let router = Router::new().route("/", get(page)).route("/state.json", get(states));
        axum::serve(self.0, router.with_state(nodes)).await
    }
}

async fn states(State(nodes): State<watch::Receiver<Arc<Nodes>>>) -> Response {
    match &**nodes.borrow() {
        Ok(nodes) => Json(json!({ "nodes": nodes })).into_response(),
        Err(problem) => (StatusCode::BAD_GATEWAY, problem.clone()).into_response(),
    }
}
