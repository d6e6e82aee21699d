//! Runs tests of one module on the real engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::expect::{Difference, failure_of};
use super::file::Test;
use super::http;
use super::observed::{Observed, ObservedCall};
use super::scripted_platform::ScriptedPlatform;
use super::store::TestStore;
use super::update_expected;
use modhost_config::{Module, Settings};
use modhost_core::event::{DeliveryId, Event, Subject};
use modhost_platform::{Message, Role};
use modhost_runtime::call_log::CallLog;
use modhost_runtime::capabilities::{AttemptContext, Delivery};
use modhost_runtime::engine::{Engine, Spec, Version};
use modhost_server::resolved_config;
use modhost_storage::keyvalue::Space;

/// A module to test, with its compiled component.
pub struct TestRun {
    engine: Engine,
    settings: Settings,
    module: Module,
    bytes: Vec<u8>,
    /// Keeps the compiled component in the engine's cache for all tests.
    _version: Version,
}

/// The result of a test.
#[derive(Debug)]
pub struct TestOutcome {
    /// The observed behavior, if the module ran.
    pub observed: Option<Observed>,
    /// Differences from the expectations.
    pub differences: Vec<Difference>,
    /// Other problems, such as an unexpected failure or a missing answer.
    pub problems: Vec<String>,
    /// The duration of the test.
    pub took: Duration,
}

impl TestOutcome {
    /// Returns whether the test passed.
    pub fn passed(&self) -> bool {
        self.differences.is_empty() && self.problems.is_empty()
    }
}

impl TestRun {
    /// Prepares a module.
    ///
    /// # Errors
    ///
    /// If its component cannot be read, is incompatible, or cannot be compiled.
    pub async fn new(engine: &Engine, settings: &Settings, module: &Module) -> anyhow::Result<Self> {
        let file = module.component.display();
        let bytes = std::fs::read(&module.component).with_context(|| format!("cannot read {file}"))?;
        let spec = resolved_config::spec(module);
        let version = engine.load(bytes.clone(), &spec).await.with_context(|| format!("cannot run {file}"))?;
        let (engine, settings, module) = (engine.clone(), settings.clone(), module.clone());
        Ok(Self { engine, settings, module, bytes, _version: version })
    }

    /// Runs a test.
    pub async fn run(&self, test: &Test) -> TestOutcome {
        let started = Instant::now();
        let (observed, mut problems) = match self.run_module(test).await {
            Ok((observed, unanswered)) => (Some(observed), unanswered),
            Err(error) => (None, vec![format!("{error:#}")]),
        };
        let mut differences = Vec::new();
        if let Some(observed) = &observed {
            differences = test.expected.differences(observed, &test.text);
            if let Some(failure) = failure_of(&observed.ended).filter(|_| !test.expected.expects_failure()) {
                problems.push(unexpected_failure(&failure.reason, observed));
            }
        }
        TestOutcome { observed, differences, problems, took: started.elapsed() }
    }

    /// Runs the module on the event of a test. Returns the observed behavior, and requests without an answer.
    async fn run_module(&self, test: &Test) -> anyhow::Result<(Observed, Vec<String>)> {
        let event = Arc::new(test.event.event(&self.module, &self.settings, test.time)?);
        let spec = self.spec(test);
        let version = self.engine.load(self.bytes.clone(), &spec).await?;
        let scripted_platform = Arc::new(ScriptedPlatform::new(&test.answers, user_message(&event)));
        let space = Space { tenant: event.tenant.clone(), module: self.module.name.clone() };
        let store = Arc::new(TestStore::new(space, test.answers.keyvalue.clone()));
        let id = DeliveryId::new(&event, &self.module.name);
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&test.seed.to_le_bytes());
        let limits = self.module.limits.delivery;
        let call_log = CallLog::dry_run(id, test.answers.calls.clone()).with_fixed_clock(test.time);
        let delivery = Arc::new(Delivery::new(AttemptContext {
            event: event.clone(),
            module: self.module.name.clone(),
            attempt: test.attempt,
            platform: scripted_platform.clone(),
            keyvalue: store.clone(),
            call_log: call_log.with_answers(http::responder(test.answers.http.clone())),
            limits,
            tenant_memory: None,
            tenant_log: None,
            salt,
        }));
        let ended = version.run(&delivery).await;
        delivery.changes_done().await;
        let requested = delivery.call_log.requested_calls();
        let calls = requested.iter().map(|call| ObservedCall {
            import: call.import.into(),
            arguments: &call.arguments,
            answer: call.answer.as_ref(),
        });
        let mut observed = Observed::new(ended, calls, event.assistant_message_id());
        let log = delivery.log.take();
        observed.log = log.iter().map(|line| format!("{} {}: {}", line.level, line.context, line.text)).collect();
        if test.expected.expects_keyvalue() {
            observed.keyvalue = store.content().await.context("cannot read the key-value store")?;
        }
        let mut problems = scripted_platform.unanswered();
        problems.extend(requested.iter().filter_map(|call| http::problem(&spec.grants.http, call)));
        Ok((observed, problems))
    }

    /// Returns the module's settings, with those of the test applied.
    fn spec(&self, test: &Test) -> Spec {
        let mut spec = resolved_config::spec(&self.module);
        if !test.config.is_empty() {
            let mut config = (*spec.grants.config).clone();
            config.extend(test.config.clone());
            spec.grants.config = Arc::new(config);
        }
        spec
    }
}

/// Returns the user's message of an event, as the chat contains it.
fn user_message(event: &Event) -> Option<Message> {
    let Subject::ModuleChosen(chosen) = &event.subject else { return None };
    let message = &chosen.user_message;
    Some(Message {
        id: message.id.clone(),
        role: Role::User,
        text: Some(message.text.clone()),
        references: Vec::new(),
        created_at: Some(message.created_at.clone()),
    })
}

fn unexpected_failure(reason: &str, observed: &Observed) -> String {
    const MAX_LOG_LINES: usize = 10;
    let mut text = format!("the module failed: {reason}");
    let log = &observed.log[observed.log.len().saturating_sub(MAX_LOG_LINES)..];
    if !log.is_empty() {
        text += &format!("\n\nlast log lines:\n{}", log.join("\n"));
    }
    text
}

impl Test {
    /// Returns the text of the file, updated to expect the result. `None` if nothing changes.
    pub fn updated_text(&self, outcome: &TestOutcome) -> Option<String> {
        let observed = outcome.observed.as_ref()?;
        if !self.expected.is_present() && outcome.problems.is_empty() {
            return Some(format!("{}\n\n{}", self.text.trim_end(), update_expected::expect_section(observed)));
        }
        let text = update_expected::apply_replacements(&self.text, &outcome.differences);
        (text != self.text).then_some(text)
    }
}
