//! Measures from the webhook to the response: signed events over real connections to the real host, compared to a
//! handler that reads the body and answers 200.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use crate::figures::{median, percentile};
use crate::load::{self, Outcome};
use crate::servers::{self, HOW_TO_GET_WASMTIME, PATH, Server};
use crate::{guests, signed};

/// The number of rounds of each case.
const ROUNDS: usize = 5;

/// The number of connections, and of requests per round: about half a second of load.
const LOADS: [(usize, usize); 3] = [(1, 4_000), (16, 10_000), (256, 10_000)];

/// The numbers of modules of a host.
const MODULES: [usize; 4] = [1, 10, 100, 1000];

/// The number of connections to a host with many modules, and of requests per round.
const MODULES_CONNECTIONS: usize = 16;
const MODULES_REQUESTS: usize = 5_000;

/// Flask is much slower, so it gets this fraction of the requests.
const SLOWER: usize = 5;

/// The handling of events in a row of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    /// The body is read and answered.
    Bare,
    /// Verified; no module has this name.
    NoModule,
    /// Verified, recorded, and delivered to a module that does nothing.
    Module,
    /// Verified by the official SDK in Flask.
    Flask,
    /// Verified by a component in `wasmtime serve`.
    WasmtimeServe,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare axum handler",
            Self::NoModule => "host, no module",
            Self::Module => "host, module",
            Self::Flask => "Flask, gunicorn",
            Self::WasmtimeServe => "`wasmtime serve`",
        }
    }

    fn body(self, id: &str) -> String {
        match self {
            Self::NoModule => signed::chosen(id, "Elsewhere"),
            Self::Bare | Self::Module | Self::Flask | Self::WasmtimeServe => signed::created(id),
        }
    }
}

/// The results of all rounds of a case.
#[derive(Default)]
struct Measured {
    per_second: Vec<f64>,
    latencies: Vec<Duration>,
}

/// Measures all cases at every load, and prints the table as in docs/benchmarks.md.
pub fn over_connections(guests: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Server::host(folder.path(), &guests.join("bench_guest.wasm"))?;
    let bare = Server::bare()?;
    let flask = Server::flask()?;
    let wasmtime_serve = match servers::wasmtime_program() {
        Some(program) => {
            let component = guests::build_packages(&["bench-http-guest"])?.join("bench_http_guest.wasm");
            Some(Server::wasmtime_serve(&program, &component)?)
        }
        None => None,
    };
    let mut ways = vec![(Case::Bare, &bare), (Case::NoModule, &host), (Case::Module, &host)];
    match &flask {
        Some(flask) => ways.push((Case::Flask, flask)),
        None => {
            println!("(Flask is left out: BENCH_VENV names no environment with host/benches/flask/requirements.txt)")
        }
    }
    match &wasmtime_serve {
        Some(server) => ways.push((Case::WasmtimeServe, server)),
        None => println!("(`wasmtime serve` is left out: there is no program `wasmtime`. {HOW_TO_GET_WASMTIME})"),
    }
    println!("From the webhook to the response, over HTTP");
    println!("(signed events, kept-alive connections, {ROUNDS} rounds; median rate, latencies of all rounds)\n");
    println!("| server | connections | events/s | ratio to bare | ratio to Flask | p50 µs | p99 µs |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (connections, requests) in LOADS {
        let mut measured: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
        // The first round is a warm-up.
        for round in 0..=ROUNDS {
            for ((way, server), measured) in ways.iter().copied().zip(&mut measured) {
                let ids = format!("evt_{connections}_{round}_{}", way as u8);
                let requests = if matches!(way, Case::Flask) { requests / SLOWER } else { requests };
                let requests = prepare(&ids, requests, |id| way.body(id));
                let outcome = send(way, server, connections, &requests)?;
                if round > 0 {
                    measured.add(requests.len(), outcome);
                }
            }
        }
        let cases: Vec<Case> = ways.iter().map(|(way, _)| *way).collect();
        print(connections, &cases, &mut measured);
    }
    println!();
    Ok(())
}

/// Measures the host with different numbers of modules, which get the events in turn, and prints the table as in
/// docs/benchmarks.md.
pub fn over_modules(guests: &Path) -> anyhow::Result<()> {
    let component = guests.join("bench_guest.wasm");
    let folders = MODULES.map(|_| tempfile::tempdir());
    let mut hosts = Vec::new();
    for (modules, folder) in MODULES.into_iter().zip(&folders) {
        let folder = folder.as_ref().map_err(|error| anyhow!("no temporary folder: {error}"))?;
        hosts.push((modules, Server::host_with_modules(folder.path(), &component, modules)?, Measured::default()));
    }
    println!("Many modules, {MODULES_CONNECTIONS} connections");
    println!("(each event is delivered to one of them; {ROUNDS} rounds; median rate, latencies of all rounds)\n");
    println!("| modules | events/s | ratio to one | p50 µs | p99 µs |");
    println!("|--:|--:|--:|--:|--:|");
    // The first round is a warm-up.
    for round in 0..=ROUNDS {
        for (modules, server, measured) in &mut hosts {
            let mut module = (0..*modules).cycle();
            let ids = format!("evt_{modules}_{round}");
            let requests = prepare(&ids, MODULES_REQUESTS, |id| {
                signed::for_module(id, &servers::event_of(module.next().unwrap_or_default()))
            });
            let outcome = deliver(server, MODULES_CONNECTIONS, &requests)?;
            if round > 0 {
                measured.add(requests.len(), outcome);
            }
        }
    }
    let one = hosts[0].2.per_second.clone();
    for (modules, _, measured) in &mut hosts {
        let per_second = median(measured.per_second.iter().copied());
        let ratio = ratio(&measured.per_second, &one);
        let [p50, p99] = measured.percentiles();
        println!("| {modules} | {per_second:.0} | {ratio:.2} | {p50:.0} | {p99:.0} |");
    }
    println!();
    Ok(())
}

/// Signs the requests before the measurement: signing is the platform's work. Every event is a new one.
fn prepare(ids: &str, requests: usize, mut body: impl FnMut(&str) -> String) -> Vec<Vec<u8>> {
    (0..requests).map(|number| signed::request(PATH, &body(&format!("{ids}_{number}")))).collect()
}

/// Sends requests, and waits until no delivery is left that could affect the next measurement.
fn send(way: Case, server: &Server, connections: usize, requests: &[Vec<u8>]) -> anyhow::Result<Outcome> {
    match way {
        Case::Module => deliver(server, connections, requests),
        _ => load::send(server.address, connections, requests),
    }
}

/// Sends requests that each lead to a delivery, and waits for the end of all deliveries.
fn deliver(server: &Server, connections: usize, requests: &[Vec<u8>]) -> anyhow::Result<Outcome> {
    let since = server.log_length()?;
    let outcome = load::send(server.address, connections, requests)?;
    server.wait_for_deliveries(requests.len(), since)?;
    Ok(outcome)
}

impl Measured {
    fn add(&mut self, requests: usize, outcome: Outcome) {
        self.per_second.push(requests as f64 / outcome.took.as_secs_f64());
        self.latencies.extend(outcome.latencies);
    }

    /// Returns p50 and p99, in microseconds.
    fn percentiles(&mut self) -> [f64; 2] {
        [50, 99].map(|per_cent| percentile(&mut self.latencies, per_cent))
    }
}

/// Returns the median of the ratios of the rounds.
fn ratio(rates: &[f64], others: &[f64]) -> f64 {
    median(rates.iter().zip(others).map(|(rate, other)| rate / other))
}

fn print(connections: usize, cases: &[Case], measured: &mut [Measured]) {
    let rates = |of: Case| {
        let index = cases.iter().position(|case| *case == of)?;
        Some(measured[index].per_second.clone())
    };
    let (bare, flask) = (rates(Case::Bare), rates(Case::Flask));
    for (case, measured) in cases.iter().zip(measured) {
        let per_second = median(measured.per_second.iter().copied());
        let to = |others: &Option<Vec<f64>>, digits: usize| {
            let ratio = others.as_ref().map(|others| ratio(&measured.per_second, others));
            ratio.map(|ratio| format!("{ratio:.digits$}")).unwrap_or_default()
        };
        let (to_bare, to_flask) = (to(&bare, 2), to(&flask, 1));
        let [p50, p99] = measured.percentiles();
        let name = case.name();
        println!("| {name} | {connections} | {per_second:.0} | {to_bare} | {to_flask} | {p50:.0} | {p99:.0} |");
    }
}
