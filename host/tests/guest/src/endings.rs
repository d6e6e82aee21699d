//! Every way a delivery can end, and what may be left open then.

use std::hint::black_box;
use std::time::Duration;

use modhost_sdk::prelude::*;

use crate::{Command, Given, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("reply TEXT", "replies with it", |given| reply(given.argument)),
    Command::new("nothing", "returns ok, having written nothing", |_| Ok(())),
    Command::new("draft TEXT", "replies with it, without completing the reply", draft),
    Command::new("fail REASON", "returns a failure", fail),
    Command::new("fail-with-text REASON|TEXT", "returns one with a text for the user", fail_with_text),
    Command::new("retry [SECONDS]", "returns one that asks for another try, now or after so long", retry),
    Command::new("retry-with-text REASON|TEXT", "returns one that asks for another try, with a text", retry_with_text),
    Command::new("panic TEXT", "panics", |given| panic!("{}", given.argument)),
    Command::new("exit CODE", "ends itself as a program would", exit),
    Command::new("loop", "computes forever", compute_forever),
    Command::new("sleep MS", "sleeps for so long, then replies", sleep),
    Command::new("allocate MIB", "takes so much memory and writes to it, then replies", allocate),
    Command::new("allocate-and MIB|COMMAND", "takes so much memory and goes on", allocate_and),
    Command::new("recurse", "calls itself until the stack is full", |_| Err(recurse(0))),
    Command::new("step-and COMMAND", "leaves a step running and goes on", step_and),
    Command::new("done-step-and COMMAND", "closes a step as done and goes on", done_step_and),
    Command::new("failed-step-and COMMAND", "closes a step as failed and goes on", failed_step_and),
    Command::new("reply-and TEXT|COMMAND", "completes the reply with the text and goes on", reply_and),
    Command::new(
        "draft-and TEXT|COMMAND",
        "writes the text into the reply, without completing it, and goes on",
        draft_and,
    ),
    Command::new("steps-left N", "leaves N steps running and replies", steps_left),
];

fn draft(given: &Given) -> Result<()> {
    messages::reply(given.argument).save()?;
    Ok(())
}

fn fail(given: &Given) -> Result<()> {
    Err(Failure::new(given.argument))
}

fn fail_with_text(given: &Given) -> Result<()> {
    let (reason, text) = given.pair('|')?;
    Err(Failure::new(reason).user_text(text))
}

fn retry(given: &Given) -> Result<()> {
    let failure = Failure::new(format!("attempt {} failed as told", given.event.attempt));
    if given.argument.is_empty() {
        return Err(failure.retry());
    }
    Err(failure.retry_after(Duration::from_secs(given.number()?)))
}

fn retry_with_text(given: &Given) -> Result<()> {
    let (reason, text) = given.pair('|')?;
    Err(Failure::new(reason).user_text(text).retry())
}

fn exit(given: &Given) -> Result<()> {
    std::process::exit(given.number()?)
}

fn compute_forever(_: &Given) -> Result<()> {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn sleep(given: &Given) -> Result<()> {
    std::thread::sleep(Duration::from_millis(given.number()?));
    reply(format!("slept {} ms", given.argument))
}

fn allocate(given: &Given) -> Result<()> {
    let blocks = take(given.number()?);
    reply(format!("took {} MiB", black_box(blocks).len()))
}

fn allocate_and(given: &Given) -> Result<()> {
    let (mebibytes, command) = given.pair('|')?;
    let blocks = take(mebibytes.parse()?);
    let ended = run(command, given.event);
    drop(black_box(blocks));
    ended
}

/// So many mebibytes, written to, as memory that is only reserved costs the host nothing.
fn take(mebibytes: usize) -> Vec<Vec<u8>> {
    (0..mebibytes).map(|_| black_box(vec![1; 1 << 20])).collect()
}

/// Each call keeps a frame on the stack: what it does after the inner one returns keeps it from being a loop.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> Failure {
    let frame = black_box([depth; 16]);
    let failure = recurse(depth + 1);
    black_box(frame);
    failure
}

fn step_and(given: &Given) -> Result<()> {
    let _step = Step::start("Working…")?;
    run(given.argument, given.event)
}

fn done_step_and(given: &Given) -> Result<()> {
    Step::start("Done…")?.text("Done").done()?;
    run(given.argument, given.event)
}

fn failed_step_and(given: &Given) -> Result<()> {
    Step::start("Failing…")?.text("Failed").fail()?;
    run(given.argument, given.event)
}

fn reply_and(given: &Given) -> Result<()> {
    let (text, command) = given.pair('|')?;
    reply(text)?;
    run(command, given.event)
}

fn draft_and(given: &Given) -> Result<()> {
    let (text, command) = given.pair('|')?;
    messages::reply(text).save()?;
    run(command, given.event)
}

fn steps_left(given: &Given) -> Result<()> {
    let steps: u32 = given.number()?;
    for n in 1..=steps {
        drop(Step::start(format!("Step {n}…"))?);
    }
    reply(format!("left {steps} steps running"))
}
