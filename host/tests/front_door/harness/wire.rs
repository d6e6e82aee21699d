//! A raw connection, to send bytes that no HTTP client would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Host, PATIENCE, now, sign};

/// A connection to a host's public listener.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects.
    pub async fn to(host: &Host) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, host.socket()).await
    }

    /// Connects from this local address; all of 127.0.0.0/8 is local.
    pub async fn from(own: Ipv4Addr, host: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::V4(own), 0).into()).unwrap();
        let stream = socket.connect(host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends bytes. Errors are ignored: the host may have closed the connection.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Closes the write side.
    pub async fn shutdown_write(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// Sends bytes one by one until the host closes the connection, then reads the response to its end.
    pub async fn send_slowly(mut self, bytes: impl AsRef<[u8]>) -> String {
        let pause = std::time::Duration::from_millis(20);
        for byte in bytes.as_ref() {
            let mut answer = [0; 4096];
            tokio::select! {
                read = self.0.read(&mut answer) => {
                    let length = read.unwrap_or(0);
                    return String::from_utf8_lossy(&answer[..length]).into_owned() + &self.closed().await;
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.send([*byte]).await;
        }
        self.closed().await
    }

    /// Reads one response: its head, and its body if that has arrived.
    pub async fn answer(&mut self) -> String {
        let mut answer = vec![0; 4096];
        let read = timeout(PATIENCE, self.0.read(&mut answer)).await.expect("a response arrives in time");
        String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
    }

    /// Waits until the host closes the connection; returns the bytes received before.
    pub async fn closed(mut self) -> String {
        let mut said = Vec::new();
        let read =
            timeout(PATIENCE, self.0.read_to_end(&mut said)).await.expect("the host closes the connection in time");
        // A reset also counts as the end.
        let _ = read;
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// The head of a POST with the signature of this body, with additional header lines, each with its line end.
pub fn head(body: &[u8], lines: &str) -> String {
    let (signature, time) = (sign(body), now());
    format!(
        "POST /webhook HTTP/1.1\r\nhost: localhost\r\nx-unique-signature: {signature}\r\nx-unique-created-at: {time}\r\n\
         {lines}\r\n"
    )
}

/// A complete signed POST.
pub fn request(body: &[u8]) -> Vec<u8> {
    [head(body, &format!("content-length: {}\r\n", body.len())).as_bytes(), body].concat()
}
