//! `modhost send`: sends a chat message to a module through the local platform, or a signed event as a platform does.

mod client;
mod event;
mod progress;
mod render;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use url::Url;

use super::diagnostics::{self, error_with_help};
use super::event_file::{HeaderLine, parse_header};
use super::help::examples;
use super::running::{RunningHost, base_url};
use super::{SettingsFile, output, program};
use client::{Assistant, Client};
use modhost_core::suggest;
use progress::Progress;
use render::{Report, StepDisplay};

/// How often the chat is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait for a failure after the reply is complete: the host first completes it with an apology, then reports the
/// reason.
const FAILURE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long to wait for running steps after the reply is complete: the host closes them soon after it.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// Default address of the local platform.
const DEFAULT_PLATFORM: &str = "http://127.0.0.1:8092";

/// The module that receives messages by default.
const DEFAULT_MODULE: &str = "Assistant";

/// Arguments of `modhost send`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = examples!(
    "modhost send \"What is our travel policy?\""
    "modhost send --to Mine --timeout 30s --json \"Hello\""
    "modhost send --chat chat_bpwpbqve \"And in London?\""
    "modhost send --source github -H 'X-GitHub-Event: push' event.json"
    "modhost send --source unique --print-curl event.json"
))]
pub struct SendArgs {
    /// Text of the message; with --source, file with the body of the event, or - for standard input
    #[arg(value_name = "TEXT|FILE", value_parser = NonEmptyStringValueParser::new())]
    text: String,

    /// Module that receives the message [default: Assistant, else the first module that answers]; with --source, address of the
    /// host [default: `listen` in modules.toml, on this machine]
    #[arg(long, value_name = "MODULE|URL")]
    to: Option<String>,

    /// Source in modules.toml; sends an event, signed as by the platform of this source
    #[arg(long, value_name = "NAME", conflicts_with_all = ["assistant", "chat", "json"])]
    source: Option<String>,

    /// Request header, such as 'X-GitHub-Event: push'; can be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header, requires = "source")]
    headers: Vec<HeaderLine>,

    /// Reference to the secret to sign with: env:NAME or file:PATH [default: the first secret of the source that is set]
    #[arg(long, value_name = "REFERENCE", requires = "source")]
    secret: Option<String>,

    /// Print the request as a curl command instead of sending it
    #[arg(long, requires = "source")]
    print_curl: bool,

    #[command(flatten)]
    file: SettingsFile,

    /// Assistant that receives the message, by its id on the platform
    #[arg(long, value_name = "ID", conflicts_with = "to")]
    assistant: Option<String>,

    /// Chat to continue [default: a new chat]
    #[arg(long, value_name = "CHAT_ID")]
    chat: Option<String>,

    /// Address of the local platform [default: that of the running `modhost dev`, else http://127.0.0.1:8092]
    #[arg(long, value_name = "URL", env = "MODHOST_PLATFORM", hide_env_values = true)]
    platform: Option<Url>,

    /// Port of the local platform, if only the port differs from the default
    #[arg(long, value_name = "PORT")]
    platform_port: Option<u16>,

    /// Maximum time to wait for the answer, such as 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// The outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// The module answered.
    Answered,
    /// The module or a step failed. The answer may be an apology.
    Failed,
    /// The module did not answer in time.
    Late,
    /// The module only listens. It will not answer.
    Listening,
}

/// Sends the message and waits for the answer, or sends an event.
///
/// The exit code is 0 if the module answered, 1 if it did not answer in time or the module or a step failed, and 2 if there is no
/// such module or assistant.
///
/// # Errors
///
/// If the platform cannot be reached or rejects the message.
pub async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    if let Some(source) = &args.source {
        return event::run(&args, source).await;
    }
    let client = Client::new(platform(&args)?)?;
    let assistants = client.assistants().await?;
    let assistant = match choose(&assistants, &recipient(&args, &client).await?) {
        Ok(assistant) => assistant,
        Err(error) => {
            diagnostics::report(&error);
            return Ok(ExitCode::from(2));
        }
    };
    let message = client.send(&assistant.id, &args.text, args.chat.as_deref()).await?;
    let mut progress = Progress::new(&message.id);
    let outcome = if assistant.chooses {
        let mut display = render::step_display(args.json);
        let outcome = wait(&client, &message.chat_id, &mut progress, display.as_mut(), args.timeout).await;
        display.close();
        outcome?
    } else {
        Outcome::Listening
    };
    // A platform that is found automatically is also found for the next message.
    let explicit = Some(client.base()).filter(|base| find_platform(&args).as_ref() != Some(*base));
    let report = Report {
        outcome,
        module: &assistant.module,
        assistant_id: &assistant.id,
        chat_id: &message.chat_id,
        exchange: progress.exchange(),
    };
    if args.json {
        output::print!("{}", output::pretty_json(&report)?);
    } else {
        output::print!("{}", report.answer());
        output::eprint!("{}", report.remarks(args.timeout, &continue_command(&program(), explicit, &message.chat_id)));
    }
    Ok(match outcome {
        Outcome::Answered | Outcome::Listening => ExitCode::SUCCESS,
        Outcome::Failed | Outcome::Late => ExitCode::FAILURE,
    })
}

/// Polls the chat until the answer is complete and no step is running, or the time is up.
async fn wait(
    client: &Client,
    chat_id: &str,
    progress: &mut Progress,
    display: &mut dyn StepDisplay,
    timeout: Duration,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let mut answered_at = None;
    loop {
        let chat = client.chat(chat_id).await.context("while waiting for the answer")?;
        progress.observe(chat).iter().for_each(|step| display.step(step));
        if let Some(draft) = progress.draft() {
            display.draft(draft);
        }
        if progress.is_answered() {
            let since = answered_at.get_or_insert_with(Instant::now).elapsed();
            let is_decided = progress.exchange().failure().is_some() || since >= FAILURE_TIMEOUT;
            if is_decided && !progress.is_running() || since >= STEP_TIMEOUT {
                return Ok(if progress.has_failed() { Outcome::Failed } else { Outcome::Answered });
            }
        } else if start.elapsed() >= timeout {
            return Ok(Outcome::Late);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Returns the address of the local platform: from the flags, else that of the running `dev`, else the default.
fn platform(args: &SendArgs) -> anyhow::Result<Url> {
    let mut platform = match &args.platform {
        Some(platform) => platform.clone(),
        None if args.platform_port.is_none() => return Ok(find_platform(args).unwrap_or(Url::parse(DEFAULT_PLATFORM)?)),
        None => Url::parse(DEFAULT_PLATFORM)?,
    };
    if let Some(port) = args.platform_port {
        // Fails for URLs without a port, such as `mailto:`.
        if platform.set_port(Some(port)).is_err() {
            let message = format!("{platform} cannot have a port");
            return Err(error_with_help(message, format!("use an address like {DEFAULT_PLATFORM}")));
        }
    }
    Ok(platform)
}

/// Returns the address of the local platform of the `modhost dev` that runs with these settings, if there is one.
fn find_platform(args: &SendArgs) -> Option<Url> {
    RunningHost::find(&args.file.data_dir())?.platform.and_then(base_url)
}

/// The recipient of a message.
#[derive(Debug, PartialEq)]
enum Recipient {
    Default,
    Module(String),
    Assistant(String),
}

/// Returns the recipient that the flags name. A chat continues with its assistant.
async fn recipient(args: &SendArgs, client: &Client) -> anyhow::Result<Recipient> {
    Ok(match (&args.to, &args.assistant, &args.chat) {
        (Some(module), ..) => Recipient::Module(module.clone()),
        (_, Some(id), _) => Recipient::Assistant(id.clone()),
        (.., Some(chat)) => Recipient::Assistant(client.chat(chat).await?.assistant_id),
        _ => Recipient::Default,
    })
}

/// Returns the assistant of a recipient.
///
/// # Errors
///
/// If there is none. The hint lists the known ones.
fn choose<'a>(assistants: &'a [Assistant], recipient: &Recipient) -> anyhow::Result<&'a Assistant> {
    let found = match recipient {
        Recipient::Module(module) => assistants.iter().find(|it| it.module == *module),
        Recipient::Assistant(id) => assistants.iter().find(|it| it.id == *id),
        Recipient::Default => assistants
            .iter()
            .find(|it| it.module == DEFAULT_MODULE && it.chooses)
            .or_else(|| assistants.iter().find(|it| it.chooses)),
    };
    found.ok_or_else(|| {
        let problem = match recipient {
            Recipient::Module(module) => format!("there is no module \"{module}\" on the local platform"),
            Recipient::Assistant(id) => format!("there is no assistant \"{id}\" on the local platform"),
            Recipient::Default => "no module on the local platform answers messages".to_owned(),
        };
        if assistants.is_empty() {
            return error_with_help(problem, "add a [[module]] to modules.toml");
        }
        let modules: Vec<_> = assistants.iter().map(|it| it.module.as_str()).collect();
        let ids: Vec<_> = assistants.iter().map(|it| it.id.as_str()).collect();
        let advice = match recipient {
            Recipient::Module(module) => suggest::advice(module, &modules),
            Recipient::Assistant(id) => suggest::advice(id, &ids),
            Recipient::Default => format!("known modules: {}", modules.join(", ")),
        };
        error_with_help(problem, advice)
    })
}

/// Returns the command that continues a chat. It names `platform` unless that is the default.
fn continue_command(program: &str, platform: Option<&Url>, chat_id: &str) -> String {
    let explicit = platform.filter(|platform| platform.as_str() != format!("{DEFAULT_PLATFORM}/"));
    let platform = explicit.map(|platform| format!("--platform {platform} ")).unwrap_or_default();
    format!("{program} send {platform}--chat {chat_id} \"…\"")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[command(flatten)]
        args: SendArgs,
    }

    fn parse(args: &[&str]) -> Result<SendArgs, clap::Error> {
        Cli::try_parse_from([&["send"], args].concat()).map(|cli| cli.args)
    }

    fn assistant(module: &str, chooses: bool) -> Assistant {
        Assistant { id: format!("assistant_{module}"), module: module.into(), chooses, tenant: None }
    }

    #[test]
    fn platform_port_replaces_only_the_port() {
        let args = parse(&["hi", "--platform", "http://localhost:1/base", "--platform-port", "2"]).unwrap();
        assert_eq!(platform(&args).unwrap().as_str(), "http://localhost:2/base");
        let args = parse(&["hi", "--platform", "mailto:me", "--platform-port", "2"]).unwrap();
        assert!(platform(&args).is_err());
    }

    #[test]
    fn rejects_invalid_arguments() {
        assert!(parse(&[]).is_err());
        assert!(parse(&[""]).is_err());
        assert!(parse(&["hi", "--to", "A", "--assistant", "b"]).is_err());
        assert!(parse(&["hi", "--timeout", "soon"]).is_err());
    }

    #[test]
    fn chooses_the_assistant_by_default() {
        let all = [assistant("ChatLog", false), assistant("DemoApp", true), assistant("Assistant", true)];
        assert_eq!(choose(&all, &Recipient::Default).unwrap().module, "Assistant");
        assert_eq!(choose(&all[..2], &Recipient::Default).unwrap().module, "DemoApp");
        assert_eq!(choose(&all, &Recipient::Module("ChatLog".into())).unwrap().module, "ChatLog");
        assert_eq!(choose(&all, &Recipient::Assistant("assistant_DemoApp".into())).unwrap().module, "DemoApp");
    }

    #[test]
    fn lists_known_modules_and_assistants_on_error() {
        let error = |assistants: &[Assistant], recipient| {
            let error = choose(assistants, &recipient).unwrap_err();
            (error.to_string(), diagnostics::help_of(&error).unwrap().to_owned())
        };
        let all = [assistant("ChatLog", false), assistant("DemoApp", true)];
        let (message, help) = error(&all, Recipient::Module("Demo".into()));
        assert_eq!(message, "there is no module \"Demo\" on the local platform");
        assert_eq!(help, "expected one of: ChatLog, DemoApp");
        let (message, help) = error(&all, Recipient::Assistant("a".into()));
        assert_eq!(message, "there is no assistant \"a\" on the local platform");
        assert_eq!(help, "expected one of: assistant_ChatLog, assistant_DemoApp");
        assert!(error(&all, Recipient::Module("demoapp".into())).1.contains("did you mean DemoApp?"));
        let (message, help) = error(&all[..1], Recipient::Default);
        assert_eq!(message, "no module on the local platform answers messages");
        assert_eq!(help, "known modules: ChatLog");
        assert_eq!(error(&[], Recipient::Default).1, "add a [[module]] to modules.toml");
    }

    #[test]
    fn continue_command_names_a_platform_that_is_not_the_default() {
        let default = Url::parse("http://127.0.0.1:8092").unwrap();
        assert_eq!(continue_command("modhost", None, "chat_1"), "modhost send --chat chat_1 \"…\"");
        assert_eq!(continue_command("modhost", Some(&default), "chat_1"), "modhost send --chat chat_1 \"…\"");
        let other = Url::parse("http://127.0.0.1:1234").unwrap();
        assert_eq!(
            continue_command("./modhost", Some(&other), "chat_1"),
            "./modhost send --platform http://127.0.0.1:1234/ --chat chat_1 \"…\""
        );
    }
}
