//! Tests of the engine as a library: situations that can't be produced through the host.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_core::limits::{LimitReached, Limits, Resource};
use modhost_platform::{
    CallError, Caller, DryRunPlatform, Hit, Message, MessageChange, NewStep, Platform, Query, Result as PlatformResult,
};
use modhost_runtime::call_log::CallLog;
use modhost_runtime::capabilities::{AttemptContext, Delivery, Grants, GuestMemory, TenantMemory};
use modhost_runtime::engine::{
    CompileError, Compiler, CompilerLimits, CompilerProgram, Engine, GuestOutcome, LoadError, Spec, SwapPolicy,
};
use modhost_sandbox::SandboxMode;
use modhost_storage::keyvalue;
use serde_json::json;
use tokio::sync::Notify;

use super::harness::{chosen, component};

fn spec() -> Spec {
    let (limits, grants, swap) = (Limits::default(), Grants::default(), SwapPolicy::default());
    Spec { name: Name::from("Test"), tenants: Vec::new(), component: component("test_guest"), limits, grants, swap }
}

fn bytes() -> Vec<u8> {
    std::fs::read(component("test_guest")).unwrap()
}

/// A delivery of a chat message without a client that waits for the reply.
fn delivery(number: usize, text: &str) -> Arc<Delivery> {
    delivery_on(Arc::new(DryRunPlatform::default()), number, text)
}

fn delivery_on(platform: Arc<dyn Platform>, number: usize, text: &str) -> Arc<Delivery> {
    let call_log = |id| CallLog::disabled(id);
    delivery_with(platform, number, text, call_log, None)
}

fn delivery_with(
    platform: Arc<dyn Platform>,
    number: usize,
    text: &str,
    call_log: impl FnOnce(DeliveryId) -> CallLog,
    tenant_memory: Option<Arc<TenantMemory>>,
) -> Arc<Delivery> {
    let event = chosen(&format!("evt_{number}"), "Test", text);
    let payload = event["payload"].to_string();
    let header = Header {
        id: format!("evt_{number}"),
        source: Name::from("test"),
        name: Event::MODULE_CHOSEN.to_owned(),
        tenant: Name::from("default"),
        user_id: Some("user_1".into()),
        company_id: Some("company_1".into()),
        created_at: None,
    };
    let whole = 0..payload.len();
    let event = Arc::new(Event::new(header, payload.into(), whole));
    let module = Name::from("Test");
    let call_log = call_log(DeliveryId::new(&event, &module));
    Arc::new(Delivery::new(AttemptContext {
        event,
        module,
        attempt: 1,
        platform,
        keyvalue: Arc::new(keyvalue::DryRunStore),
        call_log,
        // The time spent waiting for a pool slot doesn't count towards `timeout`: the waits add up to more than the
        // limit.
        limits: Limits::default().with(Resource::Timeout, 2_000_000_000),
        tenant_memory,
        tenant_log: None,
        salt: [0; 32],
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deliveries_wait_for_a_pool_slot() {
    let engine = Engine::new(1).unwrap();
    let version = engine.load(bytes(), &spec()).await.unwrap();
    let deliveries: Vec<_> = (0..30).map(|number| delivery(number, "sleep 100")).collect();
    let ended = join_all(deliveries.iter().map(|delivery| version.run(delivery))).await;
    assert_eq!(ended, vec![GuestOutcome::Answered; 30]);
}

/// A platform that blocks when it creates a step and panics when it changes a message.
#[derive(Default)]
struct FaultyPlatform {
    asked: Notify,
    may_answer: Notify,
}

#[async_trait]
impl Platform for FaultyPlatform {
    fn unsupported(&self, what: &str) -> CallError {
        DryRunPlatform::default().unsupported(what)
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> PlatformResult<String> {
        self.asked.notify_one();
        self.may_answer.notified().await;
        Ok("step_1".into())
    }

    async fn modify_message(&self, _: &Caller, _: &str, _: &str, _: &MessageChange) -> PlatformResult<Message> {
        panic!("at the disco")
    }
}

#[tokio::test]
async fn write_completes_after_its_guest_has_ended() {
    let version = Engine::new(1).unwrap().load(bytes(), &spec()).await.unwrap();
    let platform = Arc::new(FaultyPlatform::default());
    let delivery = delivery_on(platform.clone(), 0, "step-and reply hello");
    tokio::select! {
        ended = version.run(&delivery) => panic!("the call had no answer yet: {ended:?}"),
        () = platform.asked.notified() => {}
    }
    let mut done = pin!(delivery.changes_done());
    assert!(futures::poll!(done.as_mut()).is_pending(), "the write is still in flight");
    assert!(delivery.progress().steps.is_empty());
    platform.may_answer.notify_one();
    done.await;
    assert_eq!(delivery.progress().steps[&1].id, "step_1", "the step would never be closed");
}

/// A platform that finds much, and blocks when it creates a message.
#[derive(Default)]
struct LargeAnswers {
    asked: Notify,
}

#[async_trait]
impl Platform for LargeAnswers {
    fn unsupported(&self, what: &str) -> CallError {
        DryRunPlatform::default().unsupported(what)
    }

    async fn search(&self, _: &Caller, _: Option<&str>, _: &Query) -> PlatformResult<Vec<Hit>> {
        let hit = json!({ "id": "cont_1", "chunk_id": "chunk_1", "text": "x".repeat(1 << 20), "order": 0 });
        Ok(vec![serde_json::from_value(hit).unwrap()])
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> PlatformResult<String> {
        self.asked.notify_one();
        std::future::pending().await
    }

    async fn modify_message(&self, _: &Caller, _: &str, id: &str, _: &MessageChange) -> PlatformResult<Message> {
        let message = json!({ "id": id, "role": "assistant", "text": null, "references": [], "created_at": null });
        Ok(serde_json::from_value(message).unwrap())
    }
}

#[tokio::test]
async fn memory_is_given_back_however_a_delivery_ends() {
    let version = Engine::new(2).unwrap().load(bytes(), &spec()).await.unwrap();
    let all = GuestMemory::new(1 << 30);
    let ends = [
        "reply hello",
        "search much",
        "stderr a line",
        "panic it was so sudden",
        "fail it",
        "allocate 200",
        "sleep 60000",
    ];
    for (number, text) in ends.into_iter().enumerate() {
        for limit in [None, Some(64 << 20), Some(1 << 20)] {
            let (tenant, platform) = (all.tenant(limit), Arc::new(LargeAnswers::default()));
            let recorded = |id| CallLog::dry_run(id, Vec::new());
            let delivery = delivery_with(platform, number, text, recorded, Some(tenant.clone()));
            let ended = version.run(&delivery).await;
            if limit == Some(1 << 20) {
                assert!(
                    matches!(ended, GuestOutcome::LimitReached(LimitReached::TenantMemory(_))),
                    "{text}: {ended:?}"
                );
            }
            delivery.log.take();
            drop(delivery);
            assert_eq!(tenant.used(), 0, "{text} with {limit:?}: {ended:?}");
        }
    }
    // The host cancels it during a call that runs to completion, and never does.
    let (tenant, platform) = (all.tenant(None), Arc::new(LargeAnswers::default()));
    let recorded = |id| CallLog::dry_run(id, Vec::new());
    let delivery = delivery_with(platform.clone(), 99, "step-and reply hello", recorded, Some(tenant.clone()));
    tokio::select! {
        ended = version.run(&delivery) => panic!("the call had no answer yet: {ended:?}"),
        () = platform.asked.notified() => {}
    }
    let arguments = 1..1024;
    super::harness::until("the memory of the guest to be free", async || {
        arguments.contains(&tenant.used()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn platform_panic_fails_only_the_call() {
    let version = Engine::new(1).unwrap().load(bytes(), &spec()).await.unwrap();
    let ended = version.run(&delivery_on(Arc::new(FaultyPlatform::default()), 0, "reply hello")).await;
    let GuestOutcome::Failed(failure) = ended else { panic!("{ended:?}") };
    assert!(failure.reason.contains("`messages.reply` failed: internal error in the host"), "{failure:?}");
}

/// Delivery ids are stored in the journal, so every version of the host must compute the same one.
#[test]
fn delivery_id_is_stable() {
    assert_eq!(delivery(7, "reply hello").id.as_str(), "dlv_4b5da8efb7c8ff8bd47f0017");
}

#[tokio::test]
async fn random_numbers_are_the_same_in_every_attempt() {
    let version = Engine::new(1).unwrap().load(bytes(), &spec()).await.unwrap();
    let drawn = async |number| {
        let delivery = delivery(number, "random");
        assert_eq!(version.run(&delivery).await, GuestOutcome::Answered);
        let reply = delivery.progress().reply.text.clone();
        reply.unwrap()
    };
    assert_eq!(drawn(1).await, drawn(1).await);
    assert_ne!(drawn(1).await, drawn(2).await);
}

/// Writes a shell script that runs `line` in place of the compiler.
fn program(folder: &Path, line: &str) -> PathBuf {
    let file = folder.join("compiler");
    // A separate process writes the script: if this process had it open for writing while another thread forks,
    // executing it would fail with ETXTBSY.
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 700 "$2""#;
    let status = Command::new("sh").args(["-c", write, "sh", line]).arg(&file).status().unwrap();
    assert!(status.success());
    file
}

/// Returns a compiler in a process of this program.
fn subprocess(program: PathBuf, limits: CompilerLimits) -> Compiler {
    Compiler::Subprocess(CompilerProgram { program, limits, sandbox: SandboxMode::Auto })
}

/// Returns the compile error when the compiler program runs this line.
async fn compile_error(line: &str) -> CompileError {
    let folder = tempfile::tempdir().unwrap();
    let limits = CompilerLimits { timeout: Duration::from_secs(2), memory: 1 << 30, processes: 1 };
    let compiler = subprocess(program(folder.path(), line), limits);
    let engine = Engine::new(1).unwrap().with_compiler(compiler).with_cache(folder.path().join("components"));
    let error = match engine.load(bytes(), &spec()).await {
        Err(LoadError::Compile(error)) => error,
        Err(error) => panic!("{line}: {error}"),
        Ok(_) => panic!("{line}: compiling succeeded"),
    };
    let left = std::fs::read_dir(folder.path().join("components")).unwrap().count();
    assert_eq!(left, 0, "{line}: the cache has an entry");
    error
}

#[tokio::test]
async fn compiler_failures_are_reported() {
    for output in ["exit 0", "echo no component", "head -c 100000 /dev/zero"] {
        let error = compile_error(output).await;
        assert!(
            matches!(&error, CompileError::ProcessFailed(message) if message.contains("its output is not a compiled component")),
            "{output}: {error:?}"
        );
    }
    let ends = [
        ("kill -SEGV $$", "the compiler crashed on it (SIGSEGV)"),
        ("echo it was so sudden >&2; kill -ABRT $$", "please report it with the file: it was so sudden"),
        ("exit 7", "the compiler crashed on it (exit status: 7)"),
        ("kill -KILL $$", "was killed, and not by this host"),
        ("exec sleep 1000", "compiling it took longer than 2s, `timeout` in [server.compiler]"),
        ("ulimit -S -t 1; while :; do :; done", "compiling it took longer than 2s"),
        ("head -c 1000000 /dev/zero >&2; exit 7", "the compiler crashed on it"),
    ];
    for (line, words) in ends {
        let error = compile_error(line).await.to_string();
        assert!(error.contains(words) && error.len() < 10_000, "{line}: {error}");
    }
}

#[tokio::test]
async fn reports_a_missing_compiler_program() {
    let compiler = subprocess("/nowhere/modhost".into(), CompilerLimits::default());
    let error = Engine::new(1).unwrap().with_compiler(compiler).load(bytes(), &spec()).await.err().unwrap();
    let words = "the compile process doesn't work: /nowhere/modhost: No such file or directory";
    assert!(error.to_string().starts_with(words), "{error}");
}

#[tokio::test]
async fn compiled_code_runs() {
    let limits = CompilerLimits { timeout: Duration::from_secs(120), memory: 1 << 30, processes: 1 };
    let compiler = subprocess(env!("CARGO_BIN_EXE_modhost").into(), limits);
    // Without a cache folder, the code is passed through a temporary file.
    let engine = Engine::new(1).unwrap().with_compiler(compiler);
    let version = engine.load(bytes(), &spec()).await.unwrap();
    assert_eq!(version.run(&delivery(0, "reply hello")).await, GuestOutcome::Answered);
}

#[tokio::test]
async fn slow_small_component_moves_to_the_slow_queue() {
    let folder = tempfile::tempdir().unwrap();
    let (modhost, tried) = (env!("CARGO_BIN_EXE_modhost"), folder.path().join("tried"));
    // The first compile would exceed every time limit.
    let line = format!(r#"[ -e {tried:?} ] && exec {modhost:?} "$@"; : > {tried:?}; exec sleep 1000"#);
    let limits = CompilerLimits { timeout: Duration::from_secs(60), memory: 1 << 30, processes: 1 };
    let compiler = subprocess(program(folder.path(), &line), limits);
    let engine = Engine::new(1).unwrap().with_compiler(compiler);
    let version = engine.load(bytes(), &spec()).await.unwrap();
    assert_eq!(version.run(&delivery(0, "reply hello")).await, GuestOutcome::Answered);
}
