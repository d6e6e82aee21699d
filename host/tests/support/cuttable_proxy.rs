//! A TCP proxy whose connections a test can cut, and whose directions it can interrupt.
//!
//! A host connects to PostgreSQL through it. Its sockets are real, so what a test interrupts reaches the client as on a
//! network: a reset, silence, or bytes that arrive late.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// The maximum number of open connections; more wait.
const MAX_CONNECTIONS: usize = 256;

/// The most bytes of a direction that the proxy holds itself; the rest stays with the sockets.
const BUFFER: usize = 64 * 1024;

/// What happens to the bytes of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They are forwarded.
    Open,
    /// They wait, and are forwarded when the flow opens again, as TCP does after a short partition.
    Held,
    /// They disappear, and nothing closes the connection: the other side is half-open. A connection that lost bytes stays
    /// silent in this direction when the flow opens again, as one whose state a firewall has forgotten.
    Swallowed,
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

#[derive(Clone, Copy)]
struct LinkState {
    to_server: Flow,
    to_client: Flow,
    /// Whether connections are refused.
    is_cut: bool,
    /// The number of cuts so far: a connection of an earlier one is reset.
    cuts: u64,
}

impl LinkState {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// A running proxy. It ends, and resets its connections, when it is dropped.
pub struct CuttableProxy {
    address: SocketAddr,
    link: watch::Sender<LinkState>,
    accepting: JoinHandle<()>,
}

impl CuttableProxy {
    /// Starts a proxy for this server, on a free port of the loopback address.
    ///
    /// # Panics
    ///
    /// If there is no free port.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("no free port");
        let address = listener.local_addr().expect("a listener without an address");
        let open = LinkState { to_server: Flow::Open, to_client: Flow::Open, is_cut: false, cuts: 0 };
        let (link, changes) = watch::channel(open);
        let accepting = tokio::spawn(accept(listener, server, changes));
        Self { address, link, accepting }
    }

    /// The address of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, and each new one, until [`CuttableProxy::heal`].
    pub fn cut(&self) {
        self.link.send_modify(|link| {
            link.is_cut = true;
            link.cuts += 1;
        });
    }

    /// Changes the flow of both directions.
    pub fn set(&self, flow: Flow) {
        self.link.send_modify(|link| (link.to_server, link.to_client) = (flow, flow));
    }

    /// Changes the flow of one direction.
    pub fn set_one(&self, direction: Direction, flow: Flow) {
        self.link.send_modify(|link| match direction {
            Direction::ToServer => link.to_server = flow,
            Direction::ToClient => link.to_client = flow,
        });
    }

    /// Opens both directions and accepts connections again.
    pub fn heal(&self) {
        self.link.send_modify(|link| {
            (link.to_server, link.to_client, link.is_cut) = (Flow::Open, Flow::Open, false);
        });
    }
}

impl Drop for CuttableProxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, link: watch::Receiver<LinkState>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else { continue };
        let link = link.clone();
        tokio::spawn(async move {
            connect(client, server, link).await;
            drop(permit);
        });
    }
}

/// Serves a connection until both directions have ended or it is cut.
async fn connect(mut client: TcpStream, server: SocketAddr, mut link: watch::Receiver<LinkState>) {
    let cuts = link.borrow_and_update().cuts;
    if let Some(mut upstream) = open(&client, server, &mut link, cuts).await {
        let (mut cut, to_server, to_client) = (link.clone(), link.clone(), link);
        let (from_client, into_client) = client.split();
        let (from_server, into_server) = upstream.split();
        let both = async {
            tokio::join!(
                forward(from_client, into_server, Direction::ToServer, to_server),
                forward(from_server, into_client, Direction::ToClient, to_client),
            )
        };
        let is_cut = tokio::select! {
            _ = both => false,
            _ = cut.wait_for(|now| now.cuts > cuts) => true,
        };
        if !is_cut {
            return;
        }
        let _ = upstream.set_zero_linger(); // closing it is a reset
    }
    let _ = client.set_zero_linger();
}

/// Connects to the server. Returns `None` if the client is to be reset.
async fn open(
    client: &TcpStream,
    server: SocketAddr,
    link: &mut watch::Receiver<LinkState>,
    cuts: u64,
) -> Option<TcpStream> {
    // A connection needs both directions, and its packets are sent again until then.
    let can_decide =
        |now: &LinkState| now.is_cut || now.cuts > cuts || (now.to_server == Flow::Open && now.to_client == Flow::Open);
    let now = *link.wait_for(can_decide).await.ok()?;
    if now.is_cut || now.cuts > cuts {
        return None;
    }
    let upstream = TcpStream::connect(server).await.ok()?;
    let _ = (client.set_nodelay(true), upstream.set_nodelay(true));
    Some(upstream)
}

/// Copies a direction to its end. Returns `None` if a side is gone.
async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut link: watch::Receiver<LinkState>,
) -> Option<()> {
    let mut buffer = vec![0; BUFFER];
    let mut is_lost = false;
    loop {
        // What waits in the sockets meanwhile is bounded by their buffers, as on a network.
        link.wait_for(|now| is_lost || now.flow(direction) != Flow::Held).await.ok()?;
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = link.changed(), if !is_lost => continue,
        };
        let count = read.unwrap_or_default();
        if !is_lost {
            // The flow may have changed since the bytes were sent.
            let now = *link.wait_for(|now| now.flow(direction) != Flow::Held).await.ok()?;
            is_lost = now.flow(direction) == Flow::Swallowed;
        }
        match (count, is_lost) {
            (0, false) => return to.shutdown().await.ok(),
            // Neither side learns that the other has closed it.
            (0, true) => return std::future::pending().await,
            (_, true) => {}
            (_, false) => to.write_all(&buffer[..count]).await.ok()?,
        }
    }
}
