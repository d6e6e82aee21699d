//! The seam between an author's function and the component's export.

use crate::bindings;
use crate::event::{Event, FromEvent};
use crate::failure::Result;

/// Makes a function the module: what answers the events the host brings.
///
/// The function takes whatever implements [`FromEvent`](crate::FromEvent) (say
/// [`ModuleChosen`](crate::ModuleChosen), or [`Event`](crate::Event) for events of every kind) and returns a
/// [`Result<()>`](crate::Result). Name it once in a crate that is built as a `cdylib`.
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

            // Only a component has exports; elsewhere, in tests, two modules may meet in one program.
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::export!(Module with_types_in $crate::bindings);
            #[cfg(not(target_arch = "wasm32"))]
            let _ = Module;
        };
    };
}

/// Answers an event with an author's function; what [`module!`](crate::module!) calls.
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
    fn the_function_gets_the_event_it_takes() {
        let mut heard = None;
        let ended = handle(created(), |event: UserMessageCreated| {
            heard = Some(event.text);
            Ok(())
        });
        assert!(ended.is_ok());
        assert_eq!(heard.as_deref(), Some("Hello"));
    }

    #[test]
    fn another_kind_of_event_is_a_failure_for_good() {
        let failure = handle(created(), |_: ModuleChosen| panic!("not my event")).unwrap_err();
        assert!(failure.reason.contains("unique.chat.user-message.created"), "{}", failure.reason);
        assert!(failure.reason.contains("modules.toml"), "{}", failure.reason);
        assert!(matches!(failure.retry, wit::Retry::No), "{:?}", failure.retry);
    }

    #[test]
    fn a_failure_reaches_the_host_whole() {
        let failure = handle(created(), |_: Event| {
            Err(Failure::new("no seats left")
                .user_text("Sorry, full.")
                .retry_after(std::time::Duration::from_millis(1500)))
        })
        .unwrap_err();
        assert_eq!(failure.reason, "no seats left");
        assert_eq!(failure.user_text.as_deref(), Some("Sorry, full."));
        let retry = failure.retry;
        assert!(matches!(retry, wit::Retry::After(2)), "{retry:?}: rounded up, so that it is never earlier than asked");
    }
}
