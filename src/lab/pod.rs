//! The hidden `ironcast lab-pod`: answers every request with its name and with whom it saw.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use axum::{Router, extract::ConnectInfo};
use socket2::{Domain, Socket, Type};

use super::args::PodArgs;

/// The header that carries the address that the pod saw as its client's.
pub(crate) const CLIENT_HEADER: &str = "x-lab-client";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Serves until it is ended.
///
/// # Errors
/// The port cannot be opened.
pub(crate) async fn serve(args: PodArgs) -> anyhow::Result<()> {
    let name: Arc<str> = format!("{}\n", args.name).into();
    let answer = move |ConnectInfo(from): ConnectInfo<SocketAddr>| {
        let client: IpAddr = from.ip().to_canonical();
        std::future::ready(([(CLIENT_HEADER, client.to_string())], name.to_string()))
    };
    let app = Router::new().fallback(answer).into_make_service_with_connect_info::<SocketAddr>();
    let listener = listen(args.port).with_context(|| format!("open port {}", args.port))?;
    axum::serve(listener, app).await.context("serve")
}

/// Both families on one socket, whatever the host's default is.
fn listen(port: u16) -> std::io::Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}
