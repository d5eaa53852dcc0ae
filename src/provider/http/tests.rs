//! Errors in every form that vendors use, times to wait, secrets, and the way through a proxy.

use std::time::UNIX_EPOCH;

use hyper::header::RETRY_AFTER;
use ironcast_emulator::{Emulator, Server, packet::Packet};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::{
    pace::{WAIT_LIMIT, until},
    *,
};

#[test]
fn errors_are_read_in_every_form() {
    for (body, said) in [
        (r#"{"error":"not here"}"#, "not here"),
        (r#"{"errors":["a","b"]}"#, "a; b"),
        (r#"{"code":400,"message":"no stock"}"#, "no stock"),
        (
            r#"{"errors":[{"status":"422","title":"Error","detail":"project does not exist"}]}"#,
            "project does not exist",
        ),
        (r#"{"detail":"No such object"}"#, "No such object"),
        (r#"{"other":1}"#, r#"{"other":1}"#),
        ("<html><h1>Bad gateway</h1></html>", ""),
        ("plain words\n", "plain words"),
        ("", ""),
    ] {
        assert_eq!(spoken(body.as_bytes()), said, "{body}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
    let wait = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().expect("a header"));
        retry_after(&headers, now)
    };
    assert_eq!(wait("120"), Some(Duration::from_secs(120)));
    // The date of RFC 9110 §5.6.7, seven seconds later; one that has passed is now.
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
    assert_eq!(wait("Sun, 06 Nov 1994 08:49:20 GMT"), Some(Duration::ZERO));
    assert_eq!(wait("soon"), None);
    // More than anybody may ask for: added to a time it would be none.
    assert_eq!(wait("18446744073709551615"), Some(WAIT_LIMIT));
    assert_eq!(wait("Thu, 01 Jan 9998 00:00:00 GMT"), Some(WAIT_LIMIT));
    assert_eq!(until(u64::MAX, now), WAIT_LIMIT);
}

#[test]
fn pauses_are_spread_over_half_their_length() {
    let spread: Vec<_> = (0..200).map(|_| jitter()).collect();
    assert!(spread.iter().all(|factor| (0.75..1.25).contains(factor)));
    let (least, most) = spread.iter().fold((2.0_f64, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
    assert!(most - least > 0.2, "{least} to {most}");
}

#[test]
fn everything_but_unreserved_characters_is_encoded() {
    assert_eq!(encode("a-Z.0_~/?&=% é"), "a-Z.0_~%2F%3F%26%3D%25%20%C3%A9");
}

#[test]
fn a_secret_is_never_shown_and_has_no_white_space_around_it() {
    let secret = Secret::new("hush-hush\n");
    assert_eq!(secret.expose(), "hush-hush");
    let auth = [Auth::Bearer(secret.clone()), Auth::Token(secret.clone()), Auth::Header("x", secret.clone())];
    assert!(!format!("{secret:?} {auth:?}").contains("hush"));
    assert_eq!(secret.hide_in("token hush-hush is wrong"), "token … is wrong");
}

#[test]
fn only_urls_with_scheme_and_host_are_base_urls() {
    for bad in ["", "api.example.com/v1", "ftp://api.example.com", "https://", "http://a b"] {
        assert!(matches!(Http::new(bad, Auth::None), Err(SetupError::Url(_))), "{bad}");
    }
}

#[tokio::test]
async fn a_provider_that_repeats_the_token_does_not_bring_it_into_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let (mut stream, mut line) = (BufReader::new(stream), String::new());
        while stream.read_line(&mut line).await.expect("a request") > 2 {
            line.clear();
        }
        let body = r#"{"error":"hush-hush may not do this"}"#;
        let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("an answer");
    });
    let http = Http::new(&url, Auth::Bearer(Secret::new("hush-hush"))).expect("a client");
    let failed = http.send(&Call::get("/")).await.expect_err("a refusal");
    assert_eq!(failed.error, SourceError::Unauthorized("… may not do this".into()));
}

/// A proxy that knows CONNECT: sends back the first line that each client sent.
async fn proxy(listener: TcpListener, seen: tokio::sync::mpsc::UnboundedSender<String>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut client = BufReader::new(client);
        let (mut first, mut line) = (String::new(), String::new());
        while client.read_line(&mut line).await.is_ok_and(|n| n > 2) {
            if first.is_empty() {
                first.clone_from(&line);
            }
            line.clear();
        }
        let to = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let _ = seen.send(first);
        if let Ok(mut server) = TcpStream::connect(to).await {
            let _ = client.get_mut().write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let _ = copy_bidirectional(client.get_mut(), &mut server).await;
        }
    }
}

#[tokio::test]
async fn a_proxy_is_used_where_the_environment_names_one_and_not_for_exceptions() {
    let server = Server::on_loopback(Emulator::new(Packet::new("p"), &["t"])).await.expect("a server");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let named = format!("http://{}", listener.local_addr().expect("an address"));
    let (seen, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let task = tokio::spawn(proxy(listener, seen));
    let auth = || Auth::Header("x-auth-token", Secret::new("t"));
    let proxied = Matcher::builder().all(named.as_str()).build();
    let http = Http::through(&proxied, &server.url(), auth()).expect("a client");
    assert_eq!(http.send(&Call::get("/projects/p")).await.expect("an answer").body["id"], json!("p"));
    assert_eq!(lines.recv().await, Some(format!("CONNECT {} HTTP/1.1\r\n", server.address())));
    let excepted = Matcher::builder().all(named.as_str()).no("127.0.0.1").build();
    let http = Http::through(&excepted, &server.url(), auth()).expect("a client");
    http.send(&Call::get("/projects/p")).await.expect("an answer");
    assert!(lines.try_recv().is_err());
    task.abort();
}
