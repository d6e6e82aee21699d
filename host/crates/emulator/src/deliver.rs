//! Delivers events to the subscribers of the event socket and to the app's registered endpoint, with signatures,
//! retries and expiry as in the platform's documentation.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde::Serialize;
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::event_socket::Subscribers;
use super::events::{Envelope, VERSION};
use super::settings::{COMPANY_ID, ENDPOINT_SECRET, USER_ID};
use super::wire::Stamp;
use modhost_core::sync::lock;

/// Maximum number of retries after the first attempt.
const RETRIES: u32 = 5;

/// Time limit for an endpoint's response.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Maximum number of delivery records kept.
const MAX_RECORDS: usize = 1000;

/// Delivers events.
pub struct Deliverer {
    client: reqwest::Client,
    retry_delay: Duration,
    endpoint: Mutex<Endpoint>,
    subscribers: Subscribers,
    records: Mutex<VecDeque<Record>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Endpoint {
    url: Option<Url>,
    /// The response that marked it as expired.
    expired: Option<String>,
}

/// The record of an event's delivery.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    event_id: String,
    event: &'static str,
    created_at: Stamp,
    attempts: u32,
    status: Status,
    answer: Option<String>,
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The first attempt is running or due.
    Pending,
    /// Waiting for a retry.
    Retrying,
    /// Answered with a 2xx, or sent over the event socket.
    Delivered,
    /// Failed after the last retry.
    Failed,
    /// Answered with a status that marks the endpoint as expired.
    Refused,
    /// Not sent: no endpoint is registered, or it is expired.
    Skipped,
}

/// The outcome of an attempt.
enum Outcome {
    Delivered(String),
    /// Retry, after this delay if the endpoint sent one.
    Retry(String, Option<Duration>),
    Refused(String),
    Skipped(String),
}

impl Deliverer {
    /// Creates a deliverer that runs until `stop` is canceled.
    pub fn new(
        url: Option<Url>,
        retry_delay: Duration,
        subscribers: Subscribers,
        stop: CancellationToken,
    ) -> reqwest::Result<Arc<Self>> {
        // The platform doesn't follow redirects: it retries after a 3xx as after a 5xx. No proxy is used, since the
        // endpoint is on this machine or near it.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_WITHIN)
            .no_proxy()
            .build()?;
        Ok(Arc::new(Self {
            client,
            retry_delay,
            endpoint: Mutex::new(Endpoint { url, expired: None }),
            subscribers,
            records: Mutex::default(),
            tasks: TaskTracker::new(),
            stop,
        }))
    }

    /// Sends events in the background, in order: the first attempt of an event ends before the next event is sent, but
    /// retries don't block later events.
    pub fn deliver(self: &Arc<Self>, events: Vec<Envelope>) {
        for event in &events {
            self.remember(event);
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            for event in events {
                if this.publish(&event) {
                    continue;
                }
                if let Some(delay) = this.attempt(&event, 1).await {
                    this.tasks.spawn(Arc::clone(&this).retry(event, delay));
                }
            }
        });
    }

    /// Returns the subscribers of the event socket.
    pub fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Sends an event to the subscribers of the event socket. Returns `true` if that completes the delivery: a
    /// subscriber received it, and no endpoint is registered.
    fn publish(&self, event: &Envelope) -> bool {
        // The subscribers are for the only company that assistants without a tenant have.
        if event.company_id != COMPANY_ID {
            return false;
        }
        let Ok(body) = serde_json::to_string(event) else { return false };
        let reached = self.subscribers.send(event.event, &body);
        let is_all = reached > 0 && self.endpoint().url.is_none();
        if is_all {
            let answer = format!("sent over the event socket, subscribers: {reached}");
            self.record(event, 1, Status::Delivered, answer);
        }
        is_all
    }

    /// Sets the endpoint. A new endpoint is not expired.
    pub fn set_url(&self, url: Url) {
        *self.endpoint() = Endpoint { url: Some(url), expired: None };
    }

    /// Reactivates an expired endpoint; returns `false` if it isn't expired.
    pub fn revive(&self) -> bool {
        let was_expired = self.endpoint().expired.take().is_some();
        if was_expired {
            tracing::info!("webhook endpoint reactivated");
        }
        was_expired
    }

    /// Returns the delivery records, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.all_records().iter().cloned().collect()
    }

    /// Waits until all delivery tasks have ended; call it after canceling `stop`.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn retry(self: Arc<Self>, event: Envelope, first_delay: Duration) {
        let mut delay = first_delay;
        for attempt in 2..=RETRIES + 1 {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.cancelled() => return,
            }
            match self.attempt(&event, attempt).await {
                Some(next) => delay = next,
                None => return,
            }
        }
    }

    /// Makes one attempt and records its outcome; returns the delay before the next attempt, if there is one.
    async fn attempt(&self, event: &Envelope, attempt: u32) -> Option<Duration> {
        let outcome = tokio::select! {
            outcome = self.send(event) => outcome,
            () = self.stop.cancelled() => return None,
        };
        match outcome {
            Outcome::Delivered(answer) => self.record(event, attempt, Status::Delivered, answer),
            Outcome::Skipped(reason) => self.record(event, attempt - 1, Status::Skipped, reason),
            Outcome::Refused(answer) => {
                // The registered endpoint doesn't expire for another one.
                if event.endpoint.is_none() {
                    self.expire(event, &answer);
                }
                self.record(event, attempt, Status::Refused, answer);
            }
            Outcome::Retry(answer, _) if attempt > RETRIES => {
                tracing::warn!(event = event.event, id = event.id, %answer, attempts = attempt, "cannot deliver event; giving up");
                self.record(event, attempt, Status::Failed, answer);
            }
            Outcome::Retry(answer, named) => {
                let wait = named.unwrap_or_else(|| self.retry_delay.saturating_mul(1 << (attempt - 1)));
                tracing::warn!(event = event.event, id = event.id, %answer, retry_in = ?wait, "cannot deliver event; retrying");
                self.record(event, attempt, Status::Retrying, answer);
                return Some(wait);
            }
        }
        None
    }

    async fn send(&self, event: &Envelope) -> Outcome {
        let url = if let Some(url) = &event.endpoint {
            url.clone()
        } else {
            let endpoint = self.endpoint();
            if let Some(answer) = &endpoint.expired {
                return Outcome::Skipped(format!("not sent: the endpoint expired when it answered {answer}"));
            }
            match &endpoint.url {
                Some(url) => url.clone(),
                None => {
                    return Outcome::Skipped(
                        "not sent: no webhook endpoint is registered, and no event socket subscribes to it".to_owned(),
                    );
                }
            }
        };
        let body = match serde_json::to_vec(event) {
            Ok(body) => body,
            Err(error) => return Outcome::Skipped(format!("not sent: the event can't be written as JSON: {error}")),
        };
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("X-Unique-Id", &event.id)
            .header("X-Unique-Signature", signature(&body))
            .header("X-Unique-Version", VERSION)
            .header("X-Unique-Created-At", Stamp::now().unix_seconds())
            .header("X-Unique-User-Id", USER_ID)
            .header("X-Unique-Company-Id", &event.company_id)
            .body(body);
        match request.send().await {
            Ok(response) => read_answer(response.status(), response.headers()),
            Err(error) => Outcome::Retry(describe(&error), None),
        }
    }

    fn expire(&self, event: &Envelope, answer: &str) {
        let mut endpoint = self.endpoint();
        let url = endpoint.url.as_ref().map(Url::to_string).unwrap_or_default();
        endpoint.expired = Some(format!("{answer} to {}", event.id));
        tracing::error!(
            url,
            event = event.event,
            id = event.id,
            %answer,
            help = "fix the endpoint, then reactivate it with POST /local/endpoint/revive on the local platform",
            "webhook endpoint expired: the platform sends no further events after this answer"
        );
    }

    fn remember(&self, event: &Envelope) {
        let mut records = self.all_records();
        if records.len() == MAX_RECORDS {
            records.pop_front();
        }
        records.push_back(Record {
            event_id: event.id.clone(),
            event: event.event,
            created_at: Stamp::now(),
            attempts: 0,
            status: Status::Pending,
            answer: None,
        });
    }

    fn record(&self, event: &Envelope, attempts: u32, status: Status, answer: String) {
        let mut records = self.all_records();
        if let Some(record) = records.iter_mut().rfind(|record| record.event_id == event.id) {
            *record = Record { attempts, status, answer: Some(answer), ..record.clone() };
        }
    }

    fn endpoint(&self) -> MutexGuard<'_, Endpoint> {
        lock(&self.endpoint)
    }

    fn all_records(&self) -> MutexGuard<'_, VecDeque<Record>> {
        lock(&self.records)
    }
}

/// Returns the lowercase hex HMAC-SHA256 of the body, keyed with the endpoint secret.
fn signature(body: &[u8]) -> String {
    // HMAC accepts keys of any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(ENDPOINT_SECRET.as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes any key"));
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn read_answer(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let answer = status.to_string();
    if status.is_success() {
        Outcome::Delivered(answer)
    } else if status.is_redirection() || status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let named = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
        Outcome::Retry(answer, named)
    } else {
        Outcome::Refused(answer)
    }
}

/// Parses `Retry-After`: seconds or an HTTP date.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// Returns the root cause of an HTTP client error: its own message only names the address.
pub fn describe(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_retry_after_in_both_forms() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
