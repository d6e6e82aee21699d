//! A connection that says byte by byte what no HTTP client would.

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

    /// Connects from a certain address of this machine: all of 127.0.0.0/8 are its own.
    pub async fn from(own: Ipv4Addr, host: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::V4(own), 0).into()).unwrap();
        let stream = socket.connect(host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Says something; whether it is heard is another question.
    pub async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
    }

    /// Says that nothing more comes.
    pub async fn hang_up(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// Says something byte by byte, until nobody listens any more, and then reads to the end what was answered.
    pub async fn dribble(mut self, bytes: impl AsRef<[u8]>) -> String {
        let pause = std::time::Duration::from_millis(20);
        for byte in bytes.as_ref() {
            let mut answer = [0; 4096];
            tokio::select! {
                read = self.0.read(&mut answer) => {
                    let length = read.unwrap_or(0);
                    return String::from_utf8_lossy(&answer[..length]).into_owned() + &self.ended().await;
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.say([*byte]).await;
        }
        self.ended().await
    }

    /// Reads one answer: its head, and its body if that has come along.
    pub async fn answer(&mut self) -> String {
        let mut answer = vec![0; 4096];
        let read = timeout(PATIENCE, self.0.read(&mut answer)).await.expect("an answer comes");
        String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned()
    }

    /// Waits until the host ends the connection; answers with what it said before.
    pub async fn ended(mut self) -> String {
        let mut said = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut said)).await.expect("the host ends the connection");
        // That it was cut off is an end, too.
        let _ = read;
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// The head of a POST whose body has this signature, with further header lines, each with its line end.
pub fn head(body: &[u8], lines: &str) -> String {
    let (signature, time) = (sign(body), now());
    format!(
        "POST /webhook HTTP/1.1\r\nhost: localhost\r\nx-unique-signature: {signature}\r\nx-unique-created-at: {time}\r\n\
         {lines}\r\n"
    )
}

/// A whole signed POST.
pub fn request(body: &[u8]) -> Vec<u8> {
    [head(body, &format!("content-length: {}\r\n", body.len())).as_bytes(), body].concat()
}
