//! Runs tests of one module on the real engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::expect::{Difference, failed};
use super::file::Test;
use super::http;
use super::observed::{Call, Observed};
use super::script::Script;
use super::store::Store;
use super::update_expected;
use modhost_config::{Module, Settings};
use modhost_core::event::{DeliveryId, Event, Subject};
use modhost_platform::{Message, Role};
use modhost_runtime::call_log::CallLog;
use modhost_runtime::capabilities::{AttemptContext, Delivery};
use modhost_runtime::engine::{Engine, Spec, Version};
use modhost_server::resolved_config;
use modhost_storage::keyvalue::Space;

/// A module, ready to be tested: its component is compiled.
pub struct TestRun {
    engine: Engine,
    settings: Settings,
    module: Module,
    bytes: Vec<u8>,
    /// Keeps what was compiled from being compiled again for each test.
    _version: Version,
}

/// What became of a test.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen, if the module ran at all.
    pub observed: Option<Observed>,
    /// What is not as expected.
    pub differences: Vec<Difference>,
    /// What else is wrong, in words.
    pub problems: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Whether everything is as expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty() && self.problems.is_empty()
    }
}

impl TestRun {
    /// Makes a module ready.
    ///
    /// # Errors
    ///
    /// When its component can't be read, doesn't fit, or can't be compiled.
    pub async fn new(engine: &Engine, settings: &Settings, module: &Module) -> anyhow::Result<Self> {
        let file = module.component.display();
        let bytes = std::fs::read(&module.component).with_context(|| format!("can't read {file}"))?;
        let spec = resolved_config::spec(module);
        let version = engine.load(bytes.clone(), &spec).await.with_context(|| format!("{file} can't run"))?;
        let (engine, settings, module) = (engine.clone(), settings.clone(), module.clone());
        Ok(Self { engine, settings, module, bytes, _version: version })
    }

    /// Runs a test.
    pub async fn run(&self, test: &Test) -> Outcome {
        let started = Instant::now();
        let (observed, mut problems) = match self.play(test).await {
            Ok((observed, unanswered)) => (Some(observed), unanswered),
            Err(error) => (None, vec![format!("{error:#}")]),
        };
        let mut differences = Vec::new();
        if let Some(observed) = &observed {
            differences = test.expected.differences(observed, &test.text);
            if let Some(failure) = failed(&observed.ended).filter(|_| !test.expected.failure()) {
                problems.push(unexpected(&failure.reason, observed));
            }
        }
        Outcome { observed, differences, problems, took: started.elapsed() }
    }

    /// Runs the module on the event of a test, with its answers; says what was seen, and what had no answer.
    async fn play(&self, test: &Test) -> anyhow::Result<(Observed, Vec<String>)> {
        let event = Arc::new(test.given.event(&self.module, &self.settings, test.time)?);
        let spec = self.spec(test);
        let version = self.engine.load(self.bytes.clone(), &spec).await?;
        let script = Arc::new(Script::new(&test.answers, question(&event)));
        let space = Space { tenant: event.tenant.clone(), module: self.module.name.clone() };
        let store = Arc::new(Store::new(space, test.answers.keyvalue.clone()));
        let id = DeliveryId::new(&event, &self.module.name);
        let mut salt = [0; 32];
        salt[..8].copy_from_slice(&test.chance.to_le_bytes());
        let limits = self.module.limits.delivery;
        let call_log = CallLog::dry_run(id, test.answers.calls.clone()).standing_at(test.time);
        let delivery = Arc::new(Delivery::new(AttemptContext {
            event: event.clone(),
            module: self.module.name.clone(),
            attempt: test.attempt,
            platform: script.clone(),
            keyvalue: store.clone(),
            call_log: call_log.answered_by(http::answering(test.answers.http.clone())),
            limits,
            tenant_memory: None,
            salt,
        }));
        let ended = version.run(&delivery).await;
        delivery.changes_done().await;
        let asked = delivery.call_log.asked();
        let calls = asked.iter().map(|asked| Call {
            import: asked.import.into(),
            arguments: &asked.arguments,
            answer: asked.answer.as_ref(),
        });
        let mut observed = Observed::new(ended, calls, event.assistant_message_id());
        let log = delivery.log.take();
        observed.log = log.iter().map(|line| format!("{} {}: {}", line.level, line.context, line.text)).collect();
        if test.expected.keeps() {
            observed.keyvalue = store.content().await.context("what the module keeps can't be read")?;
        }
        let mut problems = script.unanswered();
        problems.extend(asked.iter().filter_map(|asked| http::problem(&spec.grants.http, asked)));
        Ok((observed, problems))
    }

    /// The module's settings, with those of the test in their place.
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

/// The event's own message, as the chat has it.
fn question(event: &Event) -> Option<Message> {
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

fn unexpected(reason: &str, observed: &Observed) -> String {
    const LINES: usize = 10;
    let mut text = format!("it failed: {reason}");
    let log = &observed.log[observed.log.len().saturating_sub(LINES)..];
    if !log.is_empty() {
        text += &format!("\n\nits log ends with:\n{}", log.join("\n"));
    }
    text
}

impl Test {
    /// The file's text, expecting what was seen; none where nothing of it can be put there.
    pub fn accepting(&self, outcome: &Outcome) -> Option<String> {
        let observed = outcome.observed.as_ref()?;
        if !self.expected.is_written() && outcome.problems.is_empty() {
            return Some(format!("{}\n\n{}", self.text.trim_end(), update_expected::section(observed)));
        }
        let text = update_expected::accept(&self.text, &outcome.differences);
        (text != self.text).then_some(text)
    }
}
