//! HTTP over a daemon's Unix socket, for those who ask it: `status`, `drain`, the lab.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::types::NodeState;

/// A daemon that does not answer within this is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than the state of 10,000 Services; a bound against a wrong socket.
const LARGEST_BODY: usize = 64 << 20;

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or we may not.
    #[error("connect to the daemon at {socket}; is `ironcast run` running on this node, and --socket right?")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It listens and says nothing.
    #[error("the daemon at {socket} did not answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// It does not speak HTTP as expected.
    #[error("talk to the daemon at {socket}: {problem}")]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// It answered with an error.
    #[error("the daemon at {socket} refused: {status}: {body}")]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        body: String,
    },
}

/// Sends one request without a body and gives back the body of a successful answer.
///
/// # Errors
/// The daemon cannot be reached, is silent for five seconds, or answers with a status other than 2xx.
pub async fn ask(socket: &Path, method: Method, path: &str) -> Result<Bytes, AskError> {
    tokio::time::timeout(PATIENCE, exchange(socket, method, path))
        .await
        .unwrap_or_else(|_| Err(AskError::Silent { socket: socket.into() }))
}

/// `GET /state.json`.
///
/// # Errors
/// As [`ask`], or the answer is not a node's state.
pub async fn state(socket: &Path) -> Result<NodeState, AskError> {
    question(socket, "/state.json").await
}

/// A question that has a JSON answer.
///
/// # Errors
/// As [`ask`], or the answer is not what was asked for.
pub async fn question<T: serde::de::DeserializeOwned>(socket: &Path, path: &str) -> Result<T, AskError> {
    let body = ask(socket, Method::GET, path).await?;
    serde_json::from_slice(&body)
        .map_err(|e| AskError::Protocol { socket: socket.into(), problem: format!("{path}: {e}") })
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<Bytes, AskError> {
    let protocol = |problem: String| AskError::Protocol { socket: socket.into(), problem };
    let stream =
        UnixStream::connect(socket).await.map_err(|source| AskError::Connect { socket: socket.into(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| protocol(e.to_string()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .map_err(|e| protocol(e.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| protocol(e.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_BODY).collect().await;
        let body = body.map_err(|e| protocol(e.to_string()))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body).trim().to_owned();
        Err(AskError::Refused { socket: socket.into(), status, body })
    };
    // The connection has to be polled while the answer is awaited, and says nothing itself.
    let driver = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = driver => never,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    async fn answered_with(answer: &'static str) -> Result<Bytes, AskError> {
        let folder = tempfile::tempdir().expect("temporary folder");
        let socket = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).expect("bind");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.expect("read");
            stream.write_all(answer.as_bytes()).await.expect("write");
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let body = ask(&socket, Method::GET, "/state.json").await;
        let request = server.await.expect("server");
        assert!(request.starts_with("GET /state.json HTTP/1.1"), "{request}");
        body
    }

    #[tokio::test]
    async fn body_of_a_successful_answer_is_given_back() {
        let body = answered_with("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.expect("answer");
        assert_eq!(&body[..], b"{}");
    }

    #[tokio::test]
    async fn refusal_carries_the_daemons_words() {
        let error = answered_with("HTTP/1.1 409 Conflict\r\ncontent-length: 8\r\n\r\ndraining").await.expect_err("409");
        assert!(matches!(&error, AskError::Refused { body, .. } if body == "draining"), "{error}");
    }

    #[tokio::test]
    async fn connection_closed_without_an_answer_is_an_error() {
        let error = answered_with("").await.expect_err("no answer");
        assert!(matches!(error, AskError::Protocol { .. }), "{error}");
    }

    #[tokio::test]
    async fn missing_socket_names_the_path_and_the_flag() {
        let error = ask(Path::new("/nonexistent/admin.sock"), Method::GET, "/").await.expect_err("missing");
        assert!(error.to_string().contains("/nonexistent/admin.sock") && error.to_string().contains("--socket"));
    }
}
