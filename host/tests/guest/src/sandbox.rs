//! Commands that check what a module can access on the machine.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::TcpStream;
use std::time::SystemTime;

use modhost_sdk::prelude::*;

use crate::{Command, Input, reply};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("stdout TEXT", "prints the text, then replies", stdout),
    Command::new("stderr TEXT", "prints the text to standard error, then replies", stderr),
    Command::new("print-bytes HEX", "prints raw bytes, then replies", print_bytes),
    Command::new("flood LINES", "prints N lines, then replies", flood),
    Command::new("env", "replies with the environment, as JSON", env),
    Command::new("args", "replies with the program's arguments, as JSON", args),
    Command::new("random", "replies with a random number", random),
    Command::new("now", "replies with the time, in milliseconds since 1970", now),
    Command::new("read-file PATH", "replies with the file's text, or the error", read_file),
    Command::new("connect HOST:PORT", "connects and replies with the result, or the error", connect),
];

fn stdout(input: &Input) -> Result<()> {
    println!("{}", input.argument);
    reply("printed")
}

fn stderr(input: &Input) -> Result<()> {
    eprintln!("{}", input.argument);
    reply("printed")
}

fn print_bytes(input: &Input) -> Result<()> {
    let pairs = input.argument.as_bytes().chunks(2).map(std::str::from_utf8).collect::<Result<Vec<_>, _>>()?;
    let bytes = pairs.into_iter().map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<Vec<_>, _>>()?;
    std::io::stdout().write_all(&bytes)?;
    std::io::stdout().flush()?;
    reply("printed")
}

fn flood(input: &Input) -> Result<()> {
    let lines: u64 = input.number()?;
    for line in 1..=lines {
        println!("line {line} of {lines}");
    }
    reply("printed")
}

fn env(_: &Input) -> Result<()> {
    let env = std::env::vars_os().map(|(key, value)| (key.display().to_string(), value.display().to_string()));
    reply(serde_json::to_string(&env.collect::<BTreeMap<_, _>>())?)
}

fn args(_: &Input) -> Result<()> {
    let args = std::env::args_os().map(|arg| arg.display().to_string());
    reply(serde_json::to_string(&args.collect::<Vec<_>>())?)
}

fn random(_: &Input) -> Result<()> {
    // The one source of randomness in the standard library: a hasher's random keys.
    reply(RandomState::new().hash_one(()).to_string())
}

fn now(_: &Input) -> Result<()> {
    reply(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis().to_string())
}

fn read_file(input: &Input) -> Result<()> {
    reply_with(std::fs::read_to_string(input.argument))
}

fn connect(input: &Input) -> Result<()> {
    reply_with(TcpStream::connect(input.argument).map(|_| "connected"))
}

fn reply_with<T: Display>(result: std::io::Result<T>) -> Result<()> {
    match result {
        Ok(value) => reply(value.to_string()),
        Err(error) => reply(format!("error: {error}")),
    }
}
