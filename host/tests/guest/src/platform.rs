//! The calls to the platform, one by one.

use modhost_sdk::prelude::*;

use crate::{Command, Given, reply, run};

pub(crate) const COMMANDS: &[Command] = &[
    Command::new("search TEXT", "replies with the hits, as JSON", search),
    Command::new("search-page PAGE TEXT", "replies with that page of one hit, as JSON", search_page),
    Command::new("complete TEXT", "replies with the model's answer", complete),
    Command::new("complete-at TEMPERATURE TEXT", "replies with the model's whole answer, as JSON", complete_at),
    Command::new("complete-into-reply TEXT", "lets the model write the reply, with three sources", complete_into_reply),
    Command::new("stream TEXT", "replies with the pieces of the model's answer, joined by |", stream),
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
