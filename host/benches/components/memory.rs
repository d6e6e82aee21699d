//! What instances take that live at the same time.

use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use async_trait::async_trait;
use modhost::capabilities::{Begin, Delivery, Grants, Tape};
use modhost::engine::{Engine, Spec, SwapPolicy};
use modhost::event::{DeliveryId, Event, Header, Name};
use modhost::keyvalue;
use modhost::limits::Limits;
use modhost::platform::{Caller, ErrorKind, NewStep, Platform, PlatformError, Result};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::host::resident;

/// How many live at once; as many as there are places in the pool.
const INSTANCES: usize = 200;

/// A platform that keeps everyone waiting, and counts them.
struct Waiting {
    waiting: Semaphore,
    go_on: Semaphore,
}

#[async_trait]
impl Platform for Waiting {
    fn lacks(&self, what: &str) -> PlatformError {
        PlatformError::new(ErrorKind::Unsupported, format!("it has no {what}"))
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> Result<String> {
        self.waiting.add_permits(1);
        // Closed when all may go.
        let _ = self.go_on.acquire().await;
        Err(self.lacks("steps"))
    }
}

/// Prints what an instance takes that waits in the middle of its work: in a pool nobody has used yet, and in one whose
/// places were used before.
pub fn of_instances(guest: &[u8]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("\n{INSTANCES} instances at once       resident    an instance");
    runtime
        .block_on(async {
            let spec = Spec {
                name: Name::from("Bench"),
                component: "".into(),
                limits: Limits::default(),
                grants: Grants::default(),
                swap: SwapPolicy::default(),
            };
            let engine = Engine::new(INSTANCES).map_err(|error| anyhow!("{error:?}"))?;
            let version = Arc::new(engine.load(guest.to_vec(), &spec).await?);
            for what in ["the first time", "once more"] {
                let before = resident("self")?;
                let platform = Arc::new(Waiting { waiting: Semaphore::new(0), go_on: Semaphore::new(0) });
                let run = |number| {
                    let (version, platform) = (version.clone(), platform.clone());
                    tokio::spawn(async move { version.run(&delivery(number, platform)).await })
                };
                let running: Vec<_> = (0..INSTANCES).map(run).collect();
                let _all = platform.waiting.acquire_many(u32::try_from(INSTANCES)?).await?;
                let after = resident("self")?;
                platform.go_on.close();
                for ended in running {
                    ended.await?;
                }
                ensure!(after > before || what != "the first time", "{INSTANCES} instances took nothing");
                let each = after.saturating_sub(before) / INSTANCES as u64;
                println!("{what:<24} {:>8} MiB {:>10} KiB", after >> 20, each >> 10);
            }
            anyhow::Ok(())
        })
        .context("instances that live at once")
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
    let tape = Tape::off(DeliveryId::new(&event, &module));
    Arc::new(Delivery::new(Begin {
        event,
        module,
        attempt: 1,
        platform,
        keyvalue: Arc::new(keyvalue::Rehearsal),
        tape,
        limits: Limits::default(),
        tenant_memory: None,
        salt: [0; 32],
    }))
}
