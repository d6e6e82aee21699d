//! Measures the memory of concurrent instances.

use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use async_trait::async_trait;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::limits::Limits;
use modhost_platform::{CallError, Caller, ErrorKind, NewStep, Platform, Result};
use modhost_runtime::call_log::CallLog;
use modhost_runtime::capabilities::{AttemptContext, Delivery, Grants};
use modhost_runtime::engine::{Engine, Spec, SwapPolicy, Version};
use modhost_storage::keyvalue;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::process::resident;

/// The number of concurrent instances, as many as pool slots.
const INSTANCES: usize = 200;

/// A platform that blocks and counts its callers.
struct Waiting {
    waiting: Semaphore,
    go_on: Semaphore,
}

#[async_trait]
impl Platform for Waiting {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("it has no {what}"))
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> Result<String> {
        self.waiting.add_permits(1);
        // The semaphore is closed to release all callers.
        let _ = self.go_on.acquire().await;
        Err(self.unsupported("steps"))
    }
}

/// Prints the memory of an instance that waits in the middle of a delivery: in an unused pool, and in one whose slots
/// were used before.
pub fn of_instances(guest: &[u8]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("\n{INSTANCES} instances at once       resident    an instance");
    let taken = runtime.block_on(measure(guest, INSTANCES)).context("instances that live at once")?;
    for (what, MemoryUse { whole, each }) in ["the first time", "once more"].into_iter().zip(taken) {
        println!("{what:<24} {:>8} MiB {:>10} KiB", whole >> 20, each >> 10);
    }
    Ok(())
}

/// The memory of this process, in bytes.
pub struct MemoryUse {
    /// The total while the instances are alive.
    pub whole: u64,
    /// The increase per instance.
    pub each: u64,
}

/// Lets this many instances wait in their first step, twice.
pub async fn measure(guest: &[u8], instances: usize) -> anyhow::Result<[MemoryUse; 2]> {
    let spec = Spec {
        name: Name::from("Bench"),
        tenants: Vec::new(),
        component: "".into(),
        limits: Limits::default(),
        grants: Grants::default(),
        swap: SwapPolicy::default(),
    };
    let engine = Engine::new(instances).map_err(|error| anyhow!("{error:?}"))?;
    let version = Arc::new(engine.load(guest.to_vec(), &spec).await?);
    let first = together(&version, instances).await?;
    ensure!(first.each > 0, "{instances} instances took nothing");
    Ok([first, together(&version, instances).await?])
}

async fn together(version: &Arc<Version>, instances: usize) -> anyhow::Result<MemoryUse> {
    let before = resident("self")?;
    let platform = Arc::new(Waiting { waiting: Semaphore::new(0), go_on: Semaphore::new(0) });
    let run = |number| {
        let (version, platform) = (version.clone(), platform.clone());
        tokio::spawn(async move { version.run(&delivery(number, platform)).await })
    };
    let running: Vec<_> = (0..instances).map(run).collect();
    let _all = platform.waiting.acquire_many(u32::try_from(instances)?).await?;
    let whole = resident("self")?;
    platform.go_on.close();
    for ended in running {
        ended.await?;
    }
    Ok(MemoryUse { whole, each: whole.saturating_sub(before) / instances as u64 })
}

fn delivery(number: usize, platform: Arc<dyn Platform>) -> Arc<Delivery> {
    let payload = json!({
        "name": "Bench", "description": "", "configuration": {}, "chatId": "chat_1", "assistantId": "assistant_1",
        "userMessage": { "id": "msg_1", "text": "May I fly?", "createdAt": "2026-01-01T00:00:00.000Z" },
        "assistantMessage": { "id": "msg_2", "createdAt": "2026-01-01T00:00:00.000Z" },
    })
    .to_string();
    let header = Header {
        id: format!("evt_{number}"),
        source: Name::from("bench"),
        name: Event::MODULE_CHOSEN.to_owned(),
        tenant: Name::from("bench"),
        user_id: Some("user_1".into()),
        company_id: Some("company_1".into()),
        created_at: None,
    };
    let whole = 0..payload.len();
    let event = Arc::new(Event::new(header, payload.into(), whole));
    let module = Name::from("Bench");
    let call_log = CallLog::disabled(DeliveryId::new(&event, &module));
    Arc::new(Delivery::new(AttemptContext {
        event,
        module,
        attempt: 1,
        platform,
        keyvalue: Arc::new(keyvalue::DryRunStore),
        call_log,
        limits: Limits::default(),
        tenant_memory: None,
        tenant_log: None,
        salt: [0; 32],
    }))
}
