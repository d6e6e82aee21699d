//! The figures operators watch, in Prometheus' words at `/metrics` of the admin listener.
//!
//! Labels are names out of modules.toml, imports of the contract and words of this file: nothing that others choose, so
//! that nobody can make their number grow.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::event::Name;
use crate::import::Import;

const READY: &str = "modhost_ready";
const CHECK: &str = "modhost_ready_check";
const REQUESTS: &str = "modhost_requests_total";
const EVENTS: &str = "modhost_events_total";
const ATTEMPTS: &str = "modhost_attempts_total";
const ATTEMPT_SECONDS: &str = "modhost_attempt_seconds";
const CALLS: &str = "modhost_calls_total";
const CALL_SECONDS: &str = "modhost_call_seconds";
const CALLS_MADE_AGAIN: &str = "modhost_calls_made_again_total";
const ANSWERS_REPAIRED: &str = "modhost_platform_answers_repaired_total";
const MISSED_WAKEUPS: &str = "modhost_missed_wakeups_total";
const DELIVERIES: &str = "modhost_deliveries";
const JOURNAL_BYTES: &str = "modhost_journal_bytes";
const SERVES: &str = "modhost_module_serves";
const PAUSED: &str = "modhost_module_paused";
const LOADED: &str = "modhost_module_versions_loaded";
const SWAPS: &str = "modhost_swaps_total";
const SWAPS_REFUSED: &str = "modhost_swaps_refused_total";
const CANARIES: &str = "modhost_canaries_total";
const LOG_LINES_DROPPED: &str = "modhost_log_lines_dropped_total";

/// From what a trivial module takes to the longest a completion may.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// How often what was measured is gathered.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// Where the process keeps its figures; none if it couldn't be set up.
static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts to keep the figures; more than once is as good as once.
pub fn start() {
    HANDLE.get_or_init(|| {
        let seconds = |builder: PrometheusBuilder, name: &str| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &SECONDS)
        };
        let builder = seconds(PrometheusBuilder::new(), ATTEMPT_SECONDS).and_then(|it| seconds(it, CALL_SECONDS));
        let recorder = match builder {
            // What stands is set whenever somebody asks: what isn't is gone from the host.
            Ok(builder) => builder.idle_timeout(MetricKindMask::GAUGE, Some(UPKEEP * 12)).build_recorder(),
            Err(error) => {
                tracing::error!("there will be no metrics: {error}");
                return None;
            }
        };
        let handle = recorder.handle();
        if let Err(error) = metrics::set_global_recorder(recorder) {
            tracing::error!("there will be no metrics: {error}");
            return None;
        }
        describe();
        Some(handle)
    });
}

fn describe() {
    describe_gauge!(READY, "1 if the host can take events, as /readyz says");
    describe_gauge!(CHECK, "1 if this check of /readyz is well");
    describe_counter!(REQUESTS, "Requests to the sources, by the status that answered them");
    describe_counter!(EVENTS, "Verified events, by what became of them");
    describe_counter!(ATTEMPTS, "Attempts at deliveries, by how they ended");
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "How long attempts took");
    describe_counter!(CALLS, "Calls of modules to their platforms, by how they were answered");
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "How long those calls took");
    describe_counter!(CALLS_MADE_AGAIN, "Calls made a second time, because it was not known whether they had happened");
    describe_counter!(
        ANSWERS_REPAIRED,
        "Things in answers of platforms that were not as documented, and were read all the same"
    );
    describe_counter!(MISSED_WAKEUPS, "Deliveries that were due but not scheduled, found by the sweep");
    describe_gauge!(DELIVERIES, "Deliveries in the journal, by state");
    describe_gauge!(JOURNAL_BYTES, Unit::Bytes, "How large the journal is on disk");
    describe_gauge!(PAUSED, "1 if the module is paused, and its deliveries wait");
    describe_gauge!(LOADED, "Versions of the module in memory: those that serve, and those deliveries still run on");
    describe_counter!(SWAPS, "Versions that came to serve, by where they came from");
    describe_counter!(SWAPS_REFUSED, "Versions that may not serve, by what they failed at");
    describe_counter!(CANARIES, "Trials of versions that are over, by how they ended");
    describe_counter!(LOG_LINES_DROPPED, "Lines of the log that could not be written, and were dropped");
    describe_gauge!(
        SERVES,
        "1 if a version of the module serves, 0 if none does and its deliveries wait for a component"
    );
}

/// Gathers what was measured since the last time; without it, it would only grow.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// All figures, in Prometheus' text format.
pub fn render() -> String {
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// What became of a verified event.
#[derive(Clone, Copy, Debug)]
pub enum EventOutcome {
    /// It is on disk.
    Taken,
    /// It was taken before.
    Again,
    /// No module wants it.
    Unwanted,
    /// It is to come again later.
    PutOff,
    /// It can't be read as an event, and is kept for operators.
    Unreadable,
    /// It is a question for the endpoint itself, and was answered.
    Challenge,
}

/// Counts a request to a source.
pub fn request(source: &Name, status: u16) {
    counter!(REQUESTS, "source" => source.as_str().to_owned(), "status" => status.to_string()).increment(1);
}

/// Counts a verified event.
pub fn event(source: &Name, tenant: &Name, outcome: EventOutcome) {
    let outcome = match outcome {
        EventOutcome::Taken => "taken",
        EventOutcome::Again => "again",
        EventOutcome::Unwanted => "unwanted",
        EventOutcome::PutOff => "put_off",
        EventOutcome::Unreadable => "unreadable",
        EventOutcome::Challenge => "challenge",
    };
    let (source, tenant) = (source.as_str().to_owned(), tenant.as_str().to_owned());
    counter!(EVENTS, "source" => source, "tenant" => tenant, "outcome" => outcome).increment(1);
}

/// Counts an attempt at a delivery, by the state it left the delivery in.
pub fn attempt(module: &Name, tenant: &Name, state: &'static str, took: Duration) {
    let (module, tenant) = (module.as_str().to_owned(), tenant.as_str().to_owned());
    histogram!(ATTEMPT_SECONDS, "module" => module.clone()).record(took);
    counter!(ATTEMPTS, "module" => module, "tenant" => tenant, "state" => state).increment(1);
}

/// Counts deliveries that were due and that the scheduler didn't know of.
pub fn missed_wakeups(deliveries: u64) {
    counter!(MISSED_WAKEUPS).increment(deliveries);
}

/// The figures of the calls of one import that were answered alike.
struct CallFigures {
    count: Counter,
    seconds: Histogram,
}

thread_local! {
    /// Those this thread has counted calls in: to look them up by their labels takes longer than to count.
    static CALL_FIGURES: RefCell<HashMap<(Import, &'static str), CallFigures>> = RefCell::default();
}

/// Counts a call to a platform.
pub fn call(import: Import, outcome: &'static str, took: Duration) {
    // Figures that nobody keeps must not be remembered: somebody may begin to.
    if HANDLE.get().is_none() {
        return;
    }
    CALL_FIGURES.with_borrow_mut(|known| {
        let figures = known.entry((import, outcome)).or_insert_with(|| CallFigures {
            count: counter!(CALLS, "import" => import.as_str(), "outcome" => outcome),
            seconds: histogram!(CALL_SECONDS, "import" => import.as_str()),
        });
        figures.count.increment(1);
        figures.seconds.record(took);
    });
}

/// Counts calls that were made a second time.
pub fn calls_made_again(count: u64) {
    counter!(CALLS_MADE_AGAIN).increment(count);
}

/// Counts what was not as documented in an answer of a platform; `answer` is what was read, `kind` what was odd.
pub fn platform_answer_repaired(answer: &'static str, kind: &'static str, count: u64) {
    counter!(ANSWERS_REPAIRED, "answer" => answer, "kind" => kind).increment(count);
}

/// Reports whether the host is ready, and which of its checks are well.
pub fn ready(checks: &[(&'static str, bool)]) {
    let value = |is_well: bool| f64::from(u8::from(is_well));
    for (check, is_well) in checks {
        gauge!(CHECK, "check" => *check).set(value(*is_well));
    }
    gauge!(READY).set(value(checks.iter().all(|(_, is_well)| *is_well)));
}

/// Records the number of deliveries in each state, and the size of the journal on disk in bytes.
pub fn journal(deliveries: impl IntoIterator<Item = (&'static str, u64)>, bytes: u64) {
    for (state, count) in deliveries {
        gauge!(DELIVERIES, "state" => state).set(count as f64);
    }
    gauge!(JOURNAL_BYTES).set(bytes as f64);
}

/// Records how many log lines have been dropped since the process started.
pub fn log_lines_dropped(total: u64) {
    counter!(LOG_LINES_DROPPED).absolute(total);
}

/// Says how a module stands: whether a version serves, whether its deliveries wait, how many versions are in memory.
pub fn module(module: &Name, serves: bool, paused: bool, loaded: usize) {
    let module = module.as_str();
    gauge!(SERVES, "module" => module.to_owned()).set(f64::from(u8::from(serves)));
    gauge!(PAUSED, "module" => module.to_owned()).set(f64::from(u8::from(paused)));
    gauge!(LOADED, "module" => module.to_owned()).set(loaded as f64);
}

/// Counts a version that came to serve.
pub fn swap(module: &Name, origin: &'static str) {
    counter!(SWAPS, "module" => module.as_str().to_owned(), "origin" => origin).increment(1);
}

/// What a version failed at.
#[derive(Clone, Copy, Debug)]
pub enum RefusedBy {
    /// Its file: it can't be read, isn't a component that fits, or wants more than it is given.
    File,
    /// The dry runs.
    Gate,
}

/// Counts a version that may not serve.
pub fn swap_refused(module: &Name, by: RefusedBy) {
    let by = match by {
        RefusedBy::File => "file",
        RefusedBy::Gate => "gate",
    };
    counter!(SWAPS_REFUSED, "module" => module.as_str().to_owned(), "by" => by).increment(1);
}

/// How the trial of a version ended.
#[derive(Clone, Copy, Debug)]
pub enum CanaryEnd {
    /// It serves.
    TookOver,
    /// It did worse.
    WentBack,
    /// A person ended it.
    Aborted,
    /// Something else came to serve or to be tried.
    Replaced,
}

/// Counts the trial of a version that is over.
pub fn canary(module: &Name, end: CanaryEnd) {
    let outcome = match end {
        CanaryEnd::TookOver => "took_over",
        CanaryEnd::WentBack => "went_back",
        CanaryEnd::Aborted => "aborted",
        CanaryEnd::Replaced => "replaced",
    };
    counter!(CANARIES, "module" => module.as_str().to_owned(), "outcome" => outcome).increment(1);
}
