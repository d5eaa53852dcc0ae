//! Connections: TLS with the system's or the environment's CAs, directly or through a proxy.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::{Uri, header::HeaderValue};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::net::TcpStream;
use tower_service::Service;

use super::SetupError;

/// What the client connects with.
pub(super) type Connector = HttpsConnector<Dial>;

/// TCP to the host or through a proxy's tunnel.
#[derive(Clone)]
pub(super) enum Dial {
    Direct(HttpConnector),
    Tunnel(Tunnel<HttpConnector>),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(connector) => connector.poll_ready(cx).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(cx).map_err(Into::into),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        match self {
            Self::Direct(connector) => {
                let dialling = connector.call(to);
                Box::pin(async move { dialling.await.map_err(Into::into) })
            }
            Self::Tunnel(tunnel) => {
                let dialling = tunnel.call(to);
                Box::pin(async move { dialling.await.map_err(Into::into) })
            }
        }
    }
}

/// Connections to one host, directly or through the proxy that is meant for it.
///
/// # Errors
/// TLS is needed and there is no CA to trust.
pub(super) fn connector(base: &Uri, proxies: &Matcher) -> Result<Connector, SetupError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let dial = match proxies.intercept(base) {
        None => Dial::Direct(http),
        Some(proxy) => {
            let tunnel = Tunnel::new(proxy.uri().clone(), http);
            let auth: Option<HeaderValue> = proxy.basic_auth().cloned();
            Dial::Tunnel(match auth {
                Some(auth) => tunnel.with_auth(auth),
                None => tunnel,
            })
        }
    };
    let tls = tls(base.scheme_str() == Some("https"))?;
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(dial))
}

/// Trusts `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set, the system's store otherwise.
fn tls(needed: bool) -> Result<ClientConfig, SetupError> {
    let mut roots = RootCertStore::empty();
    if needed {
        let found = rustls_native_certs::load_native_certs();
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(SetupError::NoRoots(errors.join("; ")));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| SetupError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
