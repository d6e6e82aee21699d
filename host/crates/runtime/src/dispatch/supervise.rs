//! Restarts background tasks that panic: without its scheduler, for example, a host would accept events and never run
//! them.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::Inner;

/// The delay before a task that panicked is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs a task until it returns, and restarts it after a panic.
pub(super) async fn keep_running<F: Future<Output = ()>>(
    name: &'static str,
    inner: Arc<Inner>,
    task: impl Fn(Arc<Inner>) -> F,
) {
    while let Err(panic) = AssertUnwindSafe(task(inner.clone())).catch_unwind().await {
        tracing::error!(task = name, panic = message(&*panic), "background task panicked; it is restarted");
        inner.clock.sleep(RESTART_AFTER).await;
    }
}

/// Returns the message of a panic.
pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
