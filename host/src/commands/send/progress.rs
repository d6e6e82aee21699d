//! The progress of an answer: what changed between two polls of the chat.

use super::client::{Chat, Message, Status, Step};

/// Follows the answer to one message of the user.
pub struct Progress {
    user_message: String,
    exchange: Exchange,
}

/// The messages between a message of the user and the next one.
#[derive(Default)]
pub struct Exchange {
    /// The answer.
    pub answer: Option<Message>,
    /// Other messages of assistants.
    pub further: Vec<Message>,
}

impl Progress {
    /// Follows the message with this id.
    pub fn new(user_message: &str) -> Self {
        Self { user_message: user_message.to_owned(), exchange: Exchange::default() }
    }

    /// Updates the progress from the current chat. Returns new and changed steps.
    pub fn observe(&mut self, chat: Chat) -> Vec<Step> {
        let exchange = Exchange::of(&self.user_message, chat);
        let changed =
            exchange.steps().filter(|step| !self.exchange.steps().any(|before| before == *step)).cloned().collect();
        self.exchange = exchange;
        changed
    }

    /// Returns whether the answer is complete.
    pub fn is_answered(&self) -> bool {
        let answer = self.exchange.answer.as_ref();
        answer.is_some_and(|answer| answer.completed_at.is_some() || answer.stopped_streaming_at.is_some())
    }

    /// Returns the text so far of an incomplete answer.
    pub fn draft(&self) -> Option<&str> {
        let answer = self.exchange.answer.as_ref().filter(|_| !self.is_answered())?;
        answer.shown_text.as_deref().or(answer.text.as_deref()).filter(|text| !text.trim().is_empty())
    }

    /// Returns whether a step is running.
    pub fn is_running(&self) -> bool {
        self.exchange.steps().any(|step| step.status == Status::Running)
    }

    /// Returns whether the module or a step failed.
    pub fn has_failed(&self) -> bool {
        self.exchange.failure().is_some() || self.exchange.steps().any(|step| step.status == Status::Failed)
    }

    /// Returns the messages so far.
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }
}

impl Exchange {
    fn of(user_message: &str, chat: Chat) -> Self {
        let after = chat.messages.into_iter().skip_while(|message| message.id != user_message).skip(1);
        let mut further: Vec<Message> =
            after.take_while(|message| message.role != "USER").filter(|message| message.role == "ASSISTANT").collect();
        // The platform links an answer to its question. Without a link, the first message is the answer.
        let is_linked = |message: &Message| message.previous_message_id.as_deref() == Some(user_message);
        let index = further.iter().position(is_linked).unwrap_or(0);
        let answer = (index < further.len()).then(|| further.remove(index));
        Self { answer, further }
    }

    /// Returns why the module failed, if it did. The answer is an apology then.
    pub fn failure(&self) -> Option<&str> {
        self.answer.as_ref()?.failure.as_deref()
    }

    /// Returns all steps, in the order they are shown.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.answer.iter().chain(&self.further).flat_map(|message| &message.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, role: &str) -> Message {
        Message { id: id.into(), role: role.into(), ..Message::default() }
    }

    fn step(id: &str, status: Status) -> Step {
        Step { id: id.into(), text: format!("step {id}"), status }
    }

    fn chat(messages: Vec<Message>) -> Chat {
        Chat { messages, ..Chat::default() }
    }

    fn answering(steps: Vec<Step>) -> Chat {
        chat(vec![message("u", "USER"), Message { steps, ..message("a", "ASSISTANT") }])
    }

    #[test]
    fn reports_only_changed_steps() {
        let mut progress = Progress::new("u");
        assert_eq!(progress.observe(chat(vec![message("u", "USER")])), []);
        let running = step("1", Status::Running);
        assert_eq!(progress.observe(answering(vec![running.clone()])), std::slice::from_ref(&running));
        assert_eq!(progress.observe(answering(vec![running.clone()])), []);
        assert!(progress.is_running());

        let done = step("1", Status::Completed);
        let failed = step("2", Status::Failed);
        assert!(!progress.has_failed());
        assert_eq!(progress.observe(answering(vec![done.clone(), failed.clone()])), [done.clone(), failed.clone()]);
        assert!(progress.has_failed() && !progress.is_running());

        let renamed = Step { text: "found 3".into(), ..done };
        assert_eq!(progress.observe(answering(vec![renamed.clone(), failed])), [renamed]);
    }

    #[test]
    fn either_timestamp_completes_the_answer() {
        let timestamp = Some("2026-01-01T00:00:00Z".to_owned());
        let completed = Message { completed_at: timestamp.clone(), ..message("a", "ASSISTANT") };
        let streamed = Message { stopped_streaming_at: timestamp, ..message("a", "ASSISTANT") };
        for (answer, expected) in [(completed, true), (streamed, true), (message("a", "ASSISTANT"), false)] {
            let mut progress = Progress::new("u");
            progress.observe(chat(vec![message("u", "USER"), answer]));
            assert_eq!(progress.is_answered(), expected);
        }
    }

    #[test]
    fn draft_is_the_text_of_an_incomplete_answer() {
        let draft = |answer: Message| {
            let mut progress = Progress::new("u");
            progress.observe(chat(vec![message("u", "USER"), answer]));
            progress.draft().map(str::to_owned)
        };
        let shown = Message { shown_text: Some("Book".into()), ..message("a", "ASSISTANT") };
        assert_eq!(draft(message("a", "ASSISTANT")), None);
        assert_eq!(draft(shown.clone()).as_deref(), Some("Book"));
        assert_eq!(draft(Message { text: Some("Old".into()), ..shown.clone() }).as_deref(), Some("Book"));
        assert_eq!(draft(Message { text: Some("Old".into()), ..message("a", "ASSISTANT") }).as_deref(), Some("Old"));
        assert_eq!(draft(Message { completed_at: Some("2026-01-01T00:00:00Z".into()), ..shown }), None);
    }

    #[test]
    fn ignores_messages_of_other_exchanges() {
        let timestamp = Some("2026-01-01T00:00:00Z".to_owned());
        let before = Message { completed_at: timestamp.clone(), ..message("a0", "ASSISTANT") };
        let other = Message { completed_at: timestamp, ..message("a2", "ASSISTANT") };
        let mut progress = Progress::new("u1");
        progress.observe(chat(vec![
            message("u0", "USER"),
            before,
            message("u1", "USER"),
            message("u2", "USER"),
            other,
        ]));
        assert!(
            !progress.is_answered() && progress.exchange().answer.is_none() && progress.exchange().further.is_empty()
        );
    }

    #[test]
    fn linked_message_is_the_answer() {
        let extra = message("x", "ASSISTANT");
        let answer = Message { previous_message_id: Some("u".into()), ..message("a", "ASSISTANT") };
        let mut progress = Progress::new("u");
        progress.observe(chat(vec![message("u", "USER"), extra.clone(), answer]));
        assert_eq!(progress.exchange().answer.as_ref().map(|it| it.id.as_str()), Some("a"));
        assert_eq!(progress.exchange().further[0].id, "x");

        progress.observe(chat(vec![message("u", "USER"), extra]));
        assert_eq!(progress.exchange().answer.as_ref().map(|it| it.id.as_str()), Some("x"));
    }
}
