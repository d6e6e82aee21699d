//! A module with negligible work of its own, for the host's benchmarks: four calls for an event that chose it, none for
//! any other.

use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

fn answer(event: Event) -> Result<()> {
    match event.subject {
        Subject::ModuleChosen(chosen) => four_calls(chosen.user_message.text),
        _ => Ok(()),
    }
}

fn four_calls(question: String) -> Result<()> {
    // Leaves the step to the host, because `done` would be a fifth call.
    let _step = Step::start("Searching knowledge base…")?;
    let hits = Search::new(&question).limit(3).run()?;
    let answer = Completion::new().user(question).run()?;
    messages::reply(answer.text).citing(&hits).complete()?;
    Ok(())
}
