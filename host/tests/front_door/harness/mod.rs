//! The test harness: components built once, a host in a process of its own, and chats with it.

mod chat;
mod command;
pub mod components;
mod event;
mod gate;
mod guests;
mod http2_model;
mod model;
mod modules;
mod process;
mod signal;
mod small;
mod stream;
mod wire;

pub use chat::{Answer, PendingReply, call, chat, chat_on, read_chat, read_message, say, wait_for_answer};
pub use command::{CommandOutput, Variables, bare, modhost};
pub use event::{chosen, chosen_in, now, post, sign, signed_post, signed_with, user_message};
pub use gate::Gate;
pub use guests::{component, test_guest_with_names, variant};
pub use http2_model::Http2Model;
pub use model::Model;
pub use modules::{module_state, modules, modules_json};
pub use process::{ADMIN_TOKEN, Host, Settings};
pub use signal::{Signal, signal};
pub use small::{Behavior, small, small_with};
pub use stream::{Stream, StreamConnection};
pub use wire::{Wire, head, request};

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The time limit of every wait in the tests, far longer than anything takes on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until there is an answer; panics with `what` if there is none in time.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client without proxies and redirects. It is created once because loading the certificates is slow, and keeps no
/// connections, because each belongs to the runtime of the test that opened it.
pub fn http() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        client.pool_max_idle_per_host(0).build().unwrap()
    });
    CLIENT.clone()
}
