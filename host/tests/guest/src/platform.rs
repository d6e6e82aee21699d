//! The calls to the platform, one by one.

use std::time::Duration;

use modhost_sdk::completion::Tokens;
use modhost_sdk::prelude::*;

use crate::{Command, Given, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("search TEXT", "replies with the hits, as JSON", search),
    Command::new("search-page PAGE TEXT", "replies with that page of one hit, as JSON", search_page),
    Command::new("complete TEXT", "replies with the model's answer", complete),
    Command::new("complete-at TEMPERATURE TEXT", "replies with the model's whole answer, as JSON", complete_at),
    Command::new("complete-into-reply TEXT", "lets the model write the reply, with three sources", complete_into_reply),
    Command::new("stream TEXT", "replies with the pieces of the model's answer, joined by |", stream),
    Command::new(
        "stream-shown TEXT",
        "shows what there is of the answer with every piece, then replies with it",
        stream_shown,
    ),
    Command::new("stream-show TEXT", "lets the SDK show the answer while it comes, then replies with it", stream_show),
    Command::new("stream-caught TEXT", "replies with the pieces, and what ended them, joined by |", stream_caught),
    Command::new("stream-caught-within MS TEXT", "the same, when the answer may take so long", stream_caught_within),
    Command::new("into-reply TEXT", "lets the model write the reply, without sources", into_reply),
    Command::new("stream-log TEXT", "logs the pieces, joined by |", stream_log),
    Command::new("stream-some N TEXT|COMMAND", "reads so many pieces, gives the rest up and goes on", stream_some),
    Command::new("stream-open N TEXT|COMMAND", "shows so many pieces, and goes on with the rest unread", stream_open),
    Command::new("history [N]", "replies with the chat's newest N messages, or all, as JSON", history),
    Command::new("create TEXT", "writes a new message and replies with its id", create),
    Command::new("modify ID TEXT", "changes a message", modify),
    Command::new("show TEXT", "shows it for the moment, then replies", show),
    Command::new("show-and TEXT|COMMAND", "shows the text for the moment and goes on", show_and),
    Command::new("step TEXT", "shows a step, changes it, closes it with a source, and replies with its id", step),
    Command::new("debug JSON", "replies, with it as the debug info", debug_info),
    Command::new("settings", "replies with all settings, as JSON", settings),
    Command::new("config KEY", "replies with the setting, or that there is none", setting),
    Command::new("log LEVEL TEXT", "logs it", log),
];

fn search(given: &Given) -> Result<()> {
    let hits = Search::new(given.argument).combined().limit(3).run()?;
    reply(serde_json::to_string(&hits)?)
}

fn search_page(given: &Given) -> Result<()> {
    let (page, text) = given.pair(' ')?;
    let hits = Search::new(text).full_text().limit(1).page(page.parse()?).run()?;
    reply(serde_json::to_string(&hits)?)
}

fn complete(given: &Given) -> Result<()> {
    reply(Completion::new().user(given.argument).run()?.text)
}

fn complete_at(given: &Given) -> Result<()> {
    let (temperature, text) = given.pair(' ')?;
    let request = Completion::new().system("Be brief.").user(text).temperature(temperature.parse()?).max_tokens(99);
    reply(serde_json::to_string(&request.run()?)?)
}

fn complete_into_reply(given: &Given) -> Result<()> {
    let hits = Search::new(given.argument).combined().limit(3).run()?;
    Completion::new().user(given.argument).into_reply(&hits)?;
    Ok(())
}

fn stream(given: &Given) -> Result<()> {
    let pieces = Completion::new().user(given.argument).stream()?.collect::<Result<Vec<_>, _>>()?;
    reply(pieces.join("|"))
}

fn stream_shown(given: &Given) -> Result<()> {
    let mut text = String::new();
    for piece in Completion::new().user(given.argument).stream()? {
        text += &piece?;
        messages::show(&text)?;
    }
    reply(text)
}

fn stream_show(given: &Given) -> Result<()> {
    reply(Completion::new().user(given.argument).stream()?.show()?)
}

fn into_reply(given: &Given) -> Result<()> {
    Completion::new().user(given.argument).into_reply(&[])?;
    Ok(())
}

fn stream_caught(given: &Given) -> Result<()> {
    caught(Completion::new().user(given.argument).stream()?)
}

fn stream_caught_within(given: &Given) -> Result<()> {
    let (limit, text) = given.pair(' ')?;
    caught(Completion::new().user(text).timeout(Duration::from_millis(limit.parse()?)).stream()?)
}

fn caught(pieces: Tokens) -> Result<()> {
    let told = pieces.map(|piece| piece.unwrap_or_else(|error| error.to_string()));
    reply(told.collect::<Vec<_>>().join("|"))
}

fn stream_log(given: &Given) -> Result<()> {
    let pieces = Completion::new().user(given.argument).stream()?.collect::<Result<Vec<_>, _>>()?;
    info!("read {}", pieces.join("|"));
    Ok(())
}

fn stream_some(given: &Given) -> Result<()> {
    let (some, command) = given.pair('|')?;
    let (count, text) = some.split_once(' ').ok_or_else(|| Failure::new("no text"))?;
    let pieces = Completion::new().user(text).stream()?.take(count.parse()?).collect::<Result<Vec<_>, _>>()?;
    run(&format!("{command} {}", pieces.join("|")), given.event)
}

fn stream_open(given: &Given) -> Result<()> {
    let (some, command) = given.pair('|')?;
    let (count, text) = some.split_once(' ').ok_or_else(|| Failure::new("no text"))?;
    let mut pieces = Completion::new().user(text).stream()?;
    let read = pieces.by_ref().take(count.parse()?).collect::<Result<Vec<_>, _>>()?;
    messages::show(read.join("|"))?;
    run(command, given.event)
}

fn history(given: &Given) -> Result<()> {
    let limit = if given.argument.is_empty() { None } else { Some(given.number()?) };
    reply(serde_json::to_string(&messages::history(limit)?)?)
}

fn create(given: &Given) -> Result<()> {
    reply(messages::create(given.argument).complete()?.id)
}

fn modify(given: &Given) -> Result<()> {
    let (id, text) = given.pair(' ')?;
    messages::modify(id).text(text).complete()?;
    reply(format!("changed {id}"))
}

fn show(given: &Given) -> Result<()> {
    messages::show(given.argument)?;
    reply("shown")
}

fn show_and(given: &Given) -> Result<()> {
    let (text, command) = given.pair('|')?;
    messages::show(text)?;
    run(command, given.event)
}

fn step(given: &Given) -> Result<()> {
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
    let step = step.text(given.argument).update()?;
    step.details(json!({ "data": [{ "type": "Test" }] })).references([source]).done()?;
    reply(id)
}

fn debug_info(given: &Given) -> Result<()> {
    let info: serde_json::Value = serde_json::from_str(given.argument)?;
    messages::reply("debugged").debug_info(info).complete()?;
    Ok(())
}

fn settings(_: &Given) -> Result<()> {
    reply(serde_json::to_string(&config::all()?)?)
}

fn setting(given: &Given) -> Result<()> {
    reply(config::get(given.argument)?.unwrap_or_else(|| format!("there is no setting {}", given.argument)))
}

fn log(given: &Given) -> Result<()> {
    let (level, text) = given.pair(' ')?;
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
