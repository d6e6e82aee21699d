//! `[[source]]` with `kind = "event-socket"`: read into its settings.

use std::time::Duration;

use super::items;
use crate::reference::{self, Reference};
use crate::source::{EventSocket, can_be_subscribed_to};
use crate::table::{Table, Value};

/// The settings only an event socket has.
pub(super) const SOCKET_SETTINGS: [&str; 5] = ["url", "company", "subscriptions", "reconnect_after", "silence"];

/// The settings every webhook has or can have. Those of single schemes are merely unknown here.
const WEBHOOK_SETTINGS: [&str; 5] = ["path", "scheme", "secrets", "event", "events_per_second"];

/// What the address of a stream looks like.
const STREAM_EXAMPLE: &str = "https://gateway.<tenant>.unique.app/public/event-socket/events/stream";

/// The least time between two connections: the platform is not to be flooded with them.
const SHORTEST: Duration = Duration::from_secs(1);

pub(super) fn event_socket(table: &Table<'_>) -> EventSocket {
    refuse_all(
        table,
        &WEBHOOK_SETTINGS,
        "an event socket",
        "remove it: the host fetches these events with the key of the tenant's platform; nothing is posted or signed",
    );
    let default = EventSocket::default();
    let time = |key, default| table.get(key).and_then(|value| at_least_shortest(&value)).unwrap_or(default);
    EventSocket {
        url: table.get("url").and_then(|value| address(&value)),
        company: table.get("company").and_then(|value| reference::read(&value)),
        subscriptions: table.get("subscriptions").map(|value| subscriptions(&value)),
        reconnect_after: time("reconnect_after", default.reconnect_after),
        silence: time("silence", default.silence),
    }
}

/// Reports each of these settings that is there: it belongs to another kind of source.
pub(super) fn refuse_all(table: &Table<'_>, settings: &[&'static str], kind: &str, advice: &str) {
    for setting in settings {
        table.refuse(setting, format!("{kind} has no `{setting}`"), advice);
    }
}

fn address(value: &Value<'_>) -> Option<Reference> {
    let reference = reference::read(value)?;
    if reference.literal().is_some_and(|text| reference::web_address(text).is_none()) {
        value
            .wrong("`url` is neither a reference nor an address", format!("leave it out, or write {STREAM_EXAMPLE:?}"));
        return None;
    }
    Some(reference)
}

fn at_least_shortest(value: &Value<'_>) -> Option<Duration> {
    let time = value.duration()?;
    if time < SHORTEST {
        value.wrong(
            format!("`{}` should be at least a second", value.key),
            "the platform would be flooded with connections; leave it out if in doubt",
        );
        return None;
    }
    Some(time)
}

fn subscriptions(value: &Value<'_>) -> Vec<String> {
    if value.list_is_empty() {
        value.wrong(
            "`subscriptions` is an empty list: no event would come",
            "leave it out for all that modules want, or name some: [\"unique.chat.external-module.chosen\"]",
        );
    }
    items(Some(value.clone())).iter().filter_map(event_name).collect()
}

/// The name of an event as it can stand in the address: the platform knows no patterns.
fn event_name(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    if !can_be_subscribed_to(name) {
        value.wrong(
            format!("\"{name}\" can't be subscribed to"),
            "the platform takes whole names only, such as \"unique.chat.user-message.created\"",
        );
        return None;
    }
    Some(name.to_owned())
}
