//! The host's metrics, served in the Prometheus text format at `/metrics` of the admin listener.
//!
//! Label values are names from modules.toml, imports of the contract and constants of the host. Outside parties cannot
//! choose label values, so they cannot increase the number of time series. Tenants beyond a maximum number share one
//! label ([`tenant_meter::label`]).

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
use crate::tenant_meter;

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
const SETTINGS_FILES_REFUSED: &str = "modhost_settings_files_refused";
const HOSTS: &str = "modhost_hosts";
const HOSTS_WITH_OTHER_SETTINGS: &str = "modhost_hosts_with_other_settings";
const HOST_LEASES_LOST: &str = "modhost_host_leases_lost_total";
const JOURNAL_BYTES: &str = "modhost_journal_bytes";
const SERVES: &str = "modhost_module_serves";
const PAUSED: &str = "modhost_module_paused";
const LOADED: &str = "modhost_module_versions_loaded";
const SWAPS: &str = "modhost_swaps_total";
const SWAPS_REFUSED: &str = "modhost_swaps_refused_total";
const CANARIES: &str = "modhost_canaries_total";
const LOG_LINES_DROPPED: &str = "modhost_log_lines_dropped_total";

/// Histogram buckets in seconds, from the duration of a trivial module to the longest completion.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// The interval between calls of [`upkeep`].
pub const UPKEEP: Duration = Duration::from_secs(5);

/// The process's recorder; `None` inside if it could not be set up.
static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Starts recording metrics. Further calls have no effect.
pub fn start() {
    HANDLE.get_or_init(|| {
        let seconds = |builder: PrometheusBuilder, name: &str| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &SECONDS)
        };
        let builder = seconds(PrometheusBuilder::new(), ATTEMPT_SECONDS).and_then(|it| seconds(it, CALL_SECONDS));
        let recorder = match builder {
            // Gauges are set on every scrape. One that is no longer set describes something that no longer exists, and
            // expires.
            Ok(builder) => builder.idle_timeout(MetricKindMask::GAUGE, Some(UPKEEP * 12)).build_recorder(),
            Err(error) => {
                tracing::error!(%error, "metrics are disabled");
                return None;
            }
        };
        let handle = recorder.handle();
        if let Err(error) = metrics::set_global_recorder(recorder) {
            tracing::error!(%error, "metrics are disabled");
            return None;
        }
        describe();
        Some(handle)
    });
}

fn describe() {
    describe_gauge!(READY, "1 if the host accepts events, as reported by /readyz");
    describe_gauge!(CHECK, "1 if this check of /readyz passes");
    describe_counter!(REQUESTS, "Requests to the sources, by HTTP response status");
    describe_counter!(EVENTS, "Verified events, by outcome");
    describe_counter!(ATTEMPTS, "Delivery attempts, by the state they leave the delivery in");
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "Duration of attempts");
    describe_counter!(CALLS, "Calls of modules to platforms, by outcome");
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "Duration of calls of modules to platforms");
    describe_counter!(
        CALLS_MADE_AGAIN,
        "Calls repeated because the host could not know whether they had been carried out"
    );
    describe_counter!(
        ANSWERS_REPAIRED,
        "Deviations from the documented format that the host repaired in responses of platforms"
    );
    describe_counter!(MISSED_WAKEUPS, "Deliveries that were due but not scheduled, found by the sweep");
    describe_gauge!(DELIVERIES, "Deliveries in the journal, by state");
    describe_gauge!(SETTINGS_FILES_REFUSED, "Included settings files that the host refuses");
    describe_gauge!(HOSTS, "Live hosts that share the storage, this one included");
    describe_gauge!(HOSTS_WITH_OTHER_SETTINGS, "Live hosts whose settings differ from those of this one");
    describe_counter!(
        HOST_LEASES_LOST,
        "Times that this host stopped everything because the storage confirmed no heartbeat"
    );
    describe_gauge!(JOURNAL_BYTES, Unit::Bytes, "Size of the journal on disk");
    describe_gauge!(PAUSED, "1 if an operator paused the module and its deliveries wait");
    describe_gauge!(
        LOADED,
        "Versions of the module in memory: those that serve, and those that deliveries still run on"
    );
    describe_counter!(SWAPS, "Versions that started to serve, by origin");
    describe_counter!(SWAPS_REFUSED, "Versions that were rejected, by the check that failed");
    describe_counter!(CANARIES, "Canaries that have ended, by outcome");
    describe_counter!(LOG_LINES_DROPPED, "Log lines that could not be written and were dropped");
    describe_gauge!(
        SERVES,
        "1 if a version of the module serves, 0 if none does and its deliveries wait for a component"
    );
}

/// Drains the samples of histograms; without it, their buffers would grow without limit.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// Returns all metrics in the Prometheus text format.
pub fn render() -> String {
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// The outcome of a verified event.
#[derive(Clone, Copy, Debug)]
pub enum EventOutcome {
    /// The event is recorded on disk.
    Recorded,
    /// The event is a duplicate.
    Duplicate,
    /// No module wants the event.
    Unwanted,
    /// The event was refused for now; the sender should retry.
    Deferred,
    /// The body cannot be read as an event; it was refused and is kept for operators.
    Unreadable,
    /// The platform's verification request for the endpoint, which was answered.
    Challenge,
}

/// Counts a request to a source.
pub fn request(source: &Name, status: u16) {
    counter!(REQUESTS, "source" => source.as_str().to_owned(), "status" => status.to_string()).increment(1);
}

/// Counts a verified event.
pub fn event(source: &Name, tenant: &Name, outcome: EventOutcome) {
    let outcome = match outcome {
        EventOutcome::Recorded => "taken",
        EventOutcome::Duplicate => "again",
        EventOutcome::Unwanted => "unwanted",
        EventOutcome::Deferred => "put_off",
        EventOutcome::Unreadable => "unreadable",
        EventOutcome::Challenge => "challenge",
    };
    let (source, tenant) = (source.as_str().to_owned(), tenant_meter::label(tenant));
    counter!(EVENTS, "source" => source, "tenant" => tenant, "outcome" => outcome).increment(1);
}

/// Counts an attempt, by the state in which it left the delivery.
pub fn attempt(module: &Name, tenant: &Name, state: &'static str, took: Duration) {
    let (module, tenant) = (module.as_str().to_owned(), tenant_meter::label(tenant));
    histogram!(ATTEMPT_SECONDS, "module" => module.clone()).record(took);
    counter!(ATTEMPTS, "module" => module, "tenant" => tenant, "state" => state).increment(1);
}

/// Counts deliveries that were due and that the scheduler had not scheduled.
pub fn missed_wakeups(deliveries: u64) {
    counter!(MISSED_WAKEUPS).increment(deliveries);
}

/// The metrics of one import's calls with one outcome.
struct CallMetrics {
    count: Counter,
    seconds: Histogram,
}

thread_local! {
    /// The metric handles that this thread has used: a lookup by labels takes longer than counting. Most calls succeed, so
    /// the handles of successful calls are in an array, by import.
    static CALL_METRICS: RefCell<KnownMetrics> = RefCell::default();
}

/// The metric handles of calls.
#[derive(Default)]
struct KnownMetrics {
    ok: [Option<CallMetrics>; Import::ALL.len()],
    others: HashMap<(Import, &'static str), CallMetrics>,
}

/// The outcome of a successful call.
pub const OK: &str = "ok";

/// Counts a call to a platform.
pub fn call(import: Import, outcome: &'static str, took: Duration) {
    // Without a recorder the handles do nothing. They must not be cached, because recording may start later.
    if HANDLE.get().is_none() {
        return;
    }
    CALL_METRICS.with_borrow_mut(|known| {
        let new = || CallMetrics {
            count: counter!(CALLS, "import" => import.as_str(), "outcome" => outcome),
            seconds: histogram!(CALL_SECONDS, "import" => import.as_str()),
        };
        let metrics = match outcome {
            OK => known.ok[import as usize].get_or_insert_with(new),
            _ => known.others.entry((import, outcome)).or_insert_with(new),
        };
        metrics.count.increment(1);
        metrics.seconds.record(took);
    });
}

/// Counts calls that were repeated.
pub fn calls_made_again(count: u64) {
    counter!(CALLS_MADE_AGAIN).increment(count);
}

/// Counts deviations from the documented format in a platform's response; `answer` is the type of the response, `kind`
/// the deviation.
pub fn platform_answer_repaired(answer: &'static str, kind: &'static str, count: u64) {
    counter!(ANSWERS_REPAIRED, "answer" => answer, "kind" => kind).increment(count);
}

/// Records whether the host is ready, and which of its checks pass.
pub fn ready(checks: &[(&'static str, bool)]) {
    let value = |passes: bool| f64::from(u8::from(passes));
    for (check, passes) in checks {
        gauge!(CHECK, "check" => *check).set(value(*passes));
    }
    gauge!(READY).set(value(checks.iter().all(|(_, passes)| *passes)));
}

/// Records the number of deliveries in each state, and the size of the journal on disk in bytes.
pub fn journal(deliveries: impl IntoIterator<Item = (&'static str, u64)>, bytes: u64) {
    for (state, count) in deliveries {
        gauge!(DELIVERIES, "state" => state).set(count as f64);
    }
    gauge!(JOURNAL_BYTES).set(bytes as f64);
}

/// Sets the number of included settings files that the host refuses.
pub fn settings_files_refused(count: usize) {
    gauge!(SETTINGS_FILES_REFUSED).set(count as f64);
}

/// Sets the number of live hosts that share the storage, and how many of them have other settings than this one.
pub fn cluster_hosts(alive: u32, differing: u32) {
    gauge!(HOSTS).set(f64::from(alive));
    gauge!(HOSTS_WITH_OTHER_SETTINGS).set(f64::from(differing));
}

/// Counts a lease of this host that ended because no heartbeat was confirmed in time.
pub fn host_lease_lost() {
    counter!(HOST_LEASES_LOST).increment(1);
}

/// Records how many log lines have been dropped since the process started.
pub fn log_lines_dropped(total: u64) {
    counter!(LOG_LINES_DROPPED).absolute(total);
}

/// Records the state of a module: whether a version serves, whether its deliveries are paused, and the number of
/// versions in memory.
pub fn module(module: &Name, serves: bool, paused: bool, loaded: usize) {
    let module = module.as_str();
    gauge!(SERVES, "module" => module.to_owned()).set(f64::from(u8::from(serves)));
    gauge!(PAUSED, "module" => module.to_owned()).set(f64::from(u8::from(paused)));
    gauge!(LOADED, "module" => module.to_owned()).set(loaded as f64);
}

/// Counts a version that started to serve.
pub fn swap(module: &Name, origin: &'static str) {
    counter!(SWAPS, "module" => module.as_str().to_owned(), "origin" => origin).increment(1);
}

/// The check that rejected a version.
#[derive(Clone, Copy, Debug)]
pub enum RefusedBy {
    /// The file: it is unreadable, incompatible, or exceeds its limits.
    File,
    /// The dry runs.
    Gate,
}

/// Counts a version that was rejected.
pub fn swap_refused(module: &Name, by: RefusedBy) {
    let by = match by {
        RefusedBy::File => "file",
        RefusedBy::Gate => "gate",
    };
    counter!(SWAPS_REFUSED, "module" => module.as_str().to_owned(), "by" => by).increment(1);
}

/// The outcome of a canary.
#[derive(Clone, Copy, Debug)]
pub enum CanaryEnd {
    /// It was promoted.
    Promoted,
    /// It was rolled back.
    RolledBack,
    /// An operator aborted it.
    Aborted,
    /// Another version or canary replaced it.
    Replaced,
}

/// Counts a canary that has ended.
pub fn canary(module: &Name, end: CanaryEnd) {
    let outcome = match end {
        CanaryEnd::Promoted => "took_over",
        CanaryEnd::RolledBack => "went_back",
        CanaryEnd::Aborted => "aborted",
        CanaryEnd::Replaced => "replaced",
    };
    counter!(CANARIES, "module" => module.as_str().to_owned(), "outcome" => outcome).increment(1);
}
