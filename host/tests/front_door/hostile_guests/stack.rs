//! Tests of the stack limit of the host: call depth, and memory of the pool.

use super::Memory;
use super::make::{HARMLESS, Parts};
use crate::harness::{Host, Settings, chat, say, until, wait_for_answer};

/// A recursion that is too deep for the default stack with any compiler: each frame takes at least 16 bytes.
const DEEP: &str = "(drop (call $r (i32.const 60000)))";

/// A component with a recursive function; `handle` starts the recursion.
fn recursive(handle: &'static str) -> Vec<u8> {
    let fields = "(func $r (param i32) (result i32)
        (if (result i32) (local.get 0)
          (then (i32.add (call $r (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
          (else (i32.const 0))))";
    Parts { fields, handle, ..HARMLESS }.component()
}

/// Starts a host with this stack size and a deeply recursive module; `data` keeps the compile cache between hosts.
async fn host(data: &std::path::Path, stack: &str) -> Host {
    let file = data.join("module.wasm");
    let settings = Settings::new().module_file("Deep", file.to_str().unwrap(), "retry = { attempts = 1 }");
    settings.server(stack).args(&["--data-dir", data.join("data").to_str().unwrap()]).start().await
}

/// Runs a delivery to its end.
async fn run(host: &Host) {
    let chat_id = say(&host.platform, "Deep", "go").await;
    wait_for_answer(host, &chat_id).await;
}

#[tokio::test]
async fn stack_setting_limits_the_call_depth() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("module.wasm"), recursive(DEEP)).unwrap();
    for (stack, size) in [("", "512.0 KiB"), ("stack = \"128KiB\"", "128.0 KiB")] {
        let mut host = host(data.path(), stack).await;
        run(&host).await;
        let stack = format!("limit reached: stack: its calls are nested too deep for {size}, `stack` of [server]");
        host.logged(&["delivery failed", &stack, "module=Deep"]).await;
        host.stop().await;
    }
    let host = host(data.path(), "stack = \"8MiB\"").await;
    // The compiled code doesn't depend on the stack size and is reused.
    host.logged(&["compiled component loaded from the cache"]).await;
    run(&host).await;
    // A guest that returns without an answer ends this way.
    host.logged(&["delivery failed", "it returned ok", "module=Deep"]).await;
}

#[tokio::test]
async fn smallest_stack_is_enough_for_a_module() {
    let host = Settings::test_guest("").server("stack = \"128KiB\"").start().await;
    assert_eq!(chat(&host, "Test", "step-and reply here").await.text(), "here");
}

/// Otherwise, every pool slot would keep the stack pages that a deep recursion touched.
#[tokio::test]
async fn frees_stack_memory_after_a_deep_recursion() {
    const STACK: u64 = 16 << 20;
    const TIMES: usize = 8;

    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("module.wasm"), recursive("(drop (call $r (i32.const -1)))")).unwrap();
    let host = host(data.path(), "stack = \"16MiB\"").await;
    run(&host).await;
    let before = Memory::of(&host).now;
    // Concurrently, so that each delivery has its own pool slot.
    futures::future::join_all((0..TIMES).map(|_| run(&host))).await;
    until("all deliveries to end", async || {
        let ended = host.lines(&["delivery failed", "nested too deep for 16.0 MiB", "module=Deep"]);
        (ended == TIMES + 1).then_some(())
    })
    .await;
    let grew = Memory::of(&host).now.saturating_sub(before);
    assert!(grew < STACK * TIMES as u64 / 2, "the host kept {} MiB", grew >> 20);
}
