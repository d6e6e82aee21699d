//! Writes what users write to the log. It answers nobody.

use modhost_sdk::prelude::*;

modhost_sdk::module!(note);

/// The user isn't told to modules; the host adds who it was to each line of this delivery.
fn note(event: UserMessageCreated) -> Result<()> {
    info!("chat {} of {}: {}", event.chat_id, event.assistant_id, event.text);
    Ok(())
}
