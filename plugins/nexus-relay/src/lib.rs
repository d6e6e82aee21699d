//! Answers in NexusGPT threads with predefined answers to frequent questions and commands. Messages without a
//! predefined answer are left to the virtual employee.

mod split;

use std::collections::BTreeMap;

use modhost_sdk::nexus::{MESSAGE_LIMIT, MessageFinalized, Sender, Status};
use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

/// The command that lists the phrases.
const HELP: &str = "/help";

fn answer(message: MessageFinalized) -> Result<()> {
    let relay = Relay::from_settings()?;
    match relay.answer_to(&message) {
        Ok(answer) => {
            for part in split::parts(&answer, MESSAGE_LIMIT) {
                messages::create(part).complete()?;
            }
            info!("answered {}", message.id);
        }
        Err(reason) => debug!("ignored {}: {reason}", message.id),
    }
    Ok(())
}

/// The predefined answers.
struct Relay {
    /// The answers, by phrase.
    answers: BTreeMap<String, String>,
    /// The answer to all other messages.
    otherwise: Option<String>,
}

impl Relay {
    fn from_settings() -> Result<Self> {
        let answers = config::parse("answers")?.unwrap_or_default();
        Ok(Self { answers, otherwise: config::get("otherwise")? })
    }

    /// Returns the answer to a message, or the reason why there is none.
    fn answer_to(&self, message: &MessageFinalized) -> Result<String, &'static str> {
        if message.sender != Sender::User {
            return Err("the sender is not a person");
        }
        if message.status != Status::Processed {
            return Err("it is incomplete");
        }
        let text = message.content.trim();
        if self.is_own_message(text) {
            return Err("this module wrote it");
        }
        let answer = if text.eq_ignore_ascii_case(HELP) { Some(self.help()) } else { self.find(text) };
        answer.or_else(|| self.otherwise.clone()).ok_or("no phrase matches")
    }

    /// Returns the answer to the longest phrase in a text. A command has to be its first word.
    fn find(&self, text: &str) -> Option<String> {
        let text = normalize(text);
        let matches = |phrase: &str| {
            let phrase = normalize(phrase);
            match phrase.trim().starts_with('/') {
                true => text.starts_with(&phrase),
                false => !phrase.trim().is_empty() && text.contains(&phrase),
            }
        };
        let matching = self.answers.iter().filter(|(phrase, _)| matches(phrase));
        matching.max_by_key(|(phrase, _)| phrase.len()).map(|(_, answer)| answer.clone())
    }

    fn help(&self) -> String {
        let phrases: String = self.answers.keys().map(|phrase| format!("- {phrase}\n")).collect();
        if phrases.is_empty() {
            return "No answers are configured yet.".to_owned();
        }
        format!("I can answer these phrases:\n{phrases}")
    }

    /// Returns whether this module could have written a text. The platform doesn't identify messages written through
    /// its API. If such a message arrives as a person's, the module must not answer itself.
    fn is_own_message(&self, text: &str) -> bool {
        let help = self.help();
        let answers = self.answers.values().chain(&self.otherwise).chain([&help]);
        answers.into_iter().any(|answer| split::parts(answer, MESSAGE_LIMIT).iter().any(|part| part.trim() == text))
    }
}

/// Normalizes a text for comparison: lowercase words with a space around each, so that `pay` doesn't match `paying`.
fn normalize(text: &str) -> String {
    let is_word_char = |c: char| c.is_alphanumeric() || c == '/';
    let words = text.split(|c| !is_word_char(c)).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |line, word| line + &word.to_lowercase() + " ")
}

#[cfg(test)]
mod tests {
    use modhost_sdk::{Event, FromEvent};

    use super::*;

    fn relay() -> Relay {
        let answers = [
            ("opening hours", "Monday to Friday, 8 to 18."),
            ("opening hours on holidays", "We are closed on holidays."),
            ("/status", "All systems are up."),
        ];
        let answers = answers.map(|(phrase, answer)| (phrase.to_owned(), answer.to_owned()));
        Relay { answers: answers.into(), otherwise: None }
    }

    fn message(sender: &str, status: &str, content: &str) -> MessageFinalized {
        MessageFinalized::from_event(Event::new(
            "MESSAGE_FINALIZED",
            json!({ "id": "m_1", "chatId": "t_1", "senderType": sender, "status": status, "content": content }),
        ))
        .unwrap()
    }

    fn asked(relay: &Relay, content: &str) -> Result<String, &'static str> {
        relay.answer_to(&message("USER", "PROCESSED", content))
    }

    #[test]
    fn answers_the_longest_matching_phrase() {
        let relay = relay();
        assert_eq!(asked(&relay, "What are your Opening\n hours?").unwrap(), "Monday to Friday, 8 to 18.");
        assert_eq!(asked(&relay, "Opening hours on holidays?").unwrap(), "We are closed on holidays.");
        assert_eq!(asked(&relay, "Who is opening? Hours pass."), Ok("Monday to Friday, 8 to 18.".to_owned()));
        assert!(asked(&relay, "Reopening hours").is_err());
        assert!(asked(&relay, "Hello").is_err());
        assert!(asked(&relay, "").is_err());
    }

    #[test]
    fn command_has_to_be_the_first_word() {
        let relay = relay();
        assert_eq!(asked(&relay, " /STATUS please").unwrap(), "All systems are up.");
        assert!(asked(&relay, "see /status").is_err());
        assert!(asked(&relay, "/statusreport").is_err());
        let help = asked(&relay, "/help").unwrap();
        assert!(help.contains("- /status\n") && help.contains("- opening hours on holidays\n"), "{help}");
        assert!(asked(&Relay { answers: BTreeMap::new(), otherwise: None }, "/help").unwrap().contains("No answers"));
    }

    #[test]
    fn uses_the_fallback_answer_if_no_phrase_matches() {
        let relay = Relay { otherwise: Some("I don't know that.".into()), ..relay() };
        assert_eq!(asked(&relay, "Hello").unwrap(), "I don't know that.");
    }

    #[test]
    fn never_answers_itself() {
        let relay = Relay { otherwise: Some("Ask me about opening hours.".into()), ..relay() };
        for (sender, status) in [("VIRTUAL_EMPLOYEE", "PROCESSED"), ("USER", "IN_PROGRESS"), ("SYSTEM", "PROCESSED")] {
            assert!(relay.answer_to(&message(sender, status, "/status")).is_err(), "{sender} {status}");
        }
        let help = asked(&relay, "/help").unwrap();
        for own in ["All systems are up.", "Ask me about opening hours.", &help] {
            assert_eq!(asked(&relay, own), Err("this module wrote it"), "{own}");
        }
        let long = format!("{}opening hours", "word ".repeat(1000));
        let relay = Relay { answers: [("x".to_owned(), long.clone())].into(), otherwise: None };
        for part in split::parts(&long, MESSAGE_LIMIT) {
            assert!(asked(&relay, part).is_err());
        }
    }
}
