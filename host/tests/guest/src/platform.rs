//! Commands for the calls to the platform.

use std::time::Duration;

use modhost_sdk::completion::Tokens;
use modhost_sdk::prelude::*;

use crate::{Command, Input, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("search TEXT", "replies with the hits, as JSON", search),
    Command::new("search-page PAGE TEXT", "replies with a page of one hit, as JSON", search_page),
    Command::new("complete TEXT", "replies with the model's answer", complete),
    Command::new("complete-at TEMPERATURE TEXT", "replies with the model's whole answer, as JSON", complete_at),
    Command::new(
        "complete-into-reply TEXT",
        "streams the completion into the reply, with three sources",
        complete_into_reply,
    ),
    Command::new("stream TEXT", "replies with the chunks of the model's answer, joined by |", stream),
    Command::new(
        "stream-shown TEXT",
        "shows the partial answer after every chunk, then replies with the answer",
        stream_shown,
    ),
    Command::new("stream-show TEXT", "has the SDK show the partial answer, then replies with the answer", stream_show),
    Command::new(
        "stream-caught TEXT",
        "replies with the chunks and the error that ended them, joined by |",
        stream_caught,
    ),
    Command::new("stream-caught-within MS TEXT", "the same, with a timeout", stream_caught_within),
    Command::new("into-reply TEXT", "streams the completion into the reply, without sources", into_reply),
    Command::new("stream-log TEXT", "logs the chunks, joined by |", stream_log),
    Command::new(
        "stream-some N TEXT|COMMAND",
        "reads N chunks, cancels the rest and executes the command",
        stream_some,
    ),
    Command::new(
        "stream-open N TEXT|COMMAND",
        "shows N chunks and executes the command with the rest unread",
        stream_open,
    ),
    Command::new("history [N]", "replies with the chat's newest N messages, or all, as JSON", history),
    Command::new("create TEXT", "creates a message and replies with its id", create),
    Command::new("modify ID TEXT", "changes a message", modify),
    Command::new("show TEXT", "shows the text, then replies", show),
    Command::new("show-and TEXT|COMMAND", "shows the text and executes the command", show_and),
    Command::new("step TEXT", "creates a step, changes it, closes it with a source, and replies with its id", step),
    Command::new("debug JSON", "replies with the JSON as debug info", debug_info),
    Command::new("settings", "replies with all settings, as JSON", settings),
    Command::new("config KEY", "replies with the setting, or says that there is none", setting),
    Command::new("log LEVEL TEXT", "logs the text", log),
];

fn search(input: &Input) -> Result<()> {
    let hits = Search::new(input.argument).combined().limit(3).run()?;
    reply(serde_json::to_string(&hits)?)
}

fn search_page(input: &Input) -> Result<()> {
    let (page, text) = input.pair(' ')?;
    let hits = Search::new(text).full_text().limit(1).page(page.parse()?).run()?;
    reply(serde_json::to_string(&hits)?)
}

fn complete(input: &Input) -> Result<()> {
    reply(Completion::new().user(input.argument).run()?.text)
}

fn complete_at(input: &Input) -> Result<()> {
    let (temperature, text) = input.pair(' ')?;
    let request = Completion::new().system("Be brief.").user(text).temperature(temperature.parse()?).max_tokens(99);
    reply(serde_json::to_string(&request.run()?)?)
}

fn complete_into_reply(input: &Input) -> Result<()> {
    let hits = Search::new(input.argument).combined().limit(3).run()?;
    Completion::new().user(input.argument).into_reply(&hits)?;
    Ok(())
}

fn stream(input: &Input) -> Result<()> {
    let chunks = Completion::new().user(input.argument).stream()?.collect::<Result<Vec<_>, _>>()?;
    reply(chunks.join("|"))
}

fn stream_shown(input: &Input) -> Result<()> {
    let mut text = String::new();
    for chunk in Completion::new().user(input.argument).stream()? {
        text += &chunk?;
        messages::show(&text)?;
    }
    reply(text)
}

fn stream_show(input: &Input) -> Result<()> {
    reply(Completion::new().user(input.argument).stream()?.show()?)
}

fn into_reply(input: &Input) -> Result<()> {
    Completion::new().user(input.argument).into_reply(&[])?;
    Ok(())
}

fn stream_caught(input: &Input) -> Result<()> {
    reply_with_chunks(Completion::new().user(input.argument).stream()?)
}

fn stream_caught_within(input: &Input) -> Result<()> {
    let (limit, text) = input.pair(' ')?;
    reply_with_chunks(Completion::new().user(text).timeout(Duration::from_millis(limit.parse()?)).stream()?)
}

fn reply_with_chunks(chunks: Tokens) -> Result<()> {
    let texts = chunks.map(|chunk| chunk.unwrap_or_else(|error| error.to_string()));
    reply(texts.collect::<Vec<_>>().join("|"))
}

fn stream_log(input: &Input) -> Result<()> {
    let chunks = Completion::new().user(input.argument).stream()?.collect::<Result<Vec<_>, _>>()?;
    info!("read {}", chunks.join("|"));
    Ok(())
}

fn stream_some(input: &Input) -> Result<()> {
    let (some, command) = input.pair('|')?;
    let (count, text) = some.split_once(' ').ok_or_else(|| Failure::new("no text"))?;
    let chunks = Completion::new().user(text).stream()?.take(count.parse()?).collect::<Result<Vec<_>, _>>()?;
    run(&format!("{command} {}", chunks.join("|")), input.event)
}

fn stream_open(input: &Input) -> Result<()> {
    let (some, command) = input.pair('|')?;
    let (count, text) = some.split_once(' ').ok_or_else(|| Failure::new("no text"))?;
    let mut chunks = Completion::new().user(text).stream()?;
    let read = chunks.by_ref().take(count.parse()?).collect::<Result<Vec<_>, _>>()?;
    // Not every event has a reply.
    let _ = messages::show(read.join("|"));
    run(command, input.event)
}

fn history(input: &Input) -> Result<()> {
    let limit = if input.argument.is_empty() { None } else { Some(input.number()?) };
    reply(serde_json::to_string(&messages::history(limit)?)?)
}

fn create(input: &Input) -> Result<()> {
    reply(messages::create(input.argument).complete()?.id)
}

fn modify(input: &Input) -> Result<()> {
    let (id, text) = input.pair(' ')?;
    messages::modify(id).text(text).complete()?;
    reply(format!("changed {id}"))
}

fn show(input: &Input) -> Result<()> {
    messages::show(input.argument)?;
    reply("shown")
}

fn show_and(input: &Input) -> Result<()> {
    let (text, command) = input.pair('|')?;
    messages::show(text)?;
    run(command, input.event)
}

fn step(input: &Input) -> Result<()> {
    let step = Step::start("Beginning…")?;
    let id = step.id();
    let source = Reference {
        name: "A source".into(),
        description: None,
        url: Some("https://example.com/source".into()),
        sequence_number: 1,
        original_index: vec![],
        source_id: "source_1".into(),
        source: "test".into(),
    };
    let step = step.text(input.argument).update()?;
    step.details(json!({ "data": [{ "type": "Test" }] })).references([source]).done()?;
    reply(id)
}

fn debug_info(input: &Input) -> Result<()> {
    let info: serde_json::Value = serde_json::from_str(input.argument)?;
    messages::reply("debugged").debug_info(info).complete()?;
    Ok(())
}

fn settings(_: &Input) -> Result<()> {
    reply(serde_json::to_string(&config::all()?)?)
}

fn setting(input: &Input) -> Result<()> {
    reply(config::get(input.argument)?.unwrap_or_else(|| format!("there is no setting {}", input.argument)))
}

fn log(input: &Input) -> Result<()> {
    let (level, text) = input.pair(' ')?;
    match level {
        "trace" => trace!("{text}"),
        "debug" => debug!("{text}"),
        "info" => info!("{text}"),
        "warn" => warn!("{text}"),
        "error" => error!("{text}"),
        "critical" => critical!("{text}"),
        _ => return Err(Failure::new(format!("there is no level `{level}`"))),
    }
    reply("logged")
}
