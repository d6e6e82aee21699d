//! The help of the command line: commands by subject, and examples.

use clap::Command;

/// Returns the `Examples:` section of a command's help, one line per command line.
///
/// The heading has clap's style. Clap removes it if the output is not a terminal.
macro_rules! examples {
    ($($line:literal)+) => {
        concat!("\u{1b}[1m\u{1b}[4mExamples:\u{1b}[0m", $("\n  ", $line),+)
    };
}

pub(super) use examples;

/// The commands by subject, in the order in which a user meets them.
const GROUPS: [(&str, &[&str]); 3] = [
    ("Develop modules", &["new", "dev", "send", "build", "test", "check"]),
    ("Operate a host", &["serve", "modules", "deliveries", "tenants", "hosts", "storage", "routes"]),
    ("Build tools", &["sdk", "bindings", "componentize"]),
];

/// Lists the subcommands by subject in the help of the program.
pub(super) fn group_subcommands(command: Command) -> Command {
    let mut template = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (title, names) in GROUPS {
        template += &format!("\n\u{1b}[1m\u{1b}[4m{title}:\u{1b}[0m\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string);
            template += &format!("  \u{1b}[1m{name:<13}\u{1b}[0m {}\n", about.unwrap_or_default());
        }
    }
    template += "\n\u{1b}[1m\u{1b}[4mOptions:\u{1b}[0m\n{options}{after-help}";
    command.help_template(template)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::commands::CommandLine;

    #[test]
    fn every_visible_command_is_in_one_group() {
        let command = CommandLine::command();
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        assert_eq!(grouped.iter().copied().collect::<BTreeSet<_>>(), visible.collect());
        assert_eq!(grouped.iter().collect::<BTreeSet<_>>().len(), grouped.len(), "a command is in two groups");
    }

    /// Returns every command and subcommand that a user can run.
    fn visible_commands(command: &Command) -> Vec<Command> {
        let mut commands = Vec::new();
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            commands.push(command.clone());
            commands.extend(visible_commands(command));
        }
        commands
    }

    fn examples_of(command: &Command) -> Vec<String> {
        let examples = command.get_after_long_help().map(|help| help.ansi().to_string()).unwrap_or_default();
        anstream::adapter::strip_str(&examples).to_string().lines().map(str::to_owned).collect()
    }

    /// Splits the `modhost` command of an example into its arguments, as a shell does.
    fn arguments(example: &str) -> Vec<String> {
        let command = example.split(" | ").last().unwrap_or_default();
        let mut arguments = vec![String::new()];
        let mut quote = None;
        for character in command.trim().chars() {
            match (character, quote) {
                ('#' | '>', None) => break,
                (' ', None) => arguments.push(String::new()),
                ('"' | '\'', None) => quote = Some(character),
                (end, Some(start)) if end == start => quote = None,
                (other, _) => arguments.last_mut().unwrap().push(other),
            }
        }
        arguments.retain(|argument| !argument.is_empty());
        arguments
    }

    #[test]
    fn every_command_has_valid_examples() {
        let program = CommandLine::command();
        for command in visible_commands(&program).iter().chain([&program]) {
            let examples = examples_of(command);
            assert!(examples.len() > 1 && examples[0] == "Examples:", "{}: {examples:?}", command.get_name());
            for example in &examples[1..] {
                assert!(example.chars().count() <= 80, "too long for a terminal: {example}");
                let parsed = CommandLine::command().try_get_matches_from(arguments(example));
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    #[test]
    fn every_argument_is_described() {
        for command in visible_commands(&CommandLine::command()) {
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{} {}", command.get_name(), argument.get_id());
                assert!(!help.ends_with('.'), "{} {}: {help}", command.get_name(), argument.get_id());
            }
        }
    }
}
