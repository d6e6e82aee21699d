//! What a module can see of the machine, and what it must not.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::net::TcpStream;
use std::time::SystemTime;

use modhost_sdk::prelude::*;

use crate::{Command, Given, reply};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("stdout TEXT", "prints it, then replies", stdout),
    Command::new("stderr TEXT", "prints it to standard error, then replies", stderr),
    Command::new("print-bytes HEX", "prints the bytes as they are, then replies", print_bytes),
    Command::new("flood LINES", "prints so many lines, then replies", flood),
    Command::new("env", "replies with the environment, as JSON", env),
    Command::new("args", "replies with the program's arguments, as JSON", args),
    Command::new("random", "replies with a random number", random),
    Command::new("now", "replies with the time, in milliseconds since 1970", now),
    Command::new("read-file PATH", "replies with the file's text, or why it can't be read", read_file),
    Command::new("connect HOST:PORT", "replies whether it could connect, or why not", connect),
];

fn stdout(given: &Given) -> Result<()> {
    println!("{}", given.argument);
    reply("printed")
}

fn stderr(given: &Given) -> Result<()> {
    eprintln!("{}", given.argument);
    reply("printed")
}

fn print_bytes(given: &Given) -> Result<()> {
    let pairs = given.argument.as_bytes().chunks(2).map(std::str::from_utf8).collect::<Result<Vec<_>, _>>()?;
    let bytes = pairs.into_iter().map(|pair| u8::from_str_radix(pair, 16)).collect::<Result<Vec<_>, _>>()?;
    std::io::stdout().write_all(&bytes)?;
    std::io::stdout().flush()?;
    reply("printed")
}

fn flood(given: &Given) -> Result<()> {
    let lines: u64 = given.number()?;
    for line in 1..=lines {
        println!("line {line} of {lines}");
    }
    reply("printed")
}

fn env(_: &Given) -> Result<()> {
    let env = std::env::vars_os().map(|(key, value)| (key.display().to_string(), value.display().to_string()));
    reply(serde_json::to_string(&env.collect::<BTreeMap<_, _>>())?)
}

fn args(_: &Given) -> Result<()> {
    let args = std::env::args_os().map(|arg| arg.display().to_string());
    reply(serde_json::to_string(&args.collect::<Vec<_>>())?)
}

fn random(_: &Given) -> Result<()> {
    // The one source of randomness in the standard library: a hasher's random keys.
    reply(RandomState::new().hash_one(()).to_string())
}

fn now(_: &Given) -> Result<()> {
    reply(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis().to_string())
}

fn read_file(given: &Given) -> Result<()> {
    tell(std::fs::read_to_string(given.argument))
}

fn connect(given: &Given) -> Result<()> {
    tell(TcpStream::connect(given.argument).map(|_| "connected"))
}

fn tell<T: Display>(tried: std::io::Result<T>) -> Result<()> {
    match tried {
        Ok(got) => reply(got.to_string()),
        Err(error) => reply(format!("error: {error}")),
    }
}
