//! A load generator: kept-alive connections, each with one request in flight. A single thread drives all of them, to
//! leave the rest of the machine to the server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The time limit for a response.
const PATIENCE: Duration = Duration::from_secs(30);

/// The results of a number of requests.
pub struct Outcome {
    /// The time from the first request to the last response.
    pub took: Duration,
    /// The time from each request to its response.
    pub latencies: Vec<Duration>,
}

/// Sends requests over this many connections, and waits for the responses, which must be 200.
pub fn send(server: SocketAddr, connections: usize, requests: &[Vec<u8>]) -> anyhow::Result<Outcome> {
    let share = requests.len().div_ceil(connections);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let streams = try_join_all((0..connections).map(|_| connect(server))).await?;
        let started = Instant::now();
        let sent = streams.into_iter().zip(requests.chunks(share)).map(|(stream, share)| one_by_one(stream, share));
        let latencies = try_join_all(sent).await?.concat();
        Ok(Outcome { took: started.elapsed(), latencies })
    })
}

async fn connect(server: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn one_by_one(mut stream: TcpStream, requests: &[Vec<u8>]) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(requests.len());
    let mut answer = Vec::with_capacity(4096);
    for request in requests {
        let started = Instant::now();
        stream.write_all(request).await?;
        let answered = tokio::time::timeout(PATIENCE, read_answer(&mut stream, &mut answer)).await;
        answered.context("no answer")??;
        latencies.push(started.elapsed());
    }
    Ok(latencies)
}

/// Reads one response to its end; `answer` is the buffer.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    loop {
        ensure!(stream.read_buf(answer).await? > 0, "the server closed the connection");
        let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let (head, body) = (std::str::from_utf8(&answer[..head])?, answer.len() - head - 4);
        if !head.starts_with("HTTP/1.1 200 ") {
            bail!("an event was not answered with 200:\n{}", String::from_utf8_lossy(answer));
        }
        if body >= content_length(head).context("a response without Content-Length")? {
            return Ok(());
        }
    }
}

fn content_length(head: &str) -> Option<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    length.trim().parse().ok()
}
