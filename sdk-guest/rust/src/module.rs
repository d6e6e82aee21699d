//! Connects the author's function to the component's export.

use crate::bindings;
use crate::event::{Event, FromEvent};
use crate::failure::Result;

/// Exports a function as the module's event handler.
///
/// The function takes one argument of a type that implements [`FromEvent`](crate::FromEvent), such as
/// [`ModuleChosen`](crate::ModuleChosen), or [`Event`](crate::Event) for events of every kind. It returns a
/// [`Result<()>`](crate::Result). Call the macro once, in a crate that is built as a `cdylib`.
///
/// ```
/// use modhost_sdk::prelude::*;
///
/// modhost_sdk::module!(answer);
///
/// fn answer(event: ModuleChosen) -> Result<()> {
///     messages::reply(format!("You said: {}", event.user_message.text)).complete()?;
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! module {
    ($answer:path) => {
        const _: () = {
            struct Module;

            impl $crate::bindings::Guest for Module {
                fn handle(event: $crate::bindings::Event) -> ::core::result::Result<(), $crate::bindings::Failure> {
                    $crate::module::handle(event, $answer)
                }
            }

            // Only a component has exports. In tests, one program may contain two modules.
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export!(Module with_types_in $crate::bindings);
            #[cfg(not(target_arch = "wasm32"))]
            let _ = Module;
        };
    };
}

/// Handles an event with the author's function. [`module!`](crate::module!) expands to a call of this function.
pub fn handle<E: FromEvent>(
    event: bindings::Event,
    answer: impl FnOnce(E) -> Result<()>,
) -> Result<(), bindings::Failure> {
    E::from_event(Event::from(event)).and_then(answer).map_err(bindings::Failure::from)
}

#[cfg(test)]
mod tests {
    use crate::bindings::modhost::module::events as wit;
    use crate::prelude::*;

    use super::handle;

    fn created() -> wit::Event {
        wit::Event {
            id: "evt_1".into(),
            source: "unique".into(),
            name: "unique.chat.user-message.created".into(),
            created_at: Some(1),
            attempt: 1,
            subject: wit::Subject::UserMessageCreated(wit::UserMessageCreated {
                chat_id: "chat_1".into(),
                assistant_id: "assistant_1".into(),
                text: "Hello".into(),
            }),
            payload: "{}".into(),
        }
    }

    #[test]
    fn function_receives_the_event_it_handles() {
        let mut received = None;
        let result = handle(created(), |event: UserMessageCreated| {
            received = Some(event.text);
            Ok(())
        });
        assert!(result.is_ok());
        assert_eq!(received.as_deref(), Some("Hello"));
    }

    #[test]
    fn fails_without_retry_on_another_kind_of_event() {
        let failure = handle(created(), |_: ModuleChosen| panic!("not my event")).unwrap_err();
        assert!(failure.reason.contains("unique.chat.user-message.created"), "{}", failure.reason);
        assert!(failure.reason.contains("modules.toml"), "{}", failure.reason);
        assert!(matches!(failure.retry, wit::Retry::No), "{:?}", failure.retry);
    }

    #[test]
    fn passes_all_fields_of_a_failure_to_the_host() {
        let failure = handle(created(), |_: Event| {
            Err(Failure::new("no seats left")
                .user_text("Sorry, full.")
                .retry_after(std::time::Duration::from_millis(1500)))
        })
        .unwrap_err();
        assert_eq!(failure.reason, "no seats left");
        assert_eq!(failure.user_text.as_deref(), Some("Sorry, full."));
        let retry = failure.retry;
        assert!(matches!(retry, wit::Retry::After(2)), "{retry:?}: the delay is rounded up, so that no retry is early");
    }
}
