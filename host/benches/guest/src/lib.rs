//! A module with negligible work of its own, for the host's benchmarks: four calls for an event that chose it, none for
//! any other. A user's message `wait MS` makes it wait three times, as for answers.

use std::time::Duration;

use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

fn answer(event: Event) -> Result<()> {
    match event.subject {
        Subject::ModuleChosen(chosen) => four_calls(chosen.user_message.text),
        Subject::UserMessageCreated(created) => wait(&created.text),
        _ => Ok(()),
    }
}

fn wait(text: &str) -> Result<()> {
    if let Some(milliseconds) = text.strip_prefix("wait ").and_then(|number| number.parse().ok()) {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(milliseconds));
        }
    }
    Ok(())
}

fn four_calls(question: String) -> Result<()> {
    // Leaves the step to the host, because `done` would be a fifth call.
    let _step = Step::start("Searching knowledge base…")?;
    let hits = Search::new(&question).limit(3).run()?;
    let answer = Completion::new().user(question).run()?;
    messages::reply(answer.text).citing(&hits).complete()?;
    Ok(())
}
