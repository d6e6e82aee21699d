//! Measures from the webhook to the response: signed events over real connections to the real host, compared to a
//! handler that reads the body and answers 200.

use std::path::Path;
use std::time::Duration;

use crate::figures::{median, percentile};
use crate::load::{self, Outcome};
use crate::servers::{PATH, Server};
use crate::signed;

/// The number of rounds of each case.
const ROUNDS: usize = 5;

/// The number of connections, and of requests per round: about half a second of load.
const LOADS: [(usize, usize); 3] = [(1, 4_000), (16, 10_000), (256, 10_000)];

/// Flask is much slower, so it gets this fraction of the requests.
const SLOWER: usize = 5;

/// The handling of events in a row of the table.
#[derive(Clone, Copy)]
enum Case {
    /// The body is read and answered.
    Bare,
    /// Verified; no module has this name.
    NoModule,
    /// Verified, recorded, and delivered to a module that does nothing.
    Module,
    /// Verified by the official SDK in Flask.
    Flask,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare axum handler",
            Self::NoModule => "host, no module",
            Self::Module => "host, module",
            Self::Flask => "Flask, gunicorn",
        }
    }

    fn body(self, id: &str) -> String {
        match self {
            Self::NoModule => signed::chosen(id, "Elsewhere"),
            Self::Bare | Self::Module | Self::Flask => signed::created(id),
        }
    }
}

/// The results of all rounds of a case.
#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    latencies: Vec<Duration>,
}

/// Measures all cases at every load, and prints the table.
pub fn run(guests: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Server::host(folder.path(), &guests.join("bench_guest.wasm"))?;
    let bare = Server::bare()?;
    let flask = Server::flask()?;
    let mut ways = vec![(Case::Bare, &bare), (Case::NoModule, &host), (Case::Module, &host)];
    match &flask {
        Some(flask) => ways.push((Case::Flask, flask)),
        None => {
            println!("(Flask is left out: BENCH_VENV names no environment with host/benches/flask/requirements.txt)")
        }
    }
    println!("From the webhook to the answer, over HTTP");
    println!("(signed events, kept-alive connections, {ROUNDS} rounds; median rate, latencies of all rounds)\n");
    println!("way                 connections   events/s  of bare     p50 µs     p99 µs   of Flask");
    for (connections, requests) in LOADS {
        let mut measured: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
        // The first round is a warm-up.
        for round in 0..=ROUNDS {
            for ((way, server), measured) in ways.iter().copied().zip(&mut measured) {
                let ids = format!("evt_{connections}_{round}_{}", way as u8);
                let requests = if matches!(way, Case::Flask) { requests / SLOWER } else { requests };
                let requests = prepare(way, &ids, requests);
                let outcome = send(way, server, connections, &requests)?;
                if round > 0 {
                    measured.per_second.push(requests.len() as f64 / outcome.took.as_secs_f64());
                    measured.latencies.extend(outcome.latencies);
                }
            }
        }
        let names: Vec<&str> = ways.iter().map(|(way, _)| way.name()).collect();
        print(connections, &names, &mut measured);
    }
    println!();
    Ok(())
}

/// Signs the requests before the measurement: signing is the platform's work. Every event is a new one.
fn prepare(way: Case, ids: &str, requests: usize) -> Vec<Vec<u8>> {
    (0..requests).map(|number| signed::request(PATH, &way.body(&format!("{ids}_{number}")))).collect()
}

/// Sends requests, and waits until no delivery is left that could affect the next measurement.
fn send(way: Case, server: &Server, connections: usize, requests: &[Vec<u8>]) -> anyhow::Result<Outcome> {
    if !matches!(way, Case::Module) {
        return load::send(server.address, connections, requests);
    }
    let since = server.log_length()?;
    let outcome = load::send(server.address, connections, requests)?;
    server.wait_for_deliveries(requests.len(), since)?;
    Ok(outcome)
}

fn print(connections: usize, names: &[&str], measured: &mut [Measured]) {
    let rates = |measured: &Measured| measured.per_second.clone();
    let bare = rates(&measured[0]);
    let flask = measured.get(3).map(rates);
    let of = |host: &[f64], other: &[f64]| median(host.iter().zip(other).map(|(host, other)| host / other));
    for (name, measured) in names.iter().zip(measured) {
        let per_second = median(measured.per_second.iter().copied());
        let of_bare = of(&measured.per_second, &bare);
        let of_flask =
            flask.as_ref().map(|flask| format!("{:.1}", of(&measured.per_second, flask))).unwrap_or_default();
        let (p50, p99) = (percentile(&mut measured.latencies, 50), percentile(&mut measured.latencies, 99));
        println!(
            "{name:<20} {connections:>10} {per_second:>10.0} {of_bare:>8.2} {p50:>10.0} {p99:>10.0} {of_flask:>10}"
        );
    }
}
