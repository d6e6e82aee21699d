//! An OpenAI-compatible endpoint over HTTP/2 and TLS whose streams never end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Version, header};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The size of a comment in an endless stream, in bytes.
const COMMENT: usize = 64 << 10;

/// The endpoint. Requests with the API key `endless` get a stream that sends one chunk and then comments for as long as
/// the client reads; all others get a short answer.
pub struct Http2Model {
    address: SocketAddr,
    /// The certificate of `localhost`, in PEM.
    pub certificate: String,
    sent: Arc<AtomicUsize>,
}

impl Http2Model {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));

        let sent = Arc::<AtomicUsize>::default();
        let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(sent.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    let service = TowerToHyperService::new(router);
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Self { address, certificate: cert.pem(), sent }
    }

    /// The address, for `api_base` of a completion.
    pub fn api_base(&self) -> String {
        format!("https://localhost:{}/v1", self.address.port())
    }

    /// The number of bytes that endless streams have sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

async fn complete(State(sent): State<Arc<AtomicUsize>>, version: Version, headers: HeaderMap) -> Response {
    assert_eq!(version, Version::HTTP_2);
    let chunk = |text: &str, reason: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let events = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    if headers[header::AUTHORIZATION] != "Bearer endless" {
        let body = chunk("Once", "null") + &chunk(" upon", "\"stop\"") + "data: [DONE]\n\n";
        return events.body(Body::from(body)).unwrap();
    }
    let first = stream::iter([Bytes::from(chunk("Once", "null"))]);
    let comment = Bytes::from(format!(":{}\n\n", "x".repeat(COMMENT)));
    let comments = stream::repeat(comment).inspect(move |comment| {
        sent.fetch_add(comment.len(), Ordering::SeqCst);
    });
    events.body(Body::from_stream(first.chain(comments).map(Ok::<_, Infallible>))).unwrap()
}
