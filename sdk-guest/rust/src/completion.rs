//! Language model completions. Calls are slow and cost money: one call may take minutes.

use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bindings::modhost::module::completion as wit;
use crate::error::Error;
use crate::json::Json;
use crate::messages::{self, Role};
use crate::search::Hit;

/// A request to a language model.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let answer = Completion::new()
///     .system("You translate into French.")
///     .user("Where is the station?")
///     .temperature(0.3)
///     .run()?;
/// messages::reply(answer.text).complete()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "the request is not sent until `run`, `into_reply` or `stream` is called"]
pub struct Completion(wit::Request);

impl Completion {
    /// Creates an empty request. Add messages to it.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().user("What is the capital of Assyria?");
    /// ```
    #[expect(clippy::new_without_default, reason = "an empty request is not a sensible default")]
    pub fn new() -> Self {
        Self(wit::Request {
            model: None,
            messages: Vec::new(),
            temperature: None,
            max_tokens: None,
            options: None,
            timeout_ms: None,
        })
    }

    /// Adds a system message: instructions to the model.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().system("Answer in one word.").user("Is it raining?");
    /// ```
    pub fn system(self, content: impl Into<String>) -> Self {
        self.message(Role::System, content)
    }

    /// Adds a user message.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().user("Is it raining?");
    /// ```
    pub fn user(self, content: impl Into<String>) -> Self {
        self.message(Role::User, content)
    }

    /// Adds an assistant message, as if the model had written it.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().user("2+2?").assistant("4").user("3+3?");
    /// ```
    pub fn assistant(self, content: impl Into<String>) -> Self {
        self.message(Role::Assistant, content)
    }

    /// Adds a message. Add the oldest first.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// use modhost_sdk::Role;
    ///
    /// let question = Completion::new().message(Role::User, "Is it raining?");
    /// ```
    pub fn message(mut self, role: Role, content: impl Into<String>) -> Self {
        self.0.messages.push(wit::Message { role: role.into(), content: content.into() });
        self
    }

    /// Adds messages of the chat, as [`history`](messages::history) returns them. Messages without text, such as the
    /// empty reply, are skipped.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let answer = Completion::new().system("Be brief.").conversation(messages::history(10)?).run()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn conversation(self, messages: impl IntoIterator<Item = messages::Message>) -> Self {
        messages.into_iter().fold(self, |question, message| match message.text {
            Some(text) if !text.is_empty() => question.message(message.role, text),
            _ => question,
        })
    }

    /// Sets the model, by its name on the platform. The default is the tenant's default model.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().model("AZURE_GPT_4o_2024_1120").user("Is it raining?");
    /// ```
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.0.model = Some(name.into());
        self
    }

    /// Sets the sampling temperature, from 0 to 2.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().user("Write a poem.").temperature(1.2);
    /// ```
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.0.temperature = Some(temperature);
        self
    }

    /// Sets the maximum length of the answer, in the model's tokens.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().user("Write a poem.").max_tokens(200);
    /// ```
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.0.max_tokens = Some(tokens);
        self
    }

    /// Sets more options, an object that the platform passes to the model unchanged.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// let question = Completion::new().user("Pick a number.").options(json!({ "top_p": 0.9, "seed": 7 }));
    /// ```
    pub fn options(mut self, options: impl Into<Json>) -> Self {
        self.0.options = Some(options.into().into_text());
        self
    }

    /// Sets a timeout for the answer. The default is the delivery's own time limit.
    ///
    /// ```
    /// # use modhost_sdk::prelude::*;
    /// use std::time::Duration;
    ///
    /// let question = Completion::new().user("Is it raining?").timeout(Duration::from_secs(20));
    /// ```
    pub fn timeout(mut self, wait: Duration) -> Self {
        self.0.timeout_ms = Some(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Waits for the whole answer.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let answer = Completion::new().user("Is it raining?").run()?;
    /// messages::reply(answer.text).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn run(self) -> Result<Answer, Error> {
        wit::complete(&self.0).map(Into::into).map_err(Error::of("completion.complete"))
    }

    /// Streams the answer into the event's reply, then completes the reply. `[source0]` in the answer becomes a
    /// footnote that refers to the first hit, `[source1]` to the second, and so on.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(question: &str) -> Result<()> {
    /// let hits = Search::new(question).limit(3).run()?;
    /// Completion::new().user(question).into_reply(&hits)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_reply(self, hits: &[Hit]) -> Result<Answer, Error> {
        let sources: Vec<_> = hits.iter().map(Into::into).collect();
        let answer = wit::complete_into_reply(&self.0, &sources);
        answer.map(Into::into).map_err(Error::of("completion.complete-into-reply"))
    }

    /// Starts an answer that is read chunk by chunk.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let mut text = String::new();
    /// for piece in Completion::new().user("Tell me a story.").stream()? {
    ///     text += &piece?;
    ///     messages::show(&text)?;
    /// }
    /// messages::reply(text).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(self) -> Result<Tokens, Error> {
        let tokens = wit::stream(&self.0).map_err(Error::of("completion.stream"))?;
        Ok(Tokens(Some(tokens)))
    }
}

/// The model's answer.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let answer = Completion::new().user("Write a poem.").max_tokens(50).run()?;
/// if answer.finish_reason.as_deref() == Some("length") {
///     info!("the poem was truncated");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why the model stopped, in its own terms: `stop`, `length`, …
    pub finish_reason: Option<String>,
    /// The cost, if the platform reports it.
    pub usage: Option<Usage>,
}

/// The cost of an answer, in the model's tokens.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// if let Some(usage) = Completion::new().user("Write a poem.").run()?.usage {
///     info!("{} tokens", usage.prompt_tokens + usage.completion_tokens);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u32,
    /// Tokens written.
    pub completion_tokens: u32,
}

/// An iterator over the chunks of a streamed answer. The platform chooses the chunk size: a platform that doesn't
/// stream sends the whole answer as one chunk. The iterator ends after an error. Dropping it cancels the rest of the
/// answer.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let pieces = Completion::new().user("Tell me a story.").stream()?;
/// let story: String = pieces.collect::<Result<_, _>>()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "chunks are fetched only when the iterator is advanced"]
pub struct Tokens(Option<wit::Tokens>);

/// The minimum interval between two updates of a partial answer.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);

impl Tokens {
    /// Reads the answer to its end and returns the complete text. Meanwhile it [shows](messages::show) the partial text
    /// in place of the reply, at most a few times per second. It doesn't write the reply.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let story = Completion::new().user("Tell me a story.").stream()?.show()?;
    /// messages::reply(story).complete()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn show(self) -> Result<String, Error> {
        let mut text = String::new();
        let mut last: Option<Instant> = None;
        for piece in self {
            text += &piece?;
            if last.is_none_or(|last| last.elapsed() >= SHOW_INTERVAL) {
                messages::show(&text)?;
                last = Some(Instant::now());
            }
        }
        Ok(text)
    }
}

impl Iterator for Tokens {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.as_ref()?.next().map_err(Error::of("completion.tokens.next")).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.0 = None;
        }
        next
    }
}

impl FusedIterator for Tokens {}

impl From<wit::Answer> for Answer {
    fn from(answer: wit::Answer) -> Self {
        Self { text: answer.text, finish_reason: answer.finish_reason, usage: answer.usage.map(Into::into) }
    }
}

impl From<wit::Usage> for Usage {
    fn from(usage: wit::Usage) -> Self {
        Self { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens }
    }
}
