//! Logs users' messages. Sends no replies.

use modhost_sdk::prelude::*;

modhost_sdk::module!(log_message);

/// Logs a message. The host adds the user's id to each log line, because modules don't receive it.
fn log_message(event: UserMessageCreated) -> Result<()> {
    info!("chat {} of {}: {}", event.chat_id, event.assistant_id, event.text);
    Ok(())
}
