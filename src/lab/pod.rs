//! The hidden `ironcast lab-pod`: answers every request with its name and with whom it saw; on the echo ports
//! it says its name and then everything that it hears.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use axum::{Router, extract::ConnectInfo};
use socket2::{Domain, Socket, Type};
use tokio::{io::AsyncWriteExt, net::UdpSocket};

use super::{args::PodArgs, site::ECHO_PORTS};

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
    let [one, other] = ECHO_PORTS.map(|port| listen(port).with_context(|| format!("open port {port}")));
    let (one, other) = (echoing(one?, &args.name), echoing(other?, &args.name));
    let datagrams = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORTS[0])).await.context("open the UDP port")?;
    give_room(&datagrams)?;
    tokio::try_join!(axum::serve(listener, app).into_future(), one, other, returning(datagrams)).context("serve")?;
    Ok(())
}

async fn echoing(listener: tokio::net::TcpListener, name: &str) -> std::io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let greeting = format!("{name}\n");
        tokio::spawn(async move {
            stream.write_all(greeting.as_bytes()).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await
        });
    }
}

async fn returning(socket: UdpSocket) -> std::io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error about an earlier one shows here and is nobody's business.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..length], from).await;
        }
    }
}

/// A process that waits for its turn on a busy machine loses no datagram meanwhile: that would say nothing of the packet
/// path.
///
/// # Errors
/// The kernel refused.
pub(super) fn give_room(socket: &UdpSocket) -> std::io::Result<()> {
    const OCTETS: usize = 8 << 20;
    Ok(rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, OCTETS)?)
}

/// Both families on one socket, whatever the host's default is.
pub(super) fn listen(port: u16) -> std::io::Result<tokio::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM.nonblocking(), None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}
