//! The progress steps shown under the reply.

use crate::bindings::modhost::module::message_log as wit;
use crate::error::Error;
use crate::json::Json;
use crate::reference::Reference;

/// A progress step shown under the reply, with a spinner until it is closed.
///
/// ```no_run
/// # use modhost_sdk::prelude::*;
/// # fn example() -> Result<()> {
/// let step = Step::start("Searching knowledge base…")?;
/// let hits = Search::new("travel policy").run()?;
/// step.text(format!("Found {} relevant documents", hits.len())).done()?;
/// # Ok(())
/// # }
/// ```
///
/// You don't have to close a step. When the delivery ends, the host closes open steps: as done if the function returned
/// `Ok`, as failed if it returned an error, panicked or was stopped. So `?` between `start` and `done` is safe.
/// Dropping a step doesn't close it, because only the host knows how the delivery ends. Call [`fail`](Step::fail) if a
/// step failed and the module continues without its result.
#[derive(Debug)]
#[must_use = "the step shows a spinner until `done`, `fail` or the end of the delivery"]
pub struct Step {
    entry: wit::Entry,
    change: wit::Change,
}

impl Step {
    /// Creates a step below the earlier ones.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let step = Step::start("Generating response…")?;
    /// step.done()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(text: impl AsRef<str>) -> Result<Self, Error> {
        let entry = wit::Entry::create(text.as_ref(), wit::Status::Running).map_err(Error::of("message-log.create"))?;
        Ok(Self { entry, change: unchanged() })
    }

    /// Sets a new text. The next [`update`](Step::update), [`done`](Step::done) or [`fail`](Step::fail) shows it.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(step: Step) -> Result<()> {
    /// step.text("Found 3 relevant documents").done()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.change.text = Some(text.into());
        self
    }

    /// Sets details in the platform's own shape, an object. Shown like [`text`](Step::text).
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(step: Step) -> Result<()> {
    /// step.details(json!({ "data": [{ "type": "WebSearch", "text": "travel policy" }] })).done()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn details(mut self, details: impl Into<Json>) -> Self {
        self.change.details = Some(details.into().into_text());
        self
    }

    /// Sets the sources the step found. Shown like [`text`](Step::text).
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(step: Step, hits: Vec<Hit>) -> Result<()> {
    /// step.references(Reference::from_hits(&hits)).done()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn references(mut self, references: impl IntoIterator<Item = Reference>) -> Self {
        self.change.references = references.into_iter().map(Into::into).collect();
        self
    }

    /// Shows the changes so far and leaves the step open.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(pages: Vec<String>) -> Result<()> {
    /// let mut step = Step::start("Reading…")?;
    /// for (n, page) in pages.iter().enumerate() {
    ///     step = step.text(format!("Reading page {} of {}…", n + 1, pages.len())).update()?;
    /// }
    /// step.done()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn update(mut self) -> Result<Self, Error> {
        let change = std::mem::replace(&mut self.change, unchanged());
        self.send(&change)?;
        Ok(self)
    }

    /// Closes the step as done.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let step = Step::start("Counting…")?;
    /// step.text("Counted to 10").done()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn done(self) -> Result<(), Error> {
        self.close(wit::Status::Completed)
    }

    /// Closes the step as failed. The delivery may still succeed.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example() -> Result<()> {
    /// let step = Step::start("Searching knowledge base…")?;
    /// let hits = match Search::new("travel policy").run() {
    ///     Ok(hits) => {
    ///         step.done()?;
    ///         hits
    ///     }
    ///     Err(error) => {
    ///         warn!("continuing without sources: {error}");
    ///         step.text("The knowledge base is unavailable").fail()?;
    ///         vec![]
    ///     }
    /// };
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail(self) -> Result<(), Error> {
        self.close(wit::Status::Failed)
    }

    /// Returns the platform's id of the step.
    ///
    /// ```no_run
    /// # use modhost_sdk::prelude::*;
    /// # fn example(step: Step) {
    /// debug!("showing step {}", step.id());
    /// # }
    /// ```
    pub fn id(&self) -> String {
        self.entry.id()
    }

    fn close(mut self, status: wit::Status) -> Result<(), Error> {
        self.change.status = Some(status);
        self.send(&self.change)
    }

    fn send(&self, change: &wit::Change) -> Result<(), Error> {
        self.entry.update(change).map_err(Error::of("message-log.update"))
    }
}

fn unchanged() -> wit::Change {
    wit::Change { text: None, status: None, details: None, references: Vec::new() }
}
