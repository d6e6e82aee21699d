//! Shutdown: no attempt starts, running attempts end or their deliveries are returned to the queue, and nothing is
//! lost.

use modhost_storage::journal::{Journal, State};
use tokio::task::JoinHandle;

use super::journal::{Op, Point};
use super::*;
use crate::dispatch::CLEANUP_TIMEOUT;
use crate::dispatch::leases::{HEARTBEAT_EVERY, LEASE};

const GRACE: Duration = Duration::from_secs(60);

impl TestHost {
    fn shut_down(&self) -> JoinHandle<()> {
        let dispatcher = self.dispatcher.clone();
        tokio::spawn(async move { dispatcher.shutdown(GRACE).await })
    }

    /// Starts the next host on the same journal.
    async fn restarted(&self) -> Self {
        let host = Self::with(Setup::default(), self.clock.clone(), self.journal.clone()).await;
        host.dispatcher.run();
        host.settle().await;
        host
    }
}

async fn has_ended(host: &TestHost, shutdown: JoinHandle<()>) {
    host.until("the shutdown to end", || shutdown.is_finished()).await;
    shutdown.await.unwrap();
}

#[tokio::test]
async fn lets_running_deliveries_end() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let shutdown = host.shut_down();
    host.settle().await;
    assert!(!shutdown.is_finished());
    host.end(&delivery, answered()).await;
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn ends_at_once_when_nothing_runs() {
    let host = TestHost::new().await;
    has_ended(&host, host.shut_down()).await;
    assert!(matches!(host.accept(&event("evt_1", "Echo")).await, Err(Refused::Stopping)));
}

#[tokio::test]
async fn returns_deliveries_that_outlast_the_grace_period() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let shutdown = host.shut_down();
    host.settle().await;
    host.advance(GRACE - Duration::from_millis(1)).await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&delivery));
    host.advance(Duration::from_millis(1)).await;
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Waiting);
    assert_eq!(host.platform.calls(), 0, "the next host resumes it");
    assert!(host.modules.evidence().is_empty(), "a canceled attempt is no evidence about its version");

    let next = host.restarted().await;
    next.modules.attempt_of(&delivery).unwrap().progress().reply.text = Some("here you are".to_owned());
    next.end(&delivery, answered()).await;
    assert_eq!(next.state(&delivery).await, State::Completed);
    next.assert_idle(&["acme"]);
}

/// Deliveries claimed during the shutdown still run; otherwise they would wait for their leases to expire.
#[tokio::test]
async fn runs_deliveries_claimed_during_shutdown() {
    for point in [Point::Before, Point::After] {
        let host = TestHost::new().await;
        host.journal.lease_on_record(false);
        let mut held = host.journal.hold(Op::Claim, point);
        let delivery = host.accepted(&event("evt_1", "Echo")).await;
        host.until("the claim", || held.is_reached()).await;
        let shutdown = host.shut_down();
        host.settle().await;
        held.release();
        host.end(&delivery, answered()).await;
        has_ended(&host, shutdown).await;
        assert_eq!(host.state(&delivery).await, State::Completed);
        host.assert_idle(&["acme"]);
    }
}

/// The claim ends after the grace period: its deliveries are returned to the queue.
#[tokio::test]
async fn returns_deliveries_claimed_after_the_grace_period() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Claim, Point::After);
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.until("the claim", || held.is_reached()).await;
    let shutdown = host.shut_down();
    host.settle().await;
    host.advance(GRACE).await;
    held.release();
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Waiting);
    let next = host.restarted().await;
    next.end(&delivery, answered()).await;
    assert_eq!(next.state(&delivery).await, State::Completed);
}

/// The claim never ends: the host stops nonetheless, and the next one takes the delivery over.
#[tokio::test]
async fn stops_when_a_claim_never_ends() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Claim, Point::After);
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.until("the claim", || held.is_reached()).await;
    let shutdown = host.shut_down();
    host.settle().await;
    host.advance(GRACE).await;
    assert!(!shutdown.is_finished());
    host.advance(CLEANUP_TIMEOUT).await;
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Running);
    let next = host.restarted().await;
    next.end(&delivery, answered()).await;
    assert_eq!(next.state(&delivery).await, State::Completed);
    next.assert_idle(&["acme"]);
}

#[tokio::test]
async fn finishes_recording_an_event() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    let mut held = host.journal.hold(Op::Record, Point::Before);
    let sent = event("evt_1", "Echo");
    let client = tokio::spawn({
        let (dispatcher, sent) = (host.dispatcher.clone(), sent.clone());
        async move { dispatcher.accept(sent).await }
    });
    host.until("the event to be recorded", || held.is_reached()).await;
    let shutdown = host.shut_down();
    host.settle().await;
    assert!(!shutdown.is_finished(), "the event is not recorded yet");
    held.release();
    let delivery = DeliveryId::new(&sent, &"Echo".into());
    assert_eq!(client.await.unwrap().unwrap(), Accepted::Deliveries(vec![delivery.clone()]));
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Waiting, "no attempt starts during shutdown");
    host.assert_nothing_reserved();
    let next = host.restarted().await;
    next.end(&delivery, answered()).await;
    assert_eq!(next.state(&delivery).await, State::Completed);
}

#[tokio::test]
async fn extends_leases_until_all_deliveries_have_ended() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let shutdown = host.shut_down();
    host.settle().await;
    let before = host.journal.started(Op::Heartbeat, None);
    for _ in 0..5 {
        host.advance(HEARTBEAT_EVERY).await;
    }
    assert_eq!(host.journal.started(Op::Heartbeat, None), before + 5);
    assert!(LEASE < HEARTBEAT_EVERY * 5);
    assert_eq!(host.journal.memory.reclaim(None).await.unwrap(), 0);
    host.end(&delivery, answered()).await;
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
}

/// A platform that doesn't answer delays a shutdown by the cleanup timeout at most.
#[tokio::test]
async fn stops_when_the_platform_does_not_answer() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.platform.hold();
    host.end(&delivery, failed(Retry::No)).await;
    let shutdown = host.shut_down();
    host.settle().await;
    host.advance(GRACE).await;
    host.advance(CLEANUP_TIMEOUT).await;
    has_ended(&host, shutdown).await;
    assert_eq!(host.state(&delivery).await, State::Running);
}
