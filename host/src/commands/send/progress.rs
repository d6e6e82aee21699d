//! How far an answer is: what changed from one look at the chat to the next.

use super::client::{Chat, Message, Status, Step};

/// Follows what becomes of one message of the user.
pub struct Progress {
    user_message: String,
    turn: Exchange,
}

/// What came after a message of the user, before the next.
#[derive(Default)]
pub struct Exchange {
    /// The message that answers it.
    pub answer: Option<Message>,
    /// Whatever else assistants wrote.
    pub further: Vec<Message>,
}

impl Progress {
    /// Follows this message.
    pub fn new(user_message: &str) -> Self {
        Self { user_message: user_message.to_owned(), turn: Exchange::default() }
    }

    /// Takes in the chat as it is now; returns the steps that are new or changed.
    pub fn observe(&mut self, chat: Chat) -> Vec<Step> {
        let turn = Exchange::of(&self.user_message, chat);
        let changed = turn.steps().filter(|step| !self.turn.steps().any(|before| before == *step)).cloned().collect();
        self.turn = turn;
        changed
    }

    /// Whether the answer is complete.
    pub fn is_answered(&self) -> bool {
        let answer = self.turn.answer.as_ref();
        answer.is_some_and(|answer| answer.completed_at.is_some() || answer.stopped_streaming_at.is_some())
    }

    /// What there is to read of an answer that is still being written.
    pub fn draft(&self) -> Option<&str> {
        let answer = self.turn.answer.as_ref().filter(|_| !self.is_answered())?;
        answer.shown_text.as_deref().or(answer.text.as_deref()).filter(|text| !text.trim().is_empty())
    }

    /// Whether a step is still running.
    pub fn is_running(&self) -> bool {
        self.turn.steps().any(|step| step.status == Status::Running)
    }

    /// Whether a step failed, or the module itself.
    pub fn has_failed(&self) -> bool {
        self.turn.failure().is_some() || self.turn.steps().any(|step| step.status == Status::Failed)
    }

    /// What there is by now.
    pub fn turn(&self) -> &Exchange {
        &self.turn
    }
}

impl Exchange {
    fn of(user_message: &str, chat: Chat) -> Self {
        let after = chat.messages.into_iter().skip_while(|message| message.id != user_message).skip(1);
        let mut further: Vec<Message> =
            after.take_while(|message| message.role != "USER").filter(|message| message.role == "ASSISTANT").collect();
        // The platform says which message answers which; if it doesn't, the first one is meant.
        let names_ours = |message: &Message| message.previous_message_id.as_deref() == Some(user_message);
        let place = further.iter().position(names_ours).unwrap_or(0);
        let answer = (place < further.len()).then(|| further.remove(place));
        Self { answer, further }
    }

    /// Why the module failed, if it did: what it was to fill has an apology.
    pub fn failure(&self) -> Option<&str> {
        self.answer.as_ref()?.failure.as_deref()
    }

    /// All steps, in the order they are shown.
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
    fn tells_only_what_changed() {
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
    fn either_stamp_completes_the_answer() {
        let stamp = Some("2026-01-01T00:00:00Z".to_owned());
        let completed = Message { completed_at: stamp.clone(), ..message("a", "ASSISTANT") };
        let streamed = Message { stopped_streaming_at: stamp, ..message("a", "ASSISTANT") };
        for (answer, expected) in [(completed, true), (streamed, true), (message("a", "ASSISTANT"), false)] {
            let mut progress = Progress::new("u");
            progress.observe(chat(vec![message("u", "USER"), answer]));
            assert_eq!(progress.is_answered(), expected);
        }
    }

    #[test]
    fn an_unfinished_answer_can_be_read() {
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
    fn sees_only_its_own_turn() {
        let stamp = Some("2026-01-01T00:00:00Z".to_owned());
        let before = Message { completed_at: stamp.clone(), ..message("a0", "ASSISTANT") };
        let other = Message { completed_at: stamp, ..message("a2", "ASSISTANT") };
        let mut progress = Progress::new("u1");
        progress.observe(chat(vec![
            message("u0", "USER"),
            before,
            message("u1", "USER"),
            message("u2", "USER"),
            other,
        ]));
        assert!(!progress.is_answered() && progress.turn().answer.is_none() && progress.turn().further.is_empty());
    }

    #[test]
    fn the_answer_is_the_message_that_says_so() {
        let extra = message("x", "ASSISTANT");
        let answer = Message { previous_message_id: Some("u".into()), ..message("a", "ASSISTANT") };
        let mut progress = Progress::new("u");
        progress.observe(chat(vec![message("u", "USER"), extra.clone(), answer]));
        assert_eq!(progress.turn().answer.as_ref().map(|it| it.id.as_str()), Some("a"));
        assert_eq!(progress.turn().further[0].id, "x");

        progress.observe(chat(vec![message("u", "USER"), extra]));
        assert_eq!(progress.turn().answer.as_ref().map(|it| it.id.as_str()), Some("x"));
    }
}
