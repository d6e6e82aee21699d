//! A module that executes the command in the user's text, for the host's tests. The text is a command and its argument.
//!
//! `help` replies with the list of commands. Unless documented otherwise, a command ends with a completed reply.

mod endings;
mod keyvalue;
mod platform;
mod sandbox;

use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

/// A command in the user's text.
struct Command {
    /// The name and the arguments: `fail REASON`.
    usage: &'static str,
    description: &'static str,
    run: fn(&Input) -> Result<()>,
}

impl Command {
    const fn new(usage: &'static str, description: &'static str, run: fn(&Input) -> Result<()>) -> Self {
        Self { usage, description, run }
    }

    fn name(&self) -> &str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

const COMMANDS: &[Command] = &[
    Command::new("help", "replies with this list", help),
    Command::new("event", "replies with the whole event, as JSON", reply_with_event),
];

/// The input of a command.
struct Input<'a> {
    /// The text after the command's name.
    argument: &'a str,
    event: &'a Event,
}

impl Input<'_> {
    fn number<T: std::str::FromStr>(&self) -> Result<T> {
        let invalid = || Failure::new(format!("`{}` is not a valid number", self.argument));
        self.argument.parse().map_err(|_| invalid())
    }

    /// Splits the argument at the first separator.
    fn pair(&self, separator: char) -> Result<(&str, &str)> {
        let missing = || Failure::new(format!("`{}` has no `{separator}`", self.argument));
        self.argument.split_once(separator).ok_or_else(missing)
    }
}

fn answer(event: Event) -> Result<()> {
    match &event.subject {
        Subject::ModuleChosen(chosen) => run(&chosen.user_message.text, &event),
        Subject::UserMessageCreated(created) => {
            info!("user-message-created {}", created.text);
            match created.text.strip_prefix("hear ") {
                Some(command) => run(command, &event),
                None => Ok(()),
            }
        }
        Subject::Other => {
            info!("{} {}", event.name, event.payload);
            Ok(())
        }
    }
}

fn run(line: &str, event: &Event) -> Result<()> {
    let line = line.trim();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match commands().find(|command| command.name() == name) {
        Some(command) => (command.run)(&Input { argument: argument.trim(), event }),
        None => Err(Failure::new(format!("there is no command `{name}`; `help` lists them"))),
    }
}

fn commands() -> impl Iterator<Item = &'static Command> {
    let parts = [COMMANDS, endings::COMMANDS, keyvalue::COMMANDS, platform::COMMANDS, sandbox::COMMANDS];
    parts.into_iter().flatten()
}

fn help(_: &Input) -> Result<()> {
    let line = |command: &Command| format!("{}: {}\n", command.usage, command.description);
    reply(commands().map(line).collect::<String>())
}

fn reply_with_event(input: &Input) -> Result<()> {
    reply(serde_json::to_string(input.event)?)
}

fn reply(text: impl Into<String>) -> Result<()> {
    messages::reply(text).complete()?;
    Ok(())
}
