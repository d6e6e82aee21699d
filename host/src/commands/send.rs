//! `modhost send`: chats with a module through the local platform, as a client of the real one does; or sends an event as
//! a platform would.

mod client;
mod event;
mod progress;
mod render;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::builder::NonEmptyStringValueParser;
use url::Url;

use super::event_file::{HeaderLine, parse_header};
use super::running::{RunningHost, base_url};
use super::{SettingsFile, output, program};
use client::{Assistant, Client};
use modhost_core::suggest;
use progress::Progress;
use render::{Report, Show};

/// How often the chat is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long after its answer a module may still be found to have failed: the host completes the reply with an apology, and
/// then says why.
const VERDICT_TIME: Duration = Duration::from_millis(100);

/// How long steps may go on after the answer is complete: the host closes what a module left running just after it.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Where the local platform is unless `modhost dev` was told otherwise.
const PLATFORM: &str = "http://127.0.0.1:8092";

/// The module that is talked to when nobody says otherwise.
const DEFAULT_MODULE: &str = "Assistant";

/// What `send` can be told.
#[derive(clap::Args, Debug)]
pub struct SendArgs {
    /// What to say, in quotes if it has spaces; with --source, the file with the event's body, or - for standard input
    #[arg(value_name = "TEXT|FILE", value_parser = NonEmptyStringValueParser::new())]
    text: String,

    /// The module to talk to, by its name in modules.toml [default: Assistant, else the first that answers]; with
    /// --source, the address of the host [default: that of `listen` in modules.toml, on this machine]
    #[arg(long, value_name = "MODULE|URL")]
    to: Option<String>,

    /// Send an event as the platform of this source would, signed with its secret
    #[arg(long, value_name = "NAME", conflicts_with_all = ["assistant", "chat", "json"])]
    source: Option<String>,

    /// Send this header too: 'X-GitHub-Event: push'
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header, requires = "source")]
    headers: Vec<HeaderLine>,

    /// Sign with this secret, by reference, env:NAME or file:PATH [default: the first of the source's that is set]
    #[arg(long, value_name = "REFERENCE", requires = "source")]
    secret: Option<String>,

    /// Print the request as a curl command instead of sending it
    #[arg(long, requires = "source")]
    print_curl: bool,

    #[command(flatten)]
    file: SettingsFile,

    /// The assistant to talk to, by its id on the platform
    #[arg(long, value_name = "ID", conflicts_with = "to")]
    assistant: Option<String>,

    /// Go on in this chat; without it a new one is begun
    #[arg(long, value_name = "CHAT_ID")]
    chat: Option<String>,

    /// Where the local platform is [default: that of the `modhost dev` that runs with modules.toml, else http://127.0.0.1:8092]
    #[arg(long, value_name = "URL", env = "MODHOST_PLATFORM", hide_env_values = true)]
    platform: Option<Url>,

    /// The port of the local platform, if only that differs
    #[arg(long, value_name = "PORT")]
    platform_port: Option<u16>,

    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print the outcome as JSON, and nothing else
    #[arg(long)]
    json: bool,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// The answer is there.
    Answered,
    /// The module failed, or a step; what is shown may be an apology.
    Failed,
    /// No answer came in time.
    Late,
    /// The module only listens: no answer is to come.
    Listening,
}

/// Sends the message and waits for the answer, or sends an event.
///
/// The exit code is 0 if there is an answer, 1 if none came in time, or the module or a step failed, 2 if what was asked for isn't
/// there to be talked to.
///
/// # Errors
///
/// If the platform can't be reached or refuses.
pub async fn run(args: SendArgs) -> anyhow::Result<ExitCode> {
    if let Some(source) = &args.source {
        return event::run(&args, source).await;
    }
    let platform = platform(&args)?;
    let client = Client::new(platform)?;
    let assistants = client.assistants().await?;
    let assistant = match choose(&assistants, &wish(&args, &client).await?) {
        Ok(assistant) => assistant,
        Err(problem) => {
            output::eprintln!("error: {problem}");
            return Ok(ExitCode::from(2));
        }
    };
    let message = client.say(&assistant.id, &args.text, args.chat.as_deref()).await?;
    let mut progress = Progress::new(&message.id);
    let outcome = if assistant.chooses {
        let mut show = render::show(args.json);
        let outcome = wait(&client, &message.chat_id, &mut progress, show.as_mut(), args.timeout).await;
        show.close();
        outcome?
    } else {
        Outcome::Listening
    };
    // What was found is found again.
    let named = Some(client.base()).filter(|base| found(&args).as_ref() != Some(*base));
    let report = Report {
        outcome,
        module: &assistant.module,
        assistant_id: &assistant.id,
        chat_id: &message.chat_id,
        turn: progress.turn(),
    };
    if args.json {
        output::print!("{}", output::pretty_json(&report)?);
    } else {
        output::print!("{}", report.answer());
        output::eprint!("{}", report.remarks(args.timeout, &go_on(&program(), named, &message.chat_id)));
    }
    Ok(match outcome {
        Outcome::Answered | Outcome::Listening => ExitCode::SUCCESS,
        Outcome::Failed | Outcome::Late => ExitCode::FAILURE,
    })
}

/// Looks at the chat until the answer is complete and its steps have come to an end, or the time is up.
async fn wait(
    client: &Client,
    chat_id: &str,
    progress: &mut Progress,
    show: &mut dyn Show,
    timeout: Duration,
) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let mut answered_at = None;
    loop {
        let chat = client.chat(chat_id).await.context("while waiting for the answer")?;
        progress.observe(chat).iter().for_each(|step| show.step(step));
        if let Some(draft) = progress.draft() {
            show.draft(draft);
        }
        if progress.is_answered() {
            let since = answered_at.get_or_insert_with(Instant::now).elapsed();
            let is_settled = progress.turn().failure().is_some() || since >= VERDICT_TIME;
            if is_settled && !progress.is_running() || since >= SETTLE_TIME {
                return Ok(if progress.has_failed() { Outcome::Failed } else { Outcome::Answered });
            }
        } else if start.elapsed() >= timeout {
            return Ok(Outcome::Late);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Where the platform is: by both flags, else where `dev` runs, else where it would.
fn platform(args: &SendArgs) -> anyhow::Result<Url> {
    let mut platform = match &args.platform {
        Some(platform) => platform.clone(),
        None if args.platform_port.is_none() => return Ok(found(args).unwrap_or(Url::parse(PLATFORM)?)),
        None => Url::parse(PLATFORM)?,
    };
    if let Some(port) = args.platform_port {
        // Refused by addresses that can't have a port, such as `file:`.
        let refused = platform.set_port(Some(port)).is_err();
        if refused {
            bail!("{platform} can't have a port; write {PLATFORM}");
        }
    }
    Ok(platform)
}

/// Where the `modhost dev` has its platform that runs with these settings; none if there is none.
fn found(args: &SendArgs) -> Option<Url> {
    RunningHost::find(&args.file.data_dir())?.platform.and_then(base_url)
}

/// Whom the user wants to talk to.
#[derive(Debug, PartialEq)]
enum Followup {
    Anyone,
    Module(String),
    Assistant(String),
}

/// Reads the wish off the flags; who goes on in a chat talks to whom it began with.
async fn wish(args: &SendArgs, client: &Client) -> anyhow::Result<Followup> {
    Ok(match (&args.to, &args.assistant, &args.chat) {
        (Some(module), ..) => Followup::Module(module.clone()),
        (_, Some(id), _) => Followup::Assistant(id.clone()),
        (.., Some(chat)) => Followup::Assistant(client.chat(chat).await?.assistant_id),
        _ => Followup::Anyone,
    })
}

/// Finds the assistant that was wished for; the error lists those there are.
fn choose<'a>(assistants: &'a [Assistant], wish: &Followup) -> Result<&'a Assistant, String> {
    let found = match wish {
        Followup::Module(module) => assistants.iter().find(|it| it.module == *module),
        Followup::Assistant(id) => assistants.iter().find(|it| it.id == *id),
        Followup::Anyone => assistants
            .iter()
            .find(|it| it.module == DEFAULT_MODULE && it.chooses)
            .or_else(|| assistants.iter().find(|it| it.chooses)),
    };
    found.ok_or_else(|| {
        let problem = match wish {
            Followup::Module(module) => format!("there is no module \"{module}\" on the local platform"),
            Followup::Assistant(id) => format!("there is no assistant \"{id}\" on the local platform"),
            Followup::Anyone => "no module on the local platform answers messages".to_owned(),
        };
        if assistants.is_empty() {
            return format!("{problem}, nor any other; add a [[module]] to modules.toml");
        }
        let modules: Vec<_> = assistants.iter().map(|it| it.module.as_str()).collect();
        let ids: Vec<_> = assistants.iter().map(|it| it.id.as_str()).collect();
        let advice = match wish {
            Followup::Module(module) => suggest::advice(module, &modules),
            Followup::Assistant(id) => suggest::advice(id, &ids),
            Followup::Anyone => format!("there is: {}", modules.join(", ")),
        };
        format!("{problem}; {advice}")
    })
}

/// The command that goes on in a chat; `platform` is named in it unless it is the usual one.
fn go_on(program: &str, platform: Option<&Url>, chat_id: &str) -> String {
    let named = platform.filter(|platform| platform.as_str() != format!("{PLATFORM}/"));
    let platform = named.map(|platform| format!("--platform {platform} ")).unwrap_or_default();
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
        Assistant { id: format!("assistant_{module}"), module: module.into(), chooses }
    }

    #[test]
    fn a_port_replaces_only_the_port() {
        let args = parse(&["hi", "--platform", "http://localhost:1/base", "--platform-port", "2"]).unwrap();
        assert_eq!(platform(&args).unwrap().as_str(), "http://localhost:2/base");
        let args = parse(&["hi", "--platform", "mailto:me", "--platform-port", "2"]).unwrap();
        assert!(platform(&args).is_err());
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        assert!(parse(&[]).is_err());
        assert!(parse(&[""]).is_err());
        assert!(parse(&["hi", "--to", "A", "--assistant", "b"]).is_err());
        assert!(parse(&["hi", "--timeout", "soon"]).is_err());
    }

    #[test]
    fn talks_to_the_assistant_unless_told_otherwise() {
        let all = [assistant("ChatLog", false), assistant("DemoApp", true), assistant("Assistant", true)];
        assert_eq!(choose(&all, &Followup::Anyone).unwrap().module, "Assistant");
        assert_eq!(choose(&all[..2], &Followup::Anyone).unwrap().module, "DemoApp");
        assert_eq!(choose(&all, &Followup::Module("ChatLog".into())).unwrap().module, "ChatLog");
        assert_eq!(choose(&all, &Followup::Assistant("assistant_DemoApp".into())).unwrap().module, "DemoApp");
    }

    #[test]
    fn lists_whom_one_can_talk_to() {
        let all = [assistant("ChatLog", false), assistant("DemoApp", true)];
        assert_eq!(
            choose(&all, &Followup::Module("Demo".into())).unwrap_err(),
            "there is no module \"Demo\" on the local platform; the known ones are: ChatLog, DemoApp"
        );
        assert_eq!(
            choose(&all, &Followup::Assistant("a".into())).unwrap_err(),
            "there is no assistant \"a\" on the local platform; the known ones are: assistant_ChatLog, assistant_DemoApp"
        );
        assert!(choose(&all, &Followup::Module("demoapp".into())).unwrap_err().contains("did you mean DemoApp?"));
        assert_eq!(
            choose(&all[..1], &Followup::Anyone).unwrap_err(),
            "no module on the local platform answers messages; there is: ChatLog"
        );
        assert!(choose(&[], &Followup::Anyone).unwrap_err().ends_with("add a [[module]] to modules.toml"));
    }

    #[test]
    fn the_command_to_go_on_finds_the_same_platform() {
        let default = Url::parse("http://127.0.0.1:8092").unwrap();
        assert_eq!(go_on("modhost", None, "chat_1"), "modhost send --chat chat_1 \"…\"");
        assert_eq!(go_on("modhost", Some(&default), "chat_1"), "modhost send --chat chat_1 \"…\"");
        let other = Url::parse("http://127.0.0.1:1234").unwrap();
        assert_eq!(
            go_on("./modhost", Some(&other), "chat_1"),
            "./modhost send --platform http://127.0.0.1:1234/ --chat chat_1 \"…\""
        );
    }
}
