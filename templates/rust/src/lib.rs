//! Answers a question from the passages that a search finds.

use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

fn answer(event: ModuleChosen) -> Result<()> {
    let question = event.user_message.text;

    let step = Step::start("Searching…")?;
    let hits = Search::new(&question).limit(3).run()?;
    step.text(format!("Passages found: {}", hits.len())).done()?;
    if hits.is_empty() {
        messages::reply("I found nothing about that.").complete()?;
        return Ok(());
    }

    let step = Step::start("Writing the answer…")?;
    let written = Completion::new().system(instructions(&hits)).user(question).run()?;
    step.done()?;

    messages::reply(written.text).citing(&hits).complete()?;
    Ok(())
}

/// Returns the prompt: the task and the passages, numbered for citations.
fn instructions(hits: &[Hit]) -> String {
    let mut text = "Answer from these passages and from nothing else. Cite them as [source0], [source1] and so on.\n".to_owned();
    for (number, hit) in hits.iter().enumerate() {
        text += &format!("\n<source{number}>\n{}\n{}\n</source{number}>\n", hit.name(), hit.text);
    }
    text
}
