//! A well-behaved module of another tenant, and the times of its deliveries.

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use crate::harness::{Host, PATIENCE, signed_post, user_message};

/// The company of the neighbor's tenant.
pub const COMPANY: &str = "company_tame";

/// Lines of its entry in modules.toml.
pub const ENTRY: &str = "events = [\"unique.chat.user-message.created\"]\ntenants = [\"tame\"]";

/// Sends events to the neighbor and measures its deliveries.
pub struct Neighbour<'a> {
    host: &'a Host,
    sent: std::cell::Cell<u32>,
}

/// Times of deliveries, from the post of the event to their end.
pub struct Latencies {
    /// The number of deliveries.
    pub count: usize,
    median: Duration,
    worst: Duration,
}

impl<'a> Neighbour<'a> {
    pub fn new(host: &'a Host) -> Self {
        Self { host, sent: 0.into() }
    }

    /// Sends one event after the other while `other` runs.
    pub async fn answers_while<T>(&self, other: impl Future<Output = T>) -> (T, Latencies) {
        let mut took = Vec::new();
        let (mut other, mut ended) = (pin!(other), None);
        while ended.is_none() {
            let mut answer = pin!(self.answers());
            let time = loop {
                tokio::select! {
                    biased;
                    time = &mut answer => break time,
                    value = &mut other, if ended.is_none() => ended = Some(value),
                }
            };
            took.push(time);
        }
        (ended.unwrap(), Latencies::of(took))
    }

    async fn answers(&self) -> Duration {
        self.sent.set(self.sent.get() + 1);
        let id = format!("evt_neighbour_{}", self.sent.get());
        let mut event = user_message(&id, "hear kv-count-and answered|nothing");
        event["companyId"] = COMPANY.into();
        let started = Instant::now();
        assert!(signed_post(&self.host.webhook, event.to_string()).await.status().is_success());
        // All earlier deliveries have completed too.
        while self.host.lines(&["completed", "module=Neighbour "]) < self.sent.get() as usize {
            assert!(started.elapsed() < PATIENCE, "the neighbor doesn't answer:\n{}", self.host.log());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started.elapsed()
    }
}

impl Latencies {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self { count: times.len(), median: times[times.len() / 2], worst: times[times.len() - 1] }
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        write!(f, "{:>14}{:>10}", ms(self.median), ms(self.worst))
    }
}
