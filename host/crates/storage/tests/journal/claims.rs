//! Claims: deliveries are leased in order, when they are due, and to one host at a time.

use std::time::Duration;

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Claim, Disposition, JournalError, Lane, Lease, State};

use crate::support::{Engine, TestJournal, claim, dead, event_of, lease, on_every_engine, report, to};

on_every_engine! {
    claims_the_longest_waiting_delivery_first,
    claims_deliveries_of_one_lane_only,
    counts_the_waiting_deliveries_of_a_lane_exactly,
    runs_a_retry_when_it_is_due_and_not_before,
    claims_retries_and_new_deliveries_in_the_order_they_became_due,
    keeps_a_due_delivery_due_when_the_clock_goes_back,
    returns_a_delivery_to_its_position_when_its_lease_expires,
    keeps_position_and_attempts_of_an_unclaimed_delivery,
    extends_leases_by_heartbeat_and_reports_lost_and_unknown_ones,
    returns_the_deliveries_of_a_dead_host_at_once,
    completes_an_attempt_only_under_its_lease,
}

async fn claims_the_longest_waiting_delivery_first(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(journal.one(&format!("evt_{number}"), number).await);
    }
    assert_eq!(journal.take_ids(3, 100).await, ids[..3]);
    assert_eq!(journal.take_ids(3, 100).await, ids[3..6]);
    let journal = journal.reopened().await;
    assert_eq!(journal.take_ids(100, 100).await, ids[6..]);
    assert!(journal.take(100, 100).await.is_empty());
    assert_eq!(journal.take_ids(0, 100).await, []);
}

async fn claims_deliveries_of_one_lane_only(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for tenant in ["acme", "other"] {
        for number in 0..3 {
            let event = event_of(tenant, &format!("evt_{tenant}_{number}"));
            let deliveries = vec![to(&event, "Echo"), to(&event, "Log")];
            journal.at(number).record(event, deliveries).await.unwrap();
        }
    }
    let taken = journal.take(100, 10).await;
    assert_eq!(taken.len(), 3);
    assert!(taken.iter().all(|claimed| claimed.event.tenant.as_str() == "acme" && claimed.module.as_str() == "Echo"));

    let lane = |tenant: &str, module: &str, waiting| Lane { tenant: tenant.into(), module: module.into(), waiting };
    let mut lanes = journal.lanes().await.unwrap();
    lanes.sort_by_key(|lane| (lane.tenant.clone(), lane.module.clone()));
    assert_eq!(lanes, [lane("acme", "Log", 3), lane("other", "Echo", 3), lane("other", "Log", 3)]);
    let nobody = claim("nobody", 5);
    assert!(journal.claim(nobody).await.unwrap().is_empty());
}

async fn counts_the_waiting_deliveries_of_a_lane_exactly(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let waiting = async |journal: &TestJournal| {
        let lanes = journal.lanes().await.unwrap();
        assert!(lanes.iter().all(|lane| lane.waiting > 0));
        lanes.iter().map(|lane| lane.waiting).sum::<u64>()
    };
    for number in 0..4 {
        journal.one(&format!("evt_{number}"), number).await;
    }
    assert_eq!(waiting(&journal).await, 4);
    let taken = journal.take(2, 10).await;
    assert_eq!(waiting(&journal).await, 2);
    journal.retry_at(&taken[0], 500, 20).await;
    assert_eq!(waiting(&journal).await, 3, "a retry that is not due is not counted as waiting");
    journal.end(&taken[1], dead(), 20).await;
    assert_eq!(waiting(&journal).await, 3);
    assert!(journal.at(30).resend(taken[1].id(), false).await.unwrap());
    assert_eq!(waiting(&journal).await, 4);
    assert!(journal.at(40).drop_waiting(taken[1].id(), "not needed").await.unwrap());
    let journal = journal.reopened().await;
    assert_eq!(waiting(&journal).await, 3);
    assert_eq!(journal.totals().await.unwrap().deliveries, [3, 0, 0, 0, 1]);
}

async fn runs_a_retry_when_it_is_due_and_not_before(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let id = journal.one("evt_1", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    journal.retry_at(&claimed, 5_000, 2).await;

    assert_eq!(journal.next_due().await.unwrap(), Some(Duration::from_millis(4_998)));
    assert!(journal.take(1, 4_999).await.is_empty());
    let journal = journal.reopened().await;
    assert!(journal.take(1, 4_999).await.is_empty());
    let again = journal.take(1, 5_000).await.pop().unwrap();
    assert_eq!((again.id(), again.attempt()), (&id, 2));
    assert_eq!(journal.next_due().await.unwrap(), None);
}

async fn claims_retries_and_new_deliveries_in_the_order_they_became_due(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let early = journal.one("evt_early", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    journal.retry_at(&claimed, 50, 2).await;
    let before = journal.one("evt_before", 40).await;
    let after = journal.one("evt_after", 60).await;
    assert_eq!(journal.take_ids(2, 100).await, [before, early]);
    assert_eq!(journal.take_ids(2, 100).await, [after]);
}

async fn keeps_a_due_delivery_due_when_the_clock_goes_back(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    assert_eq!(journal.next_due().await.unwrap(), None);
    let id = journal.one("evt_1", 1_000_000).await;
    // The clock is set back by a quarter of an hour.
    assert_eq!(journal.at(100).next_due().await.unwrap(), Some(Duration::ZERO));
    assert_eq!(journal.take_ids(1, 100).await, [id]);
}

async fn returns_a_delivery_to_its_position_when_its_lease_expires(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.one("evt_1", 0).await;
    let second = journal.one("evt_2", 1).await;
    assert_eq!(journal.take_ids(1, 10).await, std::slice::from_ref(&first)); // leased until 10,010
    assert_eq!(journal.at(10_009).reclaim(None).await.unwrap(), 0);
    assert_eq!(journal.at(10_010).reclaim(None).await.unwrap(), 1);
    assert_eq!(journal.at(10_010).reclaim(None).await.unwrap(), 0);
    assert_eq!(journal.take_ids(5, 10_011).await, [first, second]);
}

async fn keeps_position_and_attempts_of_an_unclaimed_delivery(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.one("evt_1", 0).await;
    let second = journal.one("evt_2", 1).await;
    let claimed = journal.take(1, 10).await.pop().unwrap();
    let of_another = Lease { owner: "host-2".into(), ..claimed.lease.clone() };
    assert!(!journal.at(11).unclaim(&of_another).await.unwrap());
    assert!(journal.unclaim(&claimed.lease).await.unwrap());
    assert!(!journal.unclaim(&claimed.lease).await.unwrap(), "unclaimed a lease that is not held any more");
    let again = journal.take(5, 12).await;
    assert_eq!(again.iter().map(|it| (it.id(), it.attempt())).collect::<Vec<_>>(), [(&first, 1), (&second, 1)]);

    // Only attempts that began are counted.
    journal.retry_at(&again[0], 5_000, 13).await;
    let claimed = journal.take(1, 5_000).await.pop().unwrap();
    assert!(journal.at(5_001).unclaim(&claimed.lease).await.unwrap());
    let journal = journal.reopened().await;
    let details = journal.show(&first).await.unwrap().unwrap();
    assert_eq!(details.attempts.len(), 1);
    let again = journal.take(1, 5_002).await.pop().unwrap();
    assert_eq!((again.id(), again.attempt()), (&first, 2));
}

async fn extends_leases_by_heartbeat_and_reports_lost_and_unknown_ones(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let minute = Duration::from_secs(60);
    let kept = journal.claimed("evt_kept", 0).await.lease;
    let lost = journal.claimed("evt_lost", 1).await.lease;

    let heartbeat = journal.heartbeat("host-1", vec![kept.clone()], minute).await.unwrap();
    assert_eq!((heartbeat.lost, heartbeat.unknown), (vec![], vec![lost.clone()]));
    assert_eq!(journal.at(30_000).reclaim(None).await.unwrap(), 1, "the heartbeat extended an unknown lease");
    assert_eq!(journal.state(&kept.delivery).await, State::Running);

    let of_nothing = lease(&DeliveryId::from_text("dlv_unknown"));
    let stale = Lease { attempt: 2, ..kept.clone() };
    let running = vec![kept.clone(), lost.clone(), of_nothing.clone(), stale.clone()];
    let heartbeat = journal.heartbeat("host-1", running, minute).await.unwrap();
    assert_eq!((heartbeat.lost, heartbeat.unknown), (vec![lost, of_nothing, stale], vec![]));
    let heartbeat = journal.heartbeat("host-2", vec![kept.clone()], minute).await.unwrap();
    assert_eq!((heartbeat.lost, heartbeat.unknown), (vec![kept], vec![]));
    assert_eq!(journal.at(89_999).reclaim(None).await.unwrap(), 0);
    assert_eq!(journal.at(90_000).reclaim(None).await.unwrap(), 1);
}

async fn returns_the_deliveries_of_a_dead_host_at_once(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let gone = journal.one("evt_gone", 0).await;
    let alive = journal.one("evt_alive", 1).await;
    assert_eq!(journal.take_ids(1, 10).await, std::slice::from_ref(&gone));
    journal.claim(Claim { owner: "host-2".into(), ..claim("acme", 1) }).await.unwrap();

    let journal = journal.reopened().await;
    assert_eq!(journal.at(20).reclaim(Some("host-1")).await.unwrap(), 1);
    assert_eq!(journal.state(&alive).await, State::Running);
    let again = journal.take(5, 20).await.pop().unwrap();
    assert_eq!((again.id(), again.attempt()), (&gone, 2), "an interrupted attempt must count");
    let details = journal.show(&gone).await.unwrap().unwrap();
    let states: Vec<State> = details.changes.iter().map(|change| change.state).collect();
    assert_eq!(states, [State::Waiting, State::Running, State::Waiting, State::Running]);
    assert!(details.changes[2].reason.as_ref().is_some_and(|reason| reason.contains("host")));
}

async fn completes_an_attempt_only_under_its_lease(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.claimed("evt_1", 10).await;
    let id = first.id().clone();
    let complete = async |lease: &Lease, next| match journal.complete_attempt(lease, report(), next).await {
        Ok(_) => true,
        Err(JournalError::LeaseLost(lost)) if lost == id => false,
        Err(other) => panic!("{other:?}"),
    };

    let of_another = Lease { owner: "host-2".into(), ..first.lease.clone() };
    assert!(!complete(&of_another, Disposition::Completed).await);
    assert_eq!(journal.state(&id).await, State::Running);

    journal.at(20).reclaim(Some("host-1")).await.unwrap();
    assert!(!complete(&first.lease, Disposition::Completed).await, "the delivery is queued again");
    let second = journal.take(1, 30).await.pop().unwrap();
    // The same host holds the lease, but for another attempt.
    assert!(!complete(&first.lease, Disposition::Completed).await);
    assert!(complete(&second.lease, Disposition::Completed).await);
    assert!(!complete(&second.lease, dead()).await, "the delivery has ended");
    assert_eq!(journal.state(&id).await, State::Completed);
    let attempts = journal.show(&id).await.unwrap().unwrap().attempts;
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [2]);
}
