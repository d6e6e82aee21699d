//! The tutorial's DemoApp: echoes the user's message in a separate message.

use modhost_sdk::prelude::*;

modhost_sdk::module!(answer);

/// The module's name on the platform.
const NAME: &str = "DemoApp";

fn answer(event: ModuleChosen) -> Result<()> {
    if event.name != NAME {
        let reason = format!(
            "this module is {NAME}, but the event is for `{}`; name the module {NAME} in modules.toml",
            event.name
        );
        return Err(Failure::new(reason));
    }

    let greeting = config::get("greeting")?.unwrap_or_else(|| "Hello".to_owned());
    messages::create(event.user_message.text).complete()?;
    // The echo is a separate message. The platform also created an empty reply, which has to be filled.
    messages::reply(format!("{greeting}! What you wrote comes back in the next message.")).complete()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use modhost_sdk::UserMessage;

    use super::*;

    #[test]
    fn fails_for_another_name() {
        let failure = answer(ModuleChosen {
            name: "OtherApp".into(),
            description: String::new(),
            configuration: json!({}).into(),
            chat_id: "chat_1".into(),
            assistant_id: "assistant_1".into(),
            assistant_message_id: "msg_2".into(),
            user_message: UserMessage {
                id: "msg_1".into(),
                text: "Hello".into(),
                original_text: None,
                language: None,
                created_at: "2026-01-01T00:00:00Z".into(),
            },
        })
        .unwrap_err();
        assert!(failure.reason.contains("OtherApp"), "{failure}");
        assert_eq!(failure.retry, modhost_sdk::Retry::No);
    }
}
