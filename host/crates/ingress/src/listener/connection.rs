//! One connection, from the TLS handshake to the close.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::connection_activity::{ActivityStream, ConnectionActivity, Overdue};
use super::connection_table::ConnectionEntry;
use super::timed_body::TimedBody;
use super::{Listener, ListenerRules, Routes};
use modhost_config::ListenerLimits;

/// How long requests in flight have to finish when the host closes a connection.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Maximum number of concurrent streams of an HTTP/2 connection. A platform sends few at once, and each may hold body
/// bytes outside the budget.
const MAX_STREAMS: u32 = 32;

/// The number of headers that hyper parses without a heap allocation.
const HYPER_DEFAULT_HEADERS: usize = 100;

/// The first byte of a TLS handshake (RFC 8446, section 5.1: `handshake(22)`).
const HANDSHAKE: u8 = 22;

/// The response to plain HTTP on a TLS listener. The status is 503, not 4xx: a platform that is being switched to https
/// would mark the endpoint as expired after a 4xx.
const TLS_REQUIRED: &str = r#"{"success":false,"error":"this port requires TLS: the URL has to begin with https://"}"#;

/// How long the host waits for the client to read that response.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// An accepted connection.
pub(super) struct Connection {
    listener: Arc<Listener>,
    rules: Arc<ListenerRules>,
    place: ConnectionEntry,
    closing: CancellationToken,
}

/// Why the host closes a connection.
enum CloseReason {
    Closing,
    MakesRoom,
    Overdue(Overdue),
}

impl Connection {
    pub fn new(
        listener: Arc<Listener>,
        rules: Arc<ListenerRules>,
        place: ConnectionEntry,
        closing: CancellationToken,
    ) -> Self {
        Self { listener, rules, place, closing }
    }

    /// Serves the connection until it closes.
    pub async fn serve(self, stream: TcpStream, routes: Arc<Routes>) {
        match &self.rules.tls {
            None => self.serve_http(stream, routes).await,
            Some(config) => {
                let opened = tokio::select! {
                    opened = self.handshake(config.clone(), stream) => opened,
                    reason = self.reason() => return self.cut_off(&reason),
                };
                if let Some(stream) = opened {
                    self.serve_http(stream, routes).await;
                }
            }
        }
    }

    /// Performs the TLS handshake; returns `None` if it fails or the client doesn't speak TLS.
    async fn handshake(&self, config: Arc<ServerConfig>, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let client = self.place.address;
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => {
                if let Some(more) = self.listener.log_throttles.plain.now() {
                    tracing::warn!(%client, suppressed = more.suppressed(), "plain HTTP request to a TLS listener");
                }
                if let Err(error) = reject_plain_http(&mut stream, TLS_REQUIRED).await {
                    tracing::debug!(%client, %error, "cannot send the hint to use TLS");
                }
                return None;
            }
            _ => return None,
        }
        match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                if let Some(more) = self.listener.log_throttles.handshake.now() {
                    tracing::info!(%client, %error, suppressed = more.suppressed(), "TLS handshake failed");
                }
                None
            }
        }
    }

    async fn serve_http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, routes: Arc<Routes>) {
        let http = http(&self.rules.limits);
        let stream = TokioIo::new(ActivityStream::new(stream, self.place.activity.clone()));
        let service = RequestService {
            routes,
            peer: self.place.address,
            rules: self.rules.clone(),
            listener: self.listener.clone(),
            activity: self.place.activity.clone(),
        };
        let mut connection = pin!(http.serve_connection(stream, service));
        let reason = tokio::select! {
            biased;
            ended = connection.as_mut() => return self.log_end(ended),
            reason = self.reason() => reason,
        };
        match reason {
            CloseReason::Closing | CloseReason::Overdue(Overdue::Idle) => {
                // Requests in flight finish; an idle connection closes immediately.
                connection.as_mut().graceful_shutdown();
                if timeout(FINISH_WITHIN, connection).await.is_err() {
                    self.cut_off(&reason);
                }
            }
            CloseReason::MakesRoom | CloseReason::Overdue(Overdue::Head) => self.cut_off(&reason),
        }
    }

    /// Waits for a reason to close the connection.
    async fn reason(&self) -> CloseReason {
        let activity = &self.place.activity;
        tokio::select! {
            () = self.closing.cancelled() => CloseReason::Closing,
            () = activity.close_requested() => CloseReason::MakesRoom,
            overdue = activity.overdue(&self.rules.limits) => CloseReason::Overdue(overdue),
        }
    }

    fn cut_off(&self, reason: &CloseReason) {
        let why = match reason {
            CloseReason::Closing => "the host is shutting down",
            CloseReason::MakesRoom => "the connection limit is reached and this client kept the host waiting",
            CloseReason::Overdue(Overdue::Head) => "the head of a request took longer than `header_timeout`",
            CloseReason::Overdue(Overdue::Idle) => "the client did not read the response within `idle_timeout`",
        };
        tracing::debug!(client = %self.place.address, reason = %why, "connection closed by the host");
    }

    /// Logs the end of a connection that the host did not close.
    fn log_end(&self, ended: Result<(), Box<dyn Error + Send + Sync>>) {
        let Err(error) = ended else { return };
        let client = self.place.address;
        if error.downcast_ref().is_some_and(hyper::Error::is_parse_too_large) {
            if let Some(more) = self.listener.log_throttles.head.now() {
                tracing::warn!(
                    %client,
                    suppressed = more.suppressed(),
                    "request refused: more or larger headers than `max_headers` and `max_header_size` in [server.limits] allow"
                );
            }
        } else {
            tracing::debug!(%client, %error, "connection failed");
        }
    }
}

/// Returns the HTTP/1 and HTTP/2 settings. [`ConnectionActivity`] enforces the time limits, so hyper gets no timer.
/// Hyper's own limits (reset streams and the like) keep their defaults.
fn http(limits: &ListenerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(limits.max_header_size as usize);
    if limits.max_headers != HYPER_DEFAULT_HEADERS {
        builder.http1().max_headers(limits.max_headers);
    }
    builder.http2().max_concurrent_streams(MAX_STREAMS).max_header_list_size(limits.max_header_size);
    builder
}

/// Answers without reading the request, then drains the stream: closing a socket with unread data resets the
/// connection, and the client may not get the response.
async fn reject_plain_http(stream: &mut TcpStream, body: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 60\r\nconnection: close";
    stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).await?;
    stream.shutdown().await?;
    let mut discarded = [0; 4096];
    let drain = async {
        while stream.read(&mut discarded).await? > 0 {}
        Ok(())
    };
    timeout(DRAIN_WITHIN, drain).await.unwrap_or(Ok(()))
}

/// The hyper service of a connection: adds the [`Client`] to each request, limits its body and reports it to the
/// activity.
struct RequestService {
    routes: Arc<Routes>,
    peer: std::net::IpAddr,
    rules: Arc<ListenerRules>,
    listener: Arc<Listener>,
    activity: Arc<ConnectionActivity>,
}

impl Service<Request<Incoming>> for RequestService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = self.activity.start_request(request.version() == Version::HTTP_2);
        // The trusted proxies are read for each request: a connection may be older than the settings.
        let client = Client::from_request(self.peer, request.headers(), &self.listener.rules.load().proxies);
        let limits = &self.rules.limits;
        let reservation = self.listener.bodies.reserve(limits.max_bodies);
        let timed = |body| TimedBody::new(body, guard.clone(), reservation.clone(), limits.body_timeout);
        let mut request = request.map(|body| Body::new(timed(body)));
        request.extensions_mut().insert(client);
        // The routes are read for each request, too.
        let answer = self.routes.current().call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop((guard, reservation));
            answer
        })
    }
}
