//! Retries: when the next attempt starts, and how a delivery ends when its attempts are used up.

use modhost_storage::journal::{Claim, FailureReason, Journal, State};

use super::journal::Op;
use super::script::Answer;
use super::*;

/// The minimum sleep of the scheduler.
const MIN_SLEEP: Duration = Duration::from_millis(50);

impl TestHost {
    /// Advances to the time at which the next attempt is due, asserts that it starts then and not before, and returns
    /// the wait.
    async fn attempt_when_due(&self, delivery: &DeliveryId) -> Duration {
        let details = self.details(delivery).await;
        assert_eq!(details.summary.state, State::Waiting, "{details:?}");
        let starts = self.modules.starts_of(delivery);
        let wait = details.summary.due_at.unwrap().duration_since(self.clock.now()).unwrap_or_default();
        self.advance(wait.saturating_sub(Duration::from_millis(1))).await;
        if wait > Duration::from_millis(1) {
            assert_eq!(self.modules.starts_of(delivery), starts, "not due before {wait:?}");
        }
        self.advance(Duration::from_millis(1) + MIN_SLEEP).await;
        assert_eq!(self.modules.starts_of(delivery), starts + 1, "due after {wait:?}");
        wait
    }

    async fn reason(&self, delivery: &DeliveryId) -> FailureReason {
        FailureReason::parse(&self.details(delivery).await.summary.reason.unwrap())
    }
}

#[tokio::test]
async fn starts_next_attempt_when_it_is_due() {
    for seed in 0..50 {
        fastrand::seed(seed);
        let host = TestHost::new().await;
        let delivery = host.accepted(&event("evt_1", "Echo")).await;
        for max_secs in [2, 4] {
            host.end(&delivery, failed(Retry::Yes)).await;
            let wait = host.attempt_when_due(&delivery).await;
            assert!(wait <= Duration::from_secs(max_secs), "{wait:?}");
        }
        host.end(&delivery, failed(Retry::Yes)).await;
        assert_eq!(host.state(&delivery).await, State::Dead);
        assert_eq!(host.reason(&delivery).await.to_string(), "no seats (attempt 3 of 3)");
        assert_eq!(host.modules.evidence(), [false], "a delivery counts once, by its first attempt");
        host.assert_idle(&["acme"]);
    }
}

#[tokio::test]
async fn waits_for_the_delay_the_module_requests() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.end(&delivery, failed(Retry::After(Duration::from_secs(40)))).await;
    assert_eq!(host.attempt_when_due(&delivery).await, Duration::from_secs(40));
    // A delay of years would keep the delivery in the journal for as long.
    host.end(&delivery, failed(Retry::After(Duration::MAX))).await;
    assert_eq!(host.attempt_when_due(&delivery).await, Duration::from_secs(60));
}

#[tokio::test]
async fn gives_up_after_permanent_failure() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.end(&delivery, failed(Retry::No)).await;
    assert_eq!(host.state(&delivery).await, State::Dead);
    assert_eq!(host.platform.written(), [("sorry".to_owned(), true)]);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn notifies_the_user_of_a_retry() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.end(&delivery, failed(Retry::Yes)).await;
    assert_eq!(host.platform.written(), [("one moment".to_owned(), false)]);
    host.attempt_when_due(&delivery).await;
    host.modules.attempt_of(&delivery).unwrap().progress().reply.text = Some("here you are".to_owned());
    host.end(&delivery, answered()).await;
    assert_eq!(host.platform.written().last(), Some(&("here you are".to_owned(), true)));
    assert_eq!(host.state(&delivery).await, State::Completed);
}

/// The timer of the scheduler is reset when a retry is due earlier.
#[tokio::test]
async fn starts_attempts_in_order_of_due_time() {
    let host = TestHost::new().await;
    let (late, early) = (host.accepted(&event("evt_1", "Echo")).await, host.accepted(&event("evt_2", "Echo")).await);
    host.end(&late, failed(Retry::After(Duration::from_secs(25)))).await;
    host.end(&early, failed(Retry::After(Duration::from_secs(5)))).await;
    host.attempt_when_due(&early).await;
    assert_eq!(host.modules.running(), [early]);
    host.attempt_when_due(&late).await;
}

/// A user who isn't notified would wait forever: attempts that only notify the user follow, and the module does not run
/// again.
#[tokio::test]
async fn notifies_the_user_when_the_platform_recovers() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.platform.answers(Answer::Unavailable);
    host.end(&delivery, failed(Retry::Yes)).await;
    for _ in 0..2 {
        host.attempt_when_due(&delivery).await;
        host.end(&delivery, failed(Retry::Yes)).await;
    }
    for notices in 1..=3 {
        let reason = host.reason(&delivery).await;
        assert_eq!(reason.reason(), "no seats (attempt 3 of 3)", "after {notices} notices");
        assert!(reason.notice_error().unwrap().contains("no route to the platform"), "{reason}");
        assert_eq!(host.state(&delivery).await, State::Waiting);
        let due_at = host.details(&delivery).await.summary.due_at.unwrap();
        host.advance(due_at.duration_since(host.clock.now()).unwrap_or_default() + MIN_SLEEP).await;
    }
    host.platform.answers(Answer::Ok);
    host.advance(Duration::from_secs(60) + MIN_SLEEP).await;
    assert_eq!(host.state(&delivery).await, State::Dead);
    assert_eq!(host.reason(&delivery).await, FailureReason::new("no seats (attempt 3 of 3)"));
    assert_eq!(host.platform.written(), [("sorry".to_owned(), true)]);
    assert_eq!(host.modules.starts_of(&delivery), 3);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn records_why_the_user_could_not_be_notified() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.platform.answers(Answer::Denied);
    host.end(&delivery, failed(Retry::No)).await;
    assert_eq!(host.state(&delivery).await, State::Dead);
    let reason = host.reason(&delivery).await;
    assert_eq!(reason.reason(), "no seats");
    assert!(reason.notice_error().unwrap().contains("the key is revoked"), "{reason}");
}

#[tokio::test]
async fn gives_up_delivery_interrupted_in_each_attempt() {
    let host = TestHost::stopped(Setup::default()).await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    for _ in 0..3 {
        let claim = Claim {
            tenant: "acme".into(),
            module: "Echo".into(),
            limit: 1,
            owner: OWNER.into(),
            lease: Duration::from_secs(30),
        };
        assert_eq!(host.journal.memory.claim(claim).await.unwrap().len(), 1);
        assert_eq!(host.journal.memory.reclaim(Some(OWNER)).await.unwrap(), 1);
    }
    host.dispatcher.run();
    host.settle().await;
    assert_eq!(host.state(&delivery).await, State::Dead);
    assert!(host.reason(&delivery).await.reason().contains("3 times"), "{}", host.reason(&delivery).await);
    assert_eq!((host.modules.history(), host.platform.written().len()), (Vec::new(), 1));
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn retries_attempt_that_panics() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.end(&delivery, End::Panic).await;
    host.attempt_when_due(&delivery).await;
    host.end(&delivery, End::Panic).await;
    host.attempt_when_due(&delivery).await;
    host.modules.attempt_of(&delivery).unwrap().progress().reply.text = Some("at last".to_owned());
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn gives_up_attempt_that_panics_each_time() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    for attempt in 1..=3 {
        host.end(&delivery, End::Panic).await;
        if attempt < 3 {
            host.attempt_when_due(&delivery).await;
        }
    }
    assert_eq!(host.state(&delivery).await, State::Dead);
    assert_eq!(host.platform.written().last(), Some(&("sorry".to_owned(), true)));
    host.assert_idle(&["acme"]);
}

/// Finalizing panics too: the delivery is retried, and given up without a notice in the end.
#[tokio::test]
async fn retries_attempt_whose_finalization_panics() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.platform.answers(Answer::Panic);
    for attempt in 1..=3 {
        host.end(&delivery, failed(Retry::Yes)).await;
        assert!(lock(&host.dispatcher.0.running).is_empty(), "the slot is free");
        if attempt < 3 {
            host.attempt_when_due(&delivery).await;
        }
    }
    assert_eq!(host.state(&delivery).await, State::Dead);
    let reason = host.reason(&delivery).await.to_string();
    assert!(reason.contains("internal error") && reason.ends_with("(attempt 3 of 3)"), "{reason}");
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn keeps_the_order_of_a_chat_through_a_retry() {
    let host = TestHost::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    let mut deliveries = Vec::new();
    for id in ["evt_1", "evt_2", "evt_3"] {
        deliveries.push(host.accepted(&message("acme", id, "Echo", "chat_1")).await);
    }
    let other = host.accepted(&message("acme", "evt_4", "Echo", "chat_2")).await;
    let [first, second, third] = deliveries.try_into().unwrap();
    host.end(&first, answered()).await;
    host.end(&second, failed(Retry::After(Duration::from_secs(20)))).await;
    host.end(&other, answered()).await;
    host.advance(Duration::from_secs(19)).await;
    assert!(host.modules.running().is_empty(), "the third waits for the second");
    host.advance(Duration::from_secs(1) + MIN_SLEEP).await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&second));
    host.end(&second, answered()).await;
    host.end(&third, answered()).await;
    let started: Vec<DeliveryId> = host.modules.history().into_iter().map(|(delivery, _)| delivery).collect();
    let of_chat: Vec<&DeliveryId> = started.iter().filter(|delivery| **delivery != other).collect();
    assert_eq!(of_chat, [&first, &second, &second, &third]);
    host.assert_idle(&["acme"]);
}

/// The next delivery of a chat is claimed while the previous one is retried: only one of them runs.
#[tokio::test]
async fn runs_one_delivery_of_a_chat_while_its_lane_is_claimed() {
    let host = TestHost::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    let first = host.accepted(&message("acme", "evt_1", "Echo", "chat_1")).await;
    host.running(&first).await;
    let mut held = host.journal.hold(Op::Claim, super::journal::Point::Before);
    let second = host.accepted(&message("acme", "evt_2", "Echo", "chat_1")).await;
    host.until("the claim", || held.is_reached()).await;
    host.end(&first, failed(Retry::After(Duration::ZERO))).await;
    held.release();
    host.advance(MIN_SLEEP).await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&first));
    host.end(&first, answered()).await;
    host.end(&second, answered()).await;
    host.assert_idle(&["acme"]);
}
