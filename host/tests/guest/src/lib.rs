//! A module that does what the user's text tells it, for the host's tests: a command, then its argument.
//!
//! `help` replies with the list. A command that doesn't say otherwise ends with a completed reply.

mod endings;
mod keyvalue;
mod platform;
mod sandbox;

use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

/// What a user's text may tell this module to do.
struct Command {
    /// Its name and what it is given: `fail REASON`.
    usage: &'static str,
    does: &'static str,
    run: fn(&Given) -> Result<()>,
}

impl Command {
    const fn new(usage: &'static str, does: &'static str, run: fn(&Given) -> Result<()>) -> Self {
        Self { usage, does, run }
    }

    fn name(&self) -> &str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

const COMMANDS: &[Command] = &[
    Command::new("help", "replies with this list", help),
    Command::new("event", "replies with all that the event says, as JSON", tell_event),
];

/// What a command has to work with.
struct Given<'a> {
    /// The text after the command's name.
    argument: &'a str,
    event: &'a Event,
}

impl Given<'_> {
    fn number<T: std::str::FromStr>(&self) -> Result<T> {
        let wrong = || Failure::new(format!("`{}` isn't the number this command wants", self.argument));
        self.argument.parse().map_err(|_| wrong())
    }

    /// The argument's two halves.
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
        Some(command) => (command.run)(&Given { argument: argument.trim(), event }),
        None => Err(Failure::new(format!("there is no command `{name}`; `help` lists them"))),
    }
}

fn commands() -> impl Iterator<Item = &'static Command> {
    let parts = [COMMANDS, endings::COMMANDS, keyvalue::COMMANDS, platform::COMMANDS, sandbox::COMMANDS];
    parts.into_iter().flatten()
}

fn help(_: &Given) -> Result<()> {
    let line = |command: &Command| format!("{}: {}\n", command.usage, command.does);
    reply(commands().map(line).collect::<String>())
}

fn tell_event(given: &Given) -> Result<()> {
    reply(serde_json::to_string(given.event)?)
}

fn reply(text: impl Into<String>) -> Result<()> {
    messages::reply(text).complete()?;
    Ok(())
}
