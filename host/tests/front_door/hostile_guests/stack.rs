//! How deep the calls inside a component may go: a setting of the host, which holds its own against what fills it.

use super::Memory;
use super::make::{Parts, TAME};
use crate::harness::{Host, Settings, chat, say, until, wait_for_answer};

/// So many calls don't fit into the usual stack, whatever compiler lays out their frames: each takes 16 bytes at the least.
const DEEP: &str = "(drop (call $r (i32.const 60000)))";

/// A component that calls itself, as `handle` begins it.
fn recursive(handle: &'static str) -> Vec<u8> {
    let fields = "(func $r (param i32) (result i32)
        (if (result i32) (local.get 0)
          (then (i32.add (call $r (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
          (else (i32.const 0))))";
    Parts { fields, handle, ..TAME }.component()
}

/// A host with this stack, and a module that goes deep; its compiled code is kept in a place that outlives it.
async fn host(data: &std::path::Path, stack: &str) -> Host {
    let file = data.join("module.wasm");
    let settings = Settings::new().module_file("Deep", file.to_str().unwrap(), "retry = { attempts = 1 }");
    settings.server(stack).args(&["--data-dir", data.join("data").to_str().unwrap()]).start().await
}

/// Runs it once, to whatever end.
async fn run(host: &Host) {
    let chat_id = say(&host.platform, "Deep", "go").await;
    wait_for_answer(host, &chat_id).await;
}

#[tokio::test]
async fn calls_go_as_deep_as_the_stack_of_the_host() {
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
    // The code is what it was: no part of it depends on the stack.
    host.logged(&["compiled component loaded from the cache"]).await;
    run(&host).await;
    // That is how one ends that comes back, and has nothing to say.
    host.logged(&["delivery failed", "it returned ok", "module=Deep"]).await;
}

#[tokio::test]
async fn the_smallest_stack_is_enough_for_a_module() {
    let host = Settings::test_guest("").server("stack = \"128KiB\"").start().await;
    assert_eq!(chat(&host, "Test", "step-and reply here").await.text(), "here");
}

/// What a deep recursion has written to would otherwise stay with each place in the pool.
#[tokio::test]
async fn a_stack_that_was_filled_is_given_back() {
    const STACK: u64 = 16 << 20;
    const TIMES: usize = 8;

    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("module.wasm"), recursive("(drop (call $r (i32.const -1)))")).unwrap();
    let host = host(data.path(), "stack = \"16MiB\"").await;
    run(&host).await;
    let before = Memory::of(&host).now;
    // At once, so that each has a place of its own.
    futures::future::join_all((0..TIMES).map(|_| run(&host))).await;
    until("all of them to end", async || {
        let ended = host.lines(&["delivery failed", "nested too deep for 16.0 MiB", "module=Deep"]);
        (ended == TIMES + 1).then_some(())
    })
    .await;
    let grew = Memory::of(&host).now.saturating_sub(before);
    assert!(grew < STACK * TIMES as u64 / 2, "the host has kept {} MiB", grew >> 20);
}
