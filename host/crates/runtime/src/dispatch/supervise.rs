//! Background tasks that outlive a panic: without the scheduler, say, the host would go on accepting what nobody runs.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::Inner;

/// How long a task that panicked is left alone.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs a task until it returns; one that panics is started anew.
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

/// What a panic said.
pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
