//! Delivering events: to those who listen on the event socket, and to the endpoint the app registered, signed, retried and
//! given up as the platform documents it.

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

/// How often a delivery is tried again after its first attempt.
const RETRIES: u32 = 5;

/// How long an endpoint may take to answer; longer counts as out of reach.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How many deliveries are remembered.
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
    /// What was answered that marked it expired.
    expired: Option<String>,
}

/// What became of an event.
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

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// On its way for the first time.
    Pending,
    /// Waiting for another attempt.
    Retrying,
    /// Answered with a 2xx, or sent over the event socket.
    Delivered,
    /// Given up after the last retry.
    Failed,
    /// Answered with what marks the endpoint expired.
    Refused,
    /// Never sent: there is no endpoint, or it is expired.
    Skipped,
}

/// What an attempt came to.
enum Outcome {
    Delivered(String),
    /// Worth another try, not before this time if the endpoint named one.
    Again(String, Option<Duration>),
    Refused(String),
    Skipped(String),
}

impl Deliverer {
    /// A deliverer to this endpoint and to these subscribers, until `stop`.
    pub fn new(
        url: Option<Url>,
        retry_delay: Duration,
        subscribers: Subscribers,
        stop: CancellationToken,
    ) -> reqwest::Result<Arc<Self>> {
        // The platform follows no redirects: a 3xx is tried again like a 5xx. The endpoint is on this machine or next to
        // it, where no proxy leads.
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

    /// Sends events in the background: the first attempt of each is over before the next one goes out; a retry lets the
    /// others pass.
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

    /// Those who listen on the event socket.
    pub fn subscribers(&self) -> &Subscribers {
        &self.subscribers
    }

    /// Sends an event to those who listen on the event socket. True if that is all there is to do with it: there is no
    /// endpoint.
    fn publish(&self, event: &Envelope) -> bool {
        let Ok(body) = serde_json::to_string(event) else { return false };
        let reached = self.subscribers.send(event.event, &body);
        let is_all = reached > 0 && self.endpoint().url.is_none();
        if is_all {
            let answer = format!("sent over the event socket, to {reached} who listen");
            self.record(event, 1, Status::Delivered, answer);
        }
        is_all
    }

    /// Names the endpoint. A new endpoint is not expired.
    pub fn set_url(&self, url: Url) {
        *self.endpoint() = Endpoint { url: Some(url), expired: None };
    }

    /// Lets events go out again to an expired endpoint; false if it wasn't.
    pub fn revive(&self) -> bool {
        let was_expired = self.endpoint().expired.take().is_some();
        if was_expired {
            tracing::info!("webhook endpoint reactivated");
        }
        was_expired
    }

    /// What became of the events so far, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.all_records().iter().cloned().collect()
    }

    /// Waits until nothing is on its way, after `stop`.
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

    /// Makes one attempt and writes down what came of it; answers with how long to wait for the next, if one is to be.
    async fn attempt(&self, event: &Envelope, attempt: u32) -> Option<Duration> {
        let outcome = tokio::select! {
            outcome = self.send(event) => outcome,
            () = self.stop.cancelled() => return None,
        };
        match outcome {
            Outcome::Delivered(answer) => self.record(event, attempt, Status::Delivered, answer),
            Outcome::Skipped(reason) => self.record(event, attempt - 1, Status::Skipped, reason),
            Outcome::Refused(answer) => {
                self.expire(event, &answer);
                self.record(event, attempt, Status::Refused, answer);
            }
            Outcome::Again(answer, _) if attempt > RETRIES => {
                tracing::warn!(event = event.event, id = event.id, %answer, attempts = attempt, "cannot deliver event; giving up");
                self.record(event, attempt, Status::Failed, answer);
            }
            Outcome::Again(answer, named) => {
                let wait = named.unwrap_or_else(|| self.retry_delay.saturating_mul(1 << (attempt - 1)));
                tracing::warn!(event = event.event, id = event.id, %answer, retry_in = ?wait, "cannot deliver event; retrying");
                self.record(event, attempt, Status::Retrying, answer);
                return Some(wait);
            }
        }
        None
    }

    async fn send(&self, event: &Envelope) -> Outcome {
        let url = {
            let endpoint = self.endpoint();
            if let Some(answer) = &endpoint.expired {
                return Outcome::Skipped(format!("not sent: the endpoint is expired since it answered {answer}"));
            }
            match &endpoint.url {
                Some(url) => url.clone(),
                None => {
                    return Outcome::Skipped(
                        "not sent: no webhook endpoint is registered, and nobody listens to it on the event socket"
                            .to_owned(),
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
            .header("X-Unique-Company-Id", COMPANY_ID)
            .body(body);
        match request.send().await {
            Ok(response) => read_answer(response.status(), response.headers()),
            Err(error) => Outcome::Again(describe(&error), None),
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
            "webhook endpoint expired: the platform sends no further events after this answer; fix the endpoint, then reactivate it with \
             POST /local/endpoint/revive on the local platform"
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

/// Lowercase hex of the HMAC-SHA256 of the body alone, keyed with the endpoint secret.
fn signature(body: &[u8]) -> String {
    // HMAC takes keys of every length.
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
        Outcome::Again(answer, named)
    } else {
        Outcome::Refused(answer)
    }
}

/// Reads `Retry-After`: seconds, or a date of HTTP.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// An error of the HTTP client in the words of its cause: its own names the address and no more.
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
    fn retry_after_is_read_in_both_forms() {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
