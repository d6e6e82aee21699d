//! Measures the effect of hostile traffic on other clients: the time from an event to its response without an attack,
//! with one attacker at a time, and with all of them.
//!
//! `cargo bench --bench hostile_traffic` takes a minute and a half. Everything runs on one machine, so the attackers
//! use CPU time that they wouldn't use over a network: their rate is limited, and printed. They use addresses of their
//! own (127.0.0.2 and so on), which only Linux provides without configuration.

#[path = "end_to_end/figures.rs"]
mod figures;
#[path = "end_to_end/guests.rs"]
mod guests;
#[expect(dead_code, reason = "the other benchmark's servers; only the host is needed here")]
#[path = "end_to_end/servers.rs"]
mod servers;
#[expect(dead_code, reason = "the other benchmark sends more")]
#[path = "end_to_end/signed.rs"]
mod signed;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use figures::{median, percentile};
use servers::{PATH, Server};

/// The number of rounds of each attack, and their duration.
const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_millis(2_500);

/// The time between the start of an attack and the measurement.
const RUN_UP: Duration = Duration::from_millis(300);

/// The good traffic: the number of open connections, and the pause of each between two events.
const CONNECTIONS: usize = 8;
const BETWEEN: Duration = Duration::from_millis(20);

/// The number of incomplete requests of the slow attacker, above the host's connection limit. Each sends a byte now and
/// then.
const HALF_OPEN: usize = 600;
const A_BYTE_EVERY: Duration = Duration::from_secs(1);

/// The number of connections per second that it opens again after they were closed.
const REOPENED: u32 = 200;

/// The requests per second of the other attacks.
const OVERSIZED: u32 = 10;
const MALFORMED: u32 = 500;
const FORGED: u32 = 500;

/// The size of an oversized body in bytes, twice the limit.
const TOO_LARGE: usize = 2 << 20;

/// The maximum time an attacker waits for a response.
const PATIENCE: Duration = Duration::from_secs(2);

/// An attack.
#[derive(Clone, Copy, PartialEq)]
enum Attack {
    SlowLoris,
    Oversized,
    Malformed,
    Forged,
}

const ALL: [Attack; 4] = [Attack::SlowLoris, Attack::Oversized, Attack::Malformed, Attack::Forged];

/// The measured combinations of attacks, by name.
const SCENES: [(&str, &[Attack]); 6] = [
    ("quiet", &[]),
    ("slow loris", &[Attack::SlowLoris]),
    ("oversized bodies", &[Attack::Oversized]),
    ("malformed requests", &[Attack::Malformed]),
    ("forged signatures", &[Attack::Forged]),
    ("all at once", &ALL),
];

/// The results of all rounds of a combination.
#[derive(Default)]
struct Row {
    p50: Vec<f64>,
    p99: Vec<f64>,
    p50_ratio: Vec<f64>,
    p99_ratio: Vec<f64>,
    events: usize,
    bad: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let guests = guests::build()?;
    let folder = tempfile::tempdir()?;
    let host = Server::host(folder.path(), &guests.join("bench_guest.wasm"))?;
    let mut rows: Vec<Row> = SCENES.iter().map(|_| Row::default()).collect();
    let mut number = 0;
    measure(host.address, &[], &mut number)?; // warm-up
    for _ in 0..ROUNDS {
        let mut quiet = (f64::NAN, f64::NAN);
        for (row, (_, attacks)) in rows.iter_mut().zip(SCENES) {
            let (mut times, bad) = measure(host.address, attacks, &mut number)?;
            let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
            if attacks.is_empty() {
                quiet = (p50, p99);
            }
            row.events += times.len();
            row.p50.push(p50);
            row.p99.push(p99);
            row.p50_ratio.push(p50 / quiet.0);
            row.p99_ratio.push(p99 / quiet.1);
            row.bad.push(bad);
        }
    }
    print(&rows);
    Ok(())
}

fn print(rows: &[Row]) {
    println!("| beside it | bad a second | events | p50 µs | p99 µs | p50 ratio | p99 ratio |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for ((name, _), row) in SCENES.iter().zip(rows) {
        let middle = |figures: &[f64]| median(figures.iter().copied());
        println!(
            "| {name} | {:.0} | {} | {:.0} | {:.0} | {:.2} | {:.2} |",
            middle(&row.bad),
            row.events,
            middle(&row.p50),
            middle(&row.p99),
            middle(&row.p50_ratio),
            middle(&row.p99_ratio),
        );
    }
}

/// Sends good traffic for one round during some attacks; returns its response times, and the number of requests or
/// connections per second that the attackers started.
fn measure(host: SocketAddr, attacks: &[Attack], number: &mut u64) -> anyhow::Result<(Vec<Duration>, f64)> {
    let (stop, attempts) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let attackers = {
        let (stop, attempts, attacks) = (stop.clone(), attempts.clone(), attacks.to_vec());
        std::thread::spawn(move || attack(host, &attacks, &attempts, &stop))
    };
    std::thread::sleep(RUN_UP);
    let events: Vec<Vec<Vec<u8>>> = (0..CONNECTIONS)
        .map(|_| {
            let count = TURN.as_millis() / BETWEEN.as_millis();
            let next = |_| {
                *number += 1;
                signed::request(PATH, &signed::created(&format!("evt_{number}")))
            };
            (0..count).map(next).collect()
        })
        .collect();
    let (before, started) = (attempts.load(Ordering::Relaxed), Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sent = runtime.block_on(try_join_all(events.into_iter().map(|events| good(host, events))));
    let rate = (attempts.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
    stop.cancel();
    let attacked = attackers.join().map_err(|_| anyhow::anyhow!("the attackers panicked"))?;
    attacked?;
    Ok((sent?.concat(), rate))
}

/// Sends events over one connection, one after the other. If the host closes the idle connection, it is opened again,
/// as any client does; that counts towards the response time.
async fn good(host: SocketAddr, events: Vec<Vec<u8>>) -> anyhow::Result<Vec<Duration>> {
    let mut stream = connect(host, 1).await?;
    let mut times = Vec::with_capacity(events.len());
    for event in events {
        let started = Instant::now();
        let mut answer = ask(&mut stream, &event).await;
        if answer.is_err() {
            stream = connect(host, 1).await?;
            answer = ask(&mut stream, &event).await;
        }
        let answer = answer.context("a good event got no response")?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "a good event was answered with:\n{answer}");
        times.push(started.elapsed());
        sleep(BETWEEN).await;
    }
    Ok(times)
}

async fn ask(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<String> {
    stream.write_all(request).await?;
    let mut answer = vec![0; 4096];
    let length = timeout(PATIENCE, stream.read(&mut answer)).await??;
    ensure!(length > 0, "the connection was closed");
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Connects from an address of this machine.
async fn connect(host: SocketAddr, own: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, own)), 0).into())?;
    let stream = socket.connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Attacks until it is stopped.
fn attack(
    host: SocketAddr,
    attacks: &[Attack],
    attempts: &Arc<AtomicU64>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for attack in attacks {
            let attempts = attempts.clone();
            match attack {
                Attack::SlowLoris => slow_loris(host, &attempts),
                Attack::Oversized => flood(OVERSIZED, attempts, move || once(host, 3, oversized())),
                Attack::Malformed => flood(MALFORMED, attempts, move || {
                    once(host, 4, b"POST /webhook HTTP/1.1\r\nno header\r\n\r\n".to_vec())
                }),
                Attack::Forged => flood(FORGED, attempts, move || once(host, 5, forged())),
            }
        }
        stop.cancelled().await;
    });
    // Requests in flight are dropped with the runtime.
    Ok(())
}

/// Starts an attack this many times per second, without waiting for earlier ones.
fn flood<F: Future<Output = ()> + Send + 'static>(
    a_second: u32,
    attempts: Arc<AtomicU64>,
    once: impl Fn() -> F + Send + 'static,
) {
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(1) / a_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            attempts.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(once());
        }
    });
}

/// Sends a request over a new connection, and waits for the response or an error.
async fn once(host: SocketAddr, own: u8, request: Vec<u8>) {
    let Ok(mut stream) = connect(host, own).await else { return };
    let _ = ask(&mut stream, &request).await;
}

fn oversized() -> Vec<u8> {
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {TOO_LARGE}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; TOO_LARGE]].concat()
}

/// A good event with one digit of its signature changed.
fn forged() -> Vec<u8> {
    let mut request = signed::request(PATH, &signed::created("evt_forged"));
    let signature =
        request.windows(13).position(|it| it == b"X-Unique-Sign").map(|at| at + "X-Unique-Signature: ".len());
    if let Some(digit) = signature.and_then(|at| request.get_mut(at)) {
        *digit = if *digit == b'0' { b'1' } else { b'0' };
    }
    request
}

/// Keeps incomplete requests open, and replaces those that the host closes.
fn slow_loris(host: SocketAddr, attempts: &Arc<AtomicU64>) {
    let next = Arc::new(Mutex::new(Instant::now()));
    for _ in 0..HALF_OPEN {
        let (attempts, next) = (attempts.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                // The first ones are opened at once, replacements at a limited rate.
                if attempts.load(Ordering::Relaxed) >= HALF_OPEN as u64 {
                    let turn = {
                        let mut next = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        *next = (*next).max(Instant::now()) + Duration::from_secs(1) / REOPENED;
                        *next
                    };
                    tokio::time::sleep_until(turn.into()).await;
                }
                attempts.fetch_add(1, Ordering::Relaxed);
                half_open(host).await;
            }
        });
    }
}

async fn half_open(host: SocketAddr) {
    let Ok(mut stream) = connect(host, 2).await else { return };
    let mut said = stream.write_all(b"POST /webhook HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
    let mut answer = [0; 64];
    while said.is_ok() {
        // Any data or error means that the request has ended.
        if timeout(A_BYTE_EVERY, stream.read(&mut answer)).await.is_ok() {
            return;
        }
        said = stream.write_all(b"x").await;
    }
}
