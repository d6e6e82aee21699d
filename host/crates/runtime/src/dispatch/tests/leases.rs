//! Leases: an attempt whose lease is lost changes nothing more, and no delivery is left without an attempt.

use modhost_storage::journal::{AttemptReport, Claim, Claimed, Disposition, Journal, State};

use super::journal::{Op, Point};
use super::*;
use crate::dispatch::leases::{HEARTBEAT_EVERY, LEASE};

/// Another host.
const OTHER: &str = "host-2";

impl TestHost {
    /// Takes a running delivery over, as if this host had been suspended for longer than a lease and another host had
    /// claimed the delivery.
    async fn take_over(&self) -> Claimed {
        assert_eq!(self.journal.memory.reclaim(Some(OWNER)).await.unwrap(), 1);
        self.claim_as_other().await
    }

    async fn claim_as_other(&self) -> Claimed {
        let claim = Claim { tenant: "acme".into(), module: "Echo".into(), limit: 1, owner: OTHER.into(), lease: LEASE };
        let mut claimed = self.journal.memory.claim(claim).await.unwrap();
        assert_eq!(claimed.len(), 1);
        claimed.remove(0)
    }

    /// Completes an attempt of the other host.
    async fn complete_as_other(&self, claimed: &Claimed) {
        let report =
            AttemptReport { took: Duration::ZERO, version: None, outcome: "completed".to_owned(), log: Vec::new() };
        self.journal.memory.complete_attempt(&claimed.lease, report, Disposition::Completed).await.unwrap();
    }

    /// Asserts that the other host's outcome of a delivery is kept, and that this host no longer runs the delivery.
    async fn assert_others(&self, delivery: &DeliveryId, claimed: &Claimed) {
        let details = self.details(delivery).await;
        assert_eq!((details.summary.state, details.attempts.len()), (State::Running, 0));
        assert!(lock(&self.dispatcher.0.running).is_empty());
        self.complete_as_other(claimed).await;
        let details = self.details(delivery).await;
        assert_eq!((details.summary.state, details.attempts.len()), (State::Completed, 1));
        assert_eq!(details.attempts[0].owner, OTHER);
    }
}

#[tokio::test]
async fn cancels_running_attempt_when_its_lease_is_lost() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let taken = host.take_over().await;
    host.settle().await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&delivery), "the host has not detected the loss yet");
    host.advance(HEARTBEAT_EVERY).await;
    assert!(host.modules.running().is_empty());
    assert_eq!(host.platform.calls(), 0, "only the other attempt notifies the user");
    host.assert_others(&delivery, &taken).await;
}

#[tokio::test]
async fn cancels_finalization_when_its_lease_is_lost() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.platform.hold();
    host.end(&delivery, failed(Retry::No)).await;
    assert_eq!(host.platform.calls(), 1, "the apology is in flight");
    let taken = host.take_over().await;
    host.advance(HEARTBEAT_EVERY).await;
    host.platform.release();
    host.settle().await;
    assert!(host.platform.written().is_empty());
    host.assert_others(&delivery, &taken).await;
}

/// Another host takes the delivery over while the outcome is being recorded.
#[tokio::test]
async fn discards_outcome_of_attempt_whose_lease_is_lost() {
    for beats in [false, true] {
        let host = TestHost::new().await;
        let delivery = host.accepted(&event("evt_1", "Echo")).await;
        let mut held = host.journal.hold(Op::Complete, Point::Before);
        host.end(&delivery, answered()).await;
        assert!(held.is_reached());
        let taken = host.take_over().await;
        if beats {
            host.advance(HEARTBEAT_EVERY).await;
        }
        held.release();
        host.settle().await;
        host.assert_others(&delivery, &taken).await;
    }
}

/// The outcome is recorded, and a heartbeat reports the lease as lost before the journal has confirmed the outcome.
#[tokio::test]
async fn keeps_outcome_that_was_recorded_before_the_heartbeat() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    let mut held = host.journal.hold(Op::Complete, Point::After);
    host.end(&delivery, answered()).await;
    assert!(held.is_reached());
    host.advance(HEARTBEAT_EVERY).await;
    held.release();
    host.settle().await;
    let details = host.details(&delivery).await;
    assert_eq!((details.summary.state, details.attempts.len()), (State::Completed, 1));
    host.advance(LEASE * 2).await;
    assert_eq!(host.modules.starts_of(&delivery), 1);
    host.assert_idle(&["acme"]);
}

/// A heartbeat sent before an attempt ended must not cancel the next attempt at the same delivery.
#[tokio::test]
async fn keeps_next_attempt_when_late_heartbeat_reports_previous_lease_lost() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let mut held = host.journal.hold(Op::Heartbeat, Point::Before);
    host.advance(HEARTBEAT_EVERY).await;
    assert!(held.is_reached());
    host.end(&delivery, failed(Retry::After(Duration::ZERO))).await;
    host.advance(Duration::from_millis(50)).await;
    host.running(&delivery).await;
    held.release();
    host.settle().await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&delivery));
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn keeps_attempt_running_while_heartbeats_fail() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    host.journal.fail(Op::Heartbeat, Point::Before, None);
    for _ in 0..10 {
        host.advance(HEARTBEAT_EVERY).await;
    }
    // The lease has expired, and no other host has claimed the delivery.
    host.journal.recover();
    host.advance(HEARTBEAT_EVERY).await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&delivery));
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    assert_eq!(host.modules.starts_of(&delivery), 1);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn cancels_attempt_when_heartbeats_recover_too_late() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    host.journal.fail(Op::Heartbeat, Point::Before, None);
    host.advance(LEASE).await;
    assert_eq!(host.journal.memory.reclaim(None).await.unwrap(), 1, "its lease has expired");
    let taken = host.claim_as_other().await;
    host.advance(HEARTBEAT_EVERY).await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&delivery), "no heartbeat succeeds");
    host.journal.recover();
    host.advance(HEARTBEAT_EVERY).await;
    assert!(host.modules.running().is_empty());
    host.assert_others(&delivery, &taken).await;
}

/// The host claims the delivery again after its lease expired: the previous attempt is canceled, and only the new one
/// runs.
#[tokio::test]
async fn cancels_attempt_when_its_host_claims_the_delivery_again() {
    let host = TestHost::new().await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.running(&delivery).await;
    let first = host.modules.attempt_of(&delivery).unwrap();
    host.journal.fail(Op::Heartbeat, Point::Before, None);
    host.advance(LEASE).await;
    assert_eq!(host.journal.memory.reclaim(None).await.unwrap(), 1);
    host.dispatcher.rescan();
    host.settle().await;
    assert_eq!(host.modules.running(), std::slice::from_ref(&delivery));
    let second = host.modules.attempt_of(&delivery).unwrap();
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_eq!(host.dispatcher.in_flight(&"Echo".into()), 1);
    host.journal.recover();
    host.advance(HEARTBEAT_EVERY).await;
    host.end(&delivery, answered()).await;
    let details = host.details(&delivery).await;
    assert_eq!((details.summary.state, details.attempts.len()), (State::Completed, 1));
    assert_eq!(details.attempts[0].number, 2);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn takes_over_deliveries_of_a_host_that_is_gone() {
    let host = TestHost::new().await;
    host.modules.pause("Echo");
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.claim_as_other().await;
    host.modules.resume("Echo");
    host.dispatcher.rescan();
    host.advance(LEASE - Duration::from_millis(1)).await;
    assert!(host.modules.running().is_empty(), "the other host may still be running");
    host.advance(HEARTBEAT_EVERY).await;
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    assert_eq!(host.modules.history(), [(delivery, 2)]);
    host.assert_idle(&["acme"]);
}

/// One of them may be what stops the host each time; the other ones must still complete.
#[tokio::test]
async fn runs_repeatedly_interrupted_deliveries_one_at_a_time() {
    let host = TestHost::new().await;
    host.modules.pause("Echo");
    let mut deliveries = Vec::new();
    for number in 0..3 {
        deliveries.push(host.accepted(&event(&format!("evt_{number}"), "Echo")).await);
    }
    for interrupted in 0..2 {
        for _ in &deliveries {
            assert_eq!(host.claim_as_other().await.interrupted, interrupted);
        }
        assert_eq!(host.journal.memory.reclaim(Some(OTHER)).await.unwrap(), 3);
    }
    host.modules.resume("Echo");
    host.dispatcher.rescan();
    let new = host.accepted(&event("evt_new", "Echo")).await;
    host.running(&new).await;
    for delivery in &deliveries {
        host.running(delivery).await;
        assert_eq!(host.modules.running().len(), 2, "one of them, and the new delivery");
        host.end(delivery, answered()).await;
        assert_eq!(host.state(delivery).await, State::Completed);
    }
    host.end(&new, answered()).await;
    host.assert_idle(&["acme"]);
}

/// The outcome could not be recorded: the slot is free immediately, and the delivery runs again after its lease has
/// expired.
#[tokio::test]
async fn reruns_delivery_when_outcome_was_not_recorded() {
    let host = TestHost::of(Setup { concurrency: 1, ..Setup::default() }).await;
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.journal.fail(Op::Complete, Point::Before, None);
    host.end(&delivery, answered()).await;
    host.journal.recover();
    assert_eq!(host.state(&delivery).await, State::Running);
    let other = host.accepted(&event("evt_2", "Echo")).await;
    host.end(&other, answered()).await;
    assert_eq!(host.state(&other).await, State::Completed, "the slot is free");

    host.advance(LEASE - Duration::from_millis(1)).await;
    assert_eq!(host.modules.starts_of(&delivery), 1);
    host.advance(HEARTBEAT_EVERY).await;
    host.end(&delivery, answered()).await;
    let details = host.details(&delivery).await;
    assert_eq!((details.summary.state, details.summary.attempts), (State::Completed, 2));
    host.assert_idle(&["acme"]);
}

/// The outcome is recorded, but the journal reports an error: nothing is repeated, and the chat continues.
#[tokio::test]
async fn continues_when_recorded_outcome_is_reported_as_failed() {
    let host = TestHost::of(Setup { modules: vec![ordered("Echo")], ..Setup::default() }).await;
    let [first, second] = ["evt_1", "evt_2"].map(|id| message("acme", id, "Echo", "chat_1"));
    let (first, second) = (host.accepted(&first).await, host.accepted(&second).await);
    host.journal.fail(Op::Complete, Point::After, None);
    host.end(&first, answered()).await;
    host.journal.recover();
    assert_eq!(host.state(&first).await, State::Completed);
    host.end(&second, answered()).await;
    host.advance(LEASE * 2).await;
    assert_eq!((host.modules.starts_of(&first), host.modules.starts_of(&second)), (1, 1));
    host.assert_idle(&["acme"]);
}

/// The result of a claim is lost: the journal has leased the delivery, and no attempt runs.
#[tokio::test]
async fn runs_delivery_of_lost_claim_when_its_lease_expires() {
    let host = TestHost::new().await;
    host.journal.lease_on_record(false);
    host.journal.fail(Op::Claim, Point::After, None);
    let delivery = host.accepted(&event("evt_1", "Echo")).await;
    host.settle().await;
    host.journal.recover();
    assert_eq!(host.state(&delivery).await, State::Running);
    host.advance(LEASE - Duration::from_millis(1)).await;
    assert!(host.modules.running().is_empty());
    host.advance(HEARTBEAT_EVERY).await;
    host.end(&delivery, answered()).await;
    assert_eq!(host.state(&delivery).await, State::Completed);
    host.assert_idle(&["acme"]);
}

#[tokio::test]
async fn reruns_delivery_when_call_log_cannot_be_read() {
    let host = TestHost::new().await;
    // The module is removed from the settings; the call log lists the steps to close.
    host.set_routes(&Setup::default().tenants, vec![module("Echo")]);
    let delivery = host.accepted(&question("evt_1", "Echo")).await;
    host.running(&delivery).await;
    host.end(&delivery, failed(Retry::Yes)).await;
    host.set_routes(&Setup::default().tenants, Vec::new());
    host.journal.fail(Op::Calls, Point::Before, None);
    host.advance(Duration::from_secs(5)).await;
    assert_eq!(host.state(&delivery).await, State::Running, "without the call log its steps would stay open");
    assert!(lock(&host.dispatcher.0.running).is_empty());
    host.journal.recover();
    host.advance(LEASE + HEARTBEAT_EVERY).await;
    assert_eq!(host.state(&delivery).await, State::Dead);
    assert_eq!(host.platform.written().last().unwrap(), &("sorry".to_owned(), true));
    host.assert_idle(&["acme"]);
}
