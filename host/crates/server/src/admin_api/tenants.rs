//! What each tenant uses: for the admin API and for metrics.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{Admin, ApiError, ApiResult};
use modhost_core::event::Name;
use modhost_core::import::Interface;
use modhost_core::suggest;
use modhost_core::tenant_meter::{self, ConnectionKind, Gauges, Snapshot};

/// What a tenant uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantView {
    /// Its name.
    pub name: String,
    /// Whether it is in the settings. Otherwise it was removed from them, and the journal still has records of it.
    pub configured: bool,
    /// The weight of its share of the CPU time. `None` if it isn't in the settings.
    pub cpu_weight: Option<u32>,
    /// The number of its running deliveries.
    pub running: u64,
    /// The number of its waiting deliveries, due or not.
    pub waiting: u64,
    /// How long the delivery that has waited longest has been due, in seconds. `None` if none is due.
    pub longest_wait_seconds: Option<f64>,
    /// The CPU time of its modules since the host started, in seconds.
    pub cpu_seconds: f64,
    /// The number of cores that its modules kept busy in the last minute, on average.
    pub cpu_cores: f64,
    /// Its share of the CPU time of all modules in the last minute, from 0 to 1. `None` if no module used any.
    pub cpu_share: Option<f64>,
    /// The time for which its modules could have continued and waited for a guest thread since the host started, in
    /// seconds.
    pub cpu_wait_seconds: f64,
    /// The memory of its running modules, in bytes.
    pub memory_bytes: u64,
    /// The size of its records in the journal, in bytes.
    pub journal_bytes: u64,
    /// The part of it that belongs to waiting and running deliveries, in bytes.
    pub journal_unfinished_bytes: u64,
    /// The number of calls that its modules made since the host started, by interface.
    pub calls: BTreeMap<String, u64>,
    /// The number of its connections in use: to its platform and model, and of its modules' HTTP requests.
    pub connections: BTreeMap<String, u64>,
}

/// Returns all tenants.
pub(super) async fn list(State(admin): State<Admin>) -> ApiResult<Value> {
    Ok(Json(json!({ "tenants": views(&admin).await? })))
}

/// Returns one tenant.
pub(super) async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> ApiResult<TenantView> {
    let tenants = views(&admin).await?;
    if let Some(tenant) = tenants.iter().find(|tenant| tenant.name == name) {
        return Ok(Json(tenant.clone()));
    }
    let known: Vec<&str> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    let advice = suggest::advice(&name, &known);
    Err(ApiError(StatusCode::NOT_FOUND, format!("there is no tenant {name} in modules.toml; {advice}")))
}

/// Returns the views of all tenants, sorted by name.
async fn views(admin: &Admin) -> Result<Vec<TenantView>, ApiError> {
    let (gauges, weights) = (gauges(admin).await?, weights(admin));
    let snapshots: HashMap<Name, Snapshot> =
        tenant_meter::snapshots().into_iter().map(|snapshot| (snapshot.tenant.clone(), snapshot)).collect();
    let recent_cpu: Duration = snapshots.values().map(|snapshot| snapshot.recent_cpu).sum();
    let mut views: Vec<TenantView> = gauges
        .into_iter()
        .map(|(name, gauges)| {
            let cpu_weight = weights.get(&name).copied().flatten();
            TenantView::new(&name, cpu_weight, &gauges, snapshots.get(&name), recent_cpu)
        })
        .collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(views)
}

/// Returns the weights of the tenants. Tenants that are not in the settings have none.
fn weights(admin: &Admin) -> HashMap<Name, Option<u32>> {
    admin.dispatcher.tenants().into_iter().map(|(name, status)| (name, status.cpu_weight)).collect()
}

/// Returns what each tenant has now: deliveries, memory, and records in the journal.
pub(super) async fn gauges(admin: &Admin) -> Result<HashMap<Name, Gauges>, ApiError> {
    let mut tenants: HashMap<Name, Gauges> = HashMap::new();
    for (name, status) in admin.dispatcher.tenants() {
        let gauges = tenants.entry(name).or_default();
        (gauges.running, gauges.memory) = (status.running, status.memory);
    }
    for lane in admin.journal.lanes().await? {
        tenants.entry(lane.tenant).or_default().waiting += lane.waiting;
    }
    let now = SystemTime::now();
    for due in admin.journal.due(1).await? {
        let gauges = tenants.entry(due.tenant).or_default();
        gauges.longest_wait = gauges.longest_wait.max(Some(now.duration_since(due.since).unwrap_or_default()));
    }
    for usage in admin.journal.usage() {
        let gauges = tenants.entry(usage.tenant).or_default();
        (gauges.journal, gauges.journal_unfinished) = (usage.bytes, usage.unfinished_bytes);
    }
    Ok(tenants)
}

impl TenantView {
    fn new(
        name: &Name,
        cpu_weight: Option<u32>,
        gauges: &Gauges,
        snapshot: Option<&Snapshot>,
        recent_cpu_of_all: Duration,
    ) -> Self {
        let totals = snapshot.map(|snapshot| snapshot.totals).unwrap_or_default();
        let (recent_cpu, recent) = snapshot.map(|snapshot| (snapshot.recent_cpu, snapshot.recent)).unwrap_or_default();
        let calls = Interface::ALL.map(|interface| (interface.as_str().to_owned(), totals.calls(interface)));
        let connections = ConnectionKind::ALL.map(|kind| {
            let count = snapshot.map(|snapshot| snapshot.meter.connections(kind)).unwrap_or_default();
            (kind.name().to_owned(), count)
        });
        Self {
            name: name.to_string(),
            configured: cpu_weight.is_some(),
            cpu_weight,
            running: gauges.running,
            waiting: gauges.waiting,
            longest_wait_seconds: gauges.longest_wait.map(|wait| wait.as_secs_f64()),
            cpu_seconds: totals.cpu().as_secs_f64(),
            cpu_cores: ratio(recent_cpu, recent).unwrap_or_default(),
            cpu_share: ratio(recent_cpu, recent_cpu_of_all),
            cpu_wait_seconds: totals.cpu_wait().as_secs_f64(),
            memory_bytes: gauges.memory,
            journal_bytes: gauges.journal,
            journal_unfinished_bytes: gauges.journal_unfinished,
            calls: calls.into(),
            connections: connections.into(),
        }
    }
}

fn ratio(part: Duration, whole: Duration) -> Option<f64> {
    (!whole.is_zero()).then(|| part.as_secs_f64() / whole.as_secs_f64())
}
