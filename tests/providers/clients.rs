//! Clients of others, unchanged, against the emulator.

use std::net::Ipv4Addr;

use ironcast_emulator::{
    Emulator, Server,
    packet::{Device, Packet},
};
use serde_json::json;

use crate::judge::{Prism, figure, python, reached, specification};

pub(crate) const PROJECT: &str = "93125c2a-8b78-4d4f-a3c4-7367d6b7cca8";
pub(crate) const TOKEN: &str = "a-token-that-nobody-may-see";

/// An emulator of Packet with one device, and the device's id.
pub(crate) async fn metal(change: impl FnOnce(&mut Packet)) -> (Server, String) {
    let mut packet = Packet::new(PROJECT);
    let mut device = Device::new("node-1", Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 66, 0, 0));
    device.public_ipv6 = Some(("2001:db8:ffff::3".parse().unwrap(), "2001:db8:ffff::2".parse().unwrap()));
    let id = packet.add(device);
    change(&mut packet);
    (Server::on_loopback(Emulator::new(packet, &[TOKEN])).await.unwrap(), id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vendors_generated_client_works_through_prism() {
    let Some(specification) = specification("packet.openapi.yaml") else { return };
    let (server, device) = metal(|_| {}).await;
    let Some(prism) = Prism::start(&specification, &server.url()).await else { return };
    let url = prism.url();
    let done = tokio::task::spawn_blocking(move || python("metal_client.py", &[&url, TOKEN, PROJECT, &device])).await;
    assert_eq!(done.unwrap().as_deref(), Some("ok\n"));
    assert_eq!(prism.accepted(), reached(&server));
    figure("equinix-metal (Python), packet.openapi.yaml", prism.accepted());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apache_libcloud_works_unchanged() {
    let (server, _) = metal(|_| {}).await;
    let enable = json!({ "deployment_type": "local", "asn": 65000 });
    let path = format!("/projects/{PROJECT}/bgp-configs");
    let request = ironcast_emulator::Request::new("POST", &path, enable).header("X-Auth-Token", TOKEN);
    server.emulator().exchange(std::time::Duration::ZERO, request);
    let address = server.address();
    let done = tokio::task::spawn_blocking(move || {
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        python("libcloud_client.py", &[&host, &port, TOKEN, PROJECT])
    });
    match done.await.unwrap() {
        None => {}
        Some(said) => assert_eq!(said, "ok\n"),
    }
    println!("apache-libcloud: {} requests answered", server.emulator().log().len());
}

/// The judge is one: it stops what the specification does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prism_objects_to_a_wrong_request() {
    let Some(specification) = specification("packet.openapi.yaml") else { return };
    let (server, _) = metal(|_| {}).await;
    let Some(prism) = Prism::start(&specification, &server.url()).await else { return };
    let client = post(&prism.url(), &format!("/projects/{PROJECT}/ips"), r#"{"quantity":1}"#).await;
    assert!(client.starts_with("HTTP/1.1 422"), "{client}");
    assert_eq!((prism.objections().len(), reached(&server)), (1, 0));
}

/// One POST by hand.
async fn post(url: &str, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {TOKEN}\r\nConnection: close\r\n");
    let request = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
