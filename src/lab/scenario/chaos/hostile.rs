//! Somebody on the wire who means harm, or a router that has gone mad: garbage to every open port of a node, and garbage
//! in sessions that began well.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::schedule::Chance;
use crate::lab::{netns::Namespace, pod, site::ROUTER_ASN};

const BGP: u16 = 179;
/// BFD, its echo, multihop BFD; what nodes send each other.
const DATAGRAMS: [u16; 4] = [3784, 3785, 4784, 6085];
const CONNECTS_WITHIN: Duration = Duration::from_millis(500);
/// For an answer that may not come.
const LISTENS: Duration = Duration::from_millis(50);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const KEEPALIVE: u8 = 4;
/// No message is longer (RFC 4271 §4.1); some of these are.
const LONGEST: usize = 4200;

/// Garbage from these namespaces to every open port of these addresses, for so long; how many connections were taken.
///
/// # Errors
/// A namespace cannot be entered.
pub(super) async fn besiege(from: [&Namespace; 2], to: [IpAddr; 2], seed: u64, lasts: Duration) -> anyhow::Result<u64> {
    let until = Instant::now() + lasts;
    let mut taken = 0;
    let camps = [from[0].runtime()?, from[1].runtime()?];
    let attacks = [camps[0].spawn(attack(to, Chance(seed), until)), camps[1].spawn(attack(to, Chance(!seed), until))];
    for attack in attacks {
        taken += attack.await?;
    }
    Ok(taken)
}

async fn attack(to: [IpAddr; 2], mut chance: Chance, until: Instant) -> u64 {
    let mut taken = 0;
    while Instant::now() < until {
        for ip in to {
            if let Ok(Ok(stream)) = timeout(CONNECTS_WITHIN, TcpStream::connect((ip, BGP))).await {
                taken += 1;
                say(stream, &garbage(&mut chance)).await;
            }
            for port in DATAGRAMS {
                shout(SocketAddr::new(ip, port), &noise(&mut chance, 200)).await;
            }
        }
        sleep(PAUSE).await;
    }
    taken
}

/// Whatever comes of it.
async fn say(mut stream: TcpStream, words: &[u8]) {
    let _ = stream.write_all(words).await;
    let _ = timeout(LISTENS, stream.read(&mut [0; 64])).await;
}

async fn shout(to: SocketAddr, words: &[u8]) {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    if let Ok(socket) = UdpSocket::bind(any).await {
        let _ = socket.send_to(words, to).await;
    }
}

/// In a router's place, for so long: sessions that begin as they should and go on with garbage; how many began.
///
/// # Errors
/// The port cannot be opened.
pub(super) async fn answer(place: &Namespace, seed: u64, lasts: Duration) -> anyhow::Result<u64> {
    let inside = place.runtime()?;
    let all = inside.spawn(async move {
        let listener = pod::listen(BGP).context("open port 179 in the router's place")?;
        let (mut chance, mut sessions, mut begun) = (Chance(seed), JoinSet::new(), 0);
        let accepting = async {
            while let Ok((stream, _)) = listener.accept().await {
                begun += 1;
                sessions.spawn(go_mad(stream, Chance(chance.next())));
            }
        };
        let _ = timeout(lasts, accepting).await;
        anyhow::Ok(begun)
    });
    all.await?
}

async fn go_mad(mut stream: TcpStream, mut chance: Chance) -> Option<()> {
    let mut heard = [0; 4096];
    if stream.read(&mut heard).await.ok()? == 0 {
        return None;
    }
    stream.write_all(&open(ROUTER_ASN)).await.ok()?;
    stream.write_all(&message(KEEPALIVE, &[])).await.ok()?;
    sleep(LISTENS).await;
    loop {
        stream.write_all(&garbage(&mut chance)).await.ok()?;
        let read = timeout(LISTENS, stream.read(&mut heard)).await;
        // Told what is wrong, the other end closes.
        if matches!(read, Ok(Ok(0) | Err(_))) {
            return None;
        }
    }
}

/// From octets without any sense to messages that are almost right.
fn garbage(chance: &mut Chance) -> Vec<u8> {
    let body = noise(chance, LONGEST);
    match chance.below(7) {
        0 => body,
        1 => message(chance.next() as u8, &body),
        2 => message(UPDATE, &body),
        // Another AS, or an OPEN that ends too early.
        3 => open(1 + chance.next() as u32 % 60_000),
        4 => open(ROUTER_ASN)[..19 + chance.below(10)].to_vec(),
        // The length does not say how long it is.
        5 => [[0xff; 16].as_slice(), &(chance.next() as u16).to_be_bytes(), &[UPDATE], &body].concat(),
        // No prefix withdrawn, and attributes of any kind.
        _ => {
            let length = (body.len() as u16).to_be_bytes();
            message(UPDATE, &[[0, 0].as_slice(), &length, &body].concat())
        }
    }
}

fn noise(chance: &mut Chance, longest: usize) -> Vec<u8> {
    (0..chance.below(longest)).map(|_| chance.next() as u8).collect()
}

/// RFC 4271 §4.1.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = ((19 + body.len()) as u16).to_be_bytes();
    [[0xff; 16].as_slice(), &length, &[kind], body].concat()
}

/// RFC 4271 §4.2, without capabilities.
fn open(asn: u32) -> Vec<u8> {
    let asn = (asn as u16).to_be_bytes();
    message(OPEN, &[[4].as_slice(), &asn, &90_u16.to_be_bytes(), &[10, 255, 0, 1], &[0]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_of_every_kind_and_the_same_for_the_same_seed() {
        let all = |seed| {
            let mut chance = Chance(seed);
            (0..200).map(|_| garbage(&mut chance)).collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        let messages = all(1);
        assert!(messages.iter().any(|m| m.len() > 18 && m[..16] == [0xff; 16] && m[18] == OPEN));
        assert!(messages.iter().any(|m| m.len() > 18 && m[..16] == [0xff; 16] && m[18] == UPDATE));
        assert!(messages.iter().any(|m| m.len() > 18 && m[..16] != [0xff; 16]));
    }
}
