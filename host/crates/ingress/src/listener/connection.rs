//! One connection, from its handshake to its end.

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

/// How long a connection that is to end has for what is under way.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// How many requests may share an HTTP/2 connection at a time: a platform brings few at once, and each may hold some room
/// whatever the others hold.
const MAX_STREAMS: u32 = 32;

/// The number of headers the HTTP library has room for without asking for memory.
const USUAL_HEADERS: usize = 100;

/// The first byte of a TLS handshake (RFC 8446, section 5.1: `handshake(22)`).
const HANDSHAKE: u8 = 22;

/// What is answered to plain HTTP where TLS is spoken. Not 4xx: to a platform that is on its way to https it would be
/// the end of the endpoint.
const SPEAK_TLS: &str = r#"{"success":false,"error":"TLS is spoken here: the URL has to begin with https://"}"#;

/// How long who is told so may take to read it.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// A connection that was let in.
pub(super) struct Connection {
    listener: Arc<Listener>,
    rules: Arc<ListenerRules>,
    place: ConnectionEntry,
    closing: CancellationToken,
}

/// Why a connection has to end though its client is there.
enum Reason {
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

    /// Serves the connection to its end.
    pub async fn attend(self, stream: TcpStream, routes: Arc<Routes>) {
        match &self.rules.tls {
            None => self.serve(stream, routes).await,
            Some(config) => {
                let opened = tokio::select! {
                    opened = self.handshake(config.clone(), stream) => opened,
                    reason = self.reason() => return self.cut_off(&reason),
                };
                if let Some(stream) = opened {
                    self.serve(stream, routes).await;
                }
            }
        }
    }

    /// Makes a TLS stream of it; none if the client speaks something else.
    async fn handshake(&self, config: Arc<ServerConfig>, mut stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let client = self.place.address;
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => {
                if let Some(more) = self.listener.lines.plain.now() {
                    tracing::warn!(%client, suppressed = more.suppressed(), "plain HTTP request to a TLS listener");
                }
                if let Err(error) = put_off(&mut stream, SPEAK_TLS).await {
                    tracing::debug!(%client, %error, "cannot send the hint to use TLS");
                }
                return None;
            }
            _ => return None,
        }
        match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                if let Some(more) = self.listener.lines.handshake.now() {
                    tracing::info!(%client, %error, suppressed = more.suppressed(), "TLS handshake failed");
                }
                None
            }
        }
    }

    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, routes: Arc<Routes>) {
        let http = http(&self.rules.limits);
        let stream = TokioIo::new(ActivityStream::new(stream, self.place.activity.clone()));
        let answering = Answering {
            routes,
            peer: self.place.address,
            rules: self.rules.clone(),
            listener: self.listener.clone(),
            activity: self.place.activity.clone(),
        };
        let mut connection = pin!(http.serve_connection(stream, answering));
        let reason = tokio::select! {
            biased;
            ended = connection.as_mut() => return self.log_end(ended),
            reason = self.reason() => reason,
        };
        match reason {
            Reason::Closing | Reason::Overdue(Overdue::Idle) => {
                // What is under way comes to its end; one that does nothing ends at once.
                connection.as_mut().graceful_shutdown();
                if timeout(FINISH_WITHIN, connection).await.is_err() {
                    self.cut_off(&reason);
                }
            }
            Reason::MakesRoom | Reason::Overdue(Overdue::Head) => self.cut_off(&reason),
        }
    }

    /// Waits for a reason to end the connection.
    async fn reason(&self) -> Reason {
        let activity = &self.place.activity;
        tokio::select! {
            () = self.closing.cancelled() => Reason::Closing,
            () = activity.asked_to_leave() => Reason::MakesRoom,
            overdue = activity.overdue(&self.rules.limits) => Reason::Overdue(overdue),
        }
    }

    fn cut_off(&self, reason: &Reason) {
        let why = match reason {
            Reason::Closing => "the host stops",
            Reason::MakesRoom => "it kept the host waiting, and there are too many connections",
            Reason::Overdue(Overdue::Head) => "its request took longer to begin than `header_timeout`",
            Reason::Overdue(Overdue::Idle) => "its answers were not fetched within `idle_timeout`",
        };
        tracing::debug!(client = %self.place.address, reason = %why, "connection closed by the host");
    }

    /// Logs how a connection ended that the host did not close.
    fn log_end(&self, ended: Result<(), Box<dyn Error + Send + Sync>>) {
        let Err(error) = ended else { return };
        let client = self.place.address;
        if error.downcast_ref().is_some_and(hyper::Error::is_parse_too_large) {
            if let Some(more) = self.listener.lines.head.now() {
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

/// HTTP/1 and HTTP/2 within the limits. Times are kept by the activity, so the library needs no clock; its own limits of
/// frames that reset streams, and the like, are good as they are.
fn http(limits: &ListenerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(limits.max_header_size as usize);
    if limits.max_headers != USUAL_HEADERS {
        builder.http1().max_headers(limits.max_headers);
    }
    builder.http2().max_concurrent_streams(MAX_STREAMS).max_header_list_size(limits.max_header_size);
    builder
}

/// Answers a request that isn't read, and lets the client hear that: a connection that is closed on what was not read
/// breaks before the other end has read.
async fn put_off(stream: &mut TcpStream, body: &str) -> io::Result<()> {
    let length = body.len();
    let head =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 60\r\nconnection: close";
    stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes()).await?;
    stream.shutdown().await?;
    let mut forgotten = [0; 4096];
    let hear_out = async {
        while stream.read(&mut forgotten).await? > 0 {}
        Ok(())
    };
    timeout(READ_WITHIN, hear_out).await.unwrap_or(Ok(()))
}

/// The routes, told whose requests they get, and told of by the activity.
struct Answering {
    routes: Arc<Routes>,
    peer: std::net::IpAddr,
    rules: Arc<ListenerRules>,
    listener: Arc<Listener>,
    activity: Arc<ConnectionActivity>,
}

impl Service<Request<Incoming>> for Answering {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let flight = self.activity.begin(request.version() == Version::HTTP_2);
        // Whom to believe is asked anew with each request; a connection may be older than the settings.
        let client = Client::of(self.peer, request.headers(), &self.listener.rules.load().proxies);
        let limits = &self.rules.limits;
        let share = self.listener.bodies.share(limits.max_bodies);
        let arriving = |body| TimedBody::new(body, flight.clone(), share.clone(), limits.body_timeout);
        let mut request = request.map(|body| Body::new(arriving(body)));
        request.extensions_mut().insert(client);
        // The routes of now: a connection may be older than they are.
        let answer = self.routes.current().call(request);
        Box::pin(async move {
            let answer = answer.await;
            drop((flight, share));
            answer
        })
    }
}
