//! Every way in which a delivery can end, and the steps and replies it can leave open.

use std::hint::black_box;
use std::time::Duration;

use modhost_sdk::prelude::*;

use crate::{Command, Input, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("reply TEXT", "replies with the text", |input| reply(input.argument)),
    Command::new("nothing", "returns ok without writing anything", |_| Ok(())),
    Command::new("draft TEXT", "writes the text to the reply without completing it", draft),
    Command::new("fail REASON", "returns a failure", fail),
    Command::new("fail-with-text REASON|TEXT", "returns a failure with a text for the user", fail_with_text),
    Command::new("retry [SECONDS]", "returns a failure that asks for a retry, now or after a delay", retry),
    Command::new(
        "retry-with-text REASON|TEXT",
        "returns a failure that asks for a retry, with a text for the user",
        retry_with_text,
    ),
    Command::new("panic TEXT", "panics", |input| panic!("{}", input.argument)),
    Command::new("exit CODE", "exits like a program", exit),
    Command::new("loop", "computes forever", compute_forever),
    Command::new("sleep MS", "sleeps, then replies", sleep),
    Command::new("allocate MIB", "allocates memory and writes to it, then replies", allocate),
    Command::new("allocate-and MIB|COMMAND", "allocates memory and executes the command", allocate_and),
    Command::new("recurse", "calls itself until the stack is full", |_| Err(recurse(0))),
    Command::new("step-and COMMAND", "leaves a step running and executes the command", step_and),
    Command::new("done-step-and COMMAND", "closes a step as done and executes the command", done_step_and),
    Command::new("failed-step-and COMMAND", "closes a step as failed and executes the command", failed_step_and),
    Command::new("reply-and TEXT|COMMAND", "completes the reply with the text and executes the command", reply_and),
    Command::new(
        "draft-and TEXT|COMMAND",
        "writes the text to the reply without completing it, and executes the command",
        draft_and,
    ),
    Command::new("steps-left N", "leaves N steps running, then replies", steps_left),
];

fn draft(input: &Input) -> Result<()> {
    messages::reply(input.argument).save()?;
    Ok(())
}

fn fail(input: &Input) -> Result<()> {
    Err(Failure::new(input.argument))
}

fn fail_with_text(input: &Input) -> Result<()> {
    let (reason, text) = input.pair('|')?;
    Err(Failure::new(reason).user_text(text))
}

fn retry(input: &Input) -> Result<()> {
    let failure = Failure::new(format!("attempt {} failed as told", input.event.attempt));
    if input.argument.is_empty() {
        return Err(failure.retry());
    }
    Err(failure.retry_after(Duration::from_secs(input.number()?)))
}

fn retry_with_text(input: &Input) -> Result<()> {
    let (reason, text) = input.pair('|')?;
    Err(Failure::new(reason).user_text(text).retry())
}

fn exit(input: &Input) -> Result<()> {
    std::process::exit(input.number()?)
}

fn compute_forever(_: &Input) -> Result<()> {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn sleep(input: &Input) -> Result<()> {
    std::thread::sleep(Duration::from_millis(input.number()?));
    reply(format!("slept {} ms", input.argument))
}

fn allocate(input: &Input) -> Result<()> {
    let blocks = allocate_blocks(input.number()?);
    reply(format!("took {} MiB", black_box(blocks).len()))
}

fn allocate_and(input: &Input) -> Result<()> {
    let (mebibytes, command) = input.pair('|')?;
    let blocks = allocate_blocks(mebibytes.parse()?);
    let result = run(command, input.event);
    drop(black_box(blocks));
    result
}

/// Allocates memory and writes to it, because memory that is only reserved costs the host nothing.
fn allocate_blocks(mebibytes: usize) -> Vec<Vec<u8>> {
    (0..mebibytes).map(|_| black_box(vec![1; 1 << 20])).collect()
}

/// Recurses forever. The work after the inner call keeps the compiler from turning the recursion into a loop.
#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> Failure {
    let frame = black_box([depth; 16]);
    let failure = recurse(depth + 1);
    black_box(frame);
    failure
}

fn step_and(input: &Input) -> Result<()> {
    let _step = Step::start("Working…")?;
    run(input.argument, input.event)
}

fn done_step_and(input: &Input) -> Result<()> {
    Step::start("Done…")?.text("Done").done()?;
    run(input.argument, input.event)
}

fn failed_step_and(input: &Input) -> Result<()> {
    Step::start("Failing…")?.text("Failed").fail()?;
    run(input.argument, input.event)
}

fn reply_and(input: &Input) -> Result<()> {
    let (text, command) = input.pair('|')?;
    reply(text)?;
    run(command, input.event)
}

fn draft_and(input: &Input) -> Result<()> {
    let (text, command) = input.pair('|')?;
    messages::reply(text).save()?;
    run(command, input.event)
}

fn steps_left(input: &Input) -> Result<()> {
    let steps: u32 = input.number()?;
    for n in 1..=steps {
        drop(Step::start(format!("Step {n}…"))?);
    }
    reply(format!("left {steps} steps running"))
}
