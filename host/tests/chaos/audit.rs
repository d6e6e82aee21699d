//! Compares the guarantees with the requests and the state of the platform.

use std::collections::{BTreeMap, HashMap};

use super::faulty_platform::{FaultyPlatform, Question, RecordedRequest, Reply};

/// The calls that were made more than once.
#[derive(Debug, Default)]
pub struct RepeatedCalls {
    /// Reads, which are free.
    pub reads: usize,
    /// Steps that were shown once too often.
    pub steps: usize,
    /// Messages that were written once too often.
    pub messages: usize,
    /// Completions that were paid once too often.
    pub completions: usize,
    /// Changes that set a value: repeating them has no effect.
    pub changes: usize,
    /// Effects that the current life of the host repeated.
    pub in_last_life: usize,
}

impl RepeatedCalls {
    /// The number of all repeated calls except reads.
    pub fn effects(&self) -> usize {
        self.steps + self.messages + self.completions + self.changes
    }

    /// Counts the repeated calls, and checks that each was in flight when the host was killed or cut off: its delivery had
    /// made no later call with an effect in that life. A delivery that another life continued makes no call in the
    /// earlier one any more.
    pub fn among(seen: &[RecordedRequest], last_life: u32) -> Self {
        let mut keys: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut last_effects: HashMap<(&str, u32), usize> = HashMap::new();
        for (place, call) in seen.iter().enumerate() {
            let (Some(key), Some(delivery)) = (call.key.as_deref(), call.delivery()) else { continue };
            keys.entry(key).or_default().push(place);
            if call.is_effect() {
                last_effects.insert((delivery, call.life), place);
            }
        }
        check_lives(seen);
        let mut repeated = Self::default();
        for (key, places) in keys {
            for pair in places.windows(2) {
                let (first, second) = (&seen[pair[0]], &seen[pair[1]]);
                assert_ne!(first.life, second.life, "{key} was sent twice by one life: {first:?}, {second:?}");
                assert_eq!(
                    (&first.method, &first.path),
                    (&second.method, &second.path),
                    "{key} was used for two calls"
                );
                let last = last_effects.get(&(first.delivery().unwrap(), first.life)).copied().unwrap_or_default();
                // Some calls consist of two requests; the key of the second starts with the key of the first.
                let is_of_the_same_call = seen[last]
                    .key
                    .as_deref()
                    .and_then(|it| it.strip_prefix(key))
                    .is_some_and(|rest| rest.starts_with('-'));
                assert!(
                    last <= pair[0] || is_of_the_same_call,
                    "{first:?} was repeated although the delivery had already made {:?}",
                    seen[last]
                );
                repeated.count(second, last_life);
            }
        }
        repeated
    }

    fn count(&mut self, call: &RecordedRequest, last_life: u32) {
        let kind = match (call.method.as_str(), call.path.as_str()) {
            _ if !call.is_effect() => &mut self.reads,
            ("POST", "/message-log") => &mut self.steps,
            ("POST", "/messages") => &mut self.messages,
            ("POST", "/openai/chat/completions" | "/integrated/chat/stream-completions") => &mut self.completions,
            _ => &mut self.changes,
        };
        *kind += 1;
        self.in_last_life += usize::from(call.is_effect() && call.life == last_life);
    }
}

/// Checks that no life makes a call of a delivery that another life has continued since.
fn check_lives(seen: &[RecordedRequest]) {
    let mut lives: HashMap<&str, Vec<u32>> = HashMap::new();
    for call in seen {
        let Some(delivery) = call.delivery() else { continue };
        let lives = lives.entry(delivery).or_default();
        if lives.last() != Some(&call.life) {
            assert!(
                !lives.contains(&call.life),
                "a call of {delivery} after it was taken over from that life: {call:?}"
            );
            lives.push(call.life);
        }
    }
}

/// Duplicates on the platform.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Surplus {
    pub steps: usize,
    pub messages: usize,
}

/// The parts of an answer to a question.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    pub steps: i64,
    pub new_messages: usize,
}

/// Checks that a question is answered completely; returns the surplus messages and steps.
pub async fn answered(faulty_platform: &FaultyPlatform, question: &Question, expected: Expected) -> Surplus {
    let reply = faulty_platform.reply(question).await;
    assert!(reply.is_complete() && !reply.text().is_empty(), "{question:?}: {reply:?}");
    let messages = faulty_platform.messages(&question.chat).await.len() - 2;
    assert!(messages >= expected.new_messages, "{question:?}: {messages} new messages");
    Surplus { steps: surplus_steps(&reply, expected.steps), messages: messages - expected.new_messages }
}

/// Checks that each step was shown and closed; returns the number of surplus steps, whose answers were lost.
fn surplus_steps(reply: &Reply, expected: i64) -> usize {
    let mut by_order: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (order, _, status) in reply.steps() {
        by_order.entry(order).or_default().push(status);
    }
    assert!(by_order.keys().copied().eq(1..=expected), "{reply:?}");
    for statuses in by_order.values() {
        let closed = statuses.iter().filter(|status| **status == "COMPLETED").count();
        assert!(closed == 1 && statuses.iter().all(|status| matches!(*status, "COMPLETED" | "RUNNING")), "{reply:?}");
    }
    by_order.values().map(|statuses| statuses.len() - 1).sum()
}
