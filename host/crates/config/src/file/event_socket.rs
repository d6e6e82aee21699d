//! Reads a `[[source]]` with `kind = "event-socket"`.

use std::time::Duration;

use super::items;
use crate::reference::{self, Reference};
use crate::source::{EventSocket, can_be_subscribed_to};
use crate::table::{Table, Value};

/// The settings that only an event socket has.
pub(super) const SOCKET_SETTINGS: [&str; 5] = ["url", "company", "subscriptions", "reconnect_after", "silence"];

/// The settings that every webhook can have. The settings of single schemes are reported as unknown here.
const WEBHOOK_SETTINGS: [&str; 5] = ["path", "scheme", "secrets", "event", "events_per_second"];

/// An example of the URL of a stream.
const STREAM_EXAMPLE: &str = "https://gateway.<tenant>.unique.app/public/event-socket/events/stream";

/// The minimum time between two connections, so that the host does not flood the platform.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn event_socket(table: &Table<'_>) -> EventSocket {
    reject_all(
        table,
        &WEBHOOK_SETTINGS,
        "an event socket",
        "remove it: the host fetches the events with the key of the tenant's platform; nothing is posted or signed",
    );
    let default = EventSocket::default();
    let time = |key, default| table.get(key).and_then(|value| interval(&value)).unwrap_or(default);
    EventSocket {
        url: table.get("url").and_then(|value| address(&value)),
        company: table.get("company").and_then(|value| reference::read(&value)),
        subscriptions: table.get("subscriptions").map(|value| subscriptions(&value)),
        reconnect_after: time("reconnect_after", default.reconnect_after),
        silence: time("silence", default.silence),
    }
}

/// Reports each of these settings that is present: it belongs to another kind of source.
pub(super) fn reject_all(table: &Table<'_>, settings: &[&'static str], kind: &str, advice: &str) {
    for setting in settings {
        table.reject_key(setting, format!("{kind} has no `{setting}`"), advice);
    }
}

fn address(value: &Value<'_>) -> Option<Reference> {
    let reference = reference::read(value)?;
    if reference.literal().is_some_and(|text| reference::parse_url(text).is_none()) {
        value.reject("`url` is neither a reference nor a URL", format!("remove it, or write {STREAM_EXAMPLE:?}"));
        return None;
    }
    Some(reference)
}

fn interval(value: &Value<'_>) -> Option<Duration> {
    let time = value.duration()?;
    if time < MIN_INTERVAL {
        value.reject(
            format!("`{}` must be at least one second", value.key),
            "shorter times flood the platform with connections; remove the line to use the default",
        );
        return None;
    }
    Some(time)
}

fn subscriptions(value: &Value<'_>) -> Vec<String> {
    if value.list_is_empty() {
        value.reject(
            "`subscriptions` is empty: no events would arrive",
            "remove it to subscribe to all events that modules handle, or name some: [\"unique.chat.external-module.chosen\"]",
        );
    }
    items(Some(value.clone())).iter().filter_map(event_name).collect()
}

/// Reads the name of an event. The platform does not support patterns.
fn event_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    if !can_be_subscribed_to(name) {
        value.reject(
            format!("cannot subscribe to \"{name}\""),
            "the platform accepts whole names only, such as \"unique.chat.user-message.created\"",
        );
        return None;
    }
    Some(name.to_owned())
}
