//! Giving deliveries out: in order, when they are due, to one host at a time.

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Claim, Disposition, Journal, JournalError, Lane, State};

use crate::support::{Kept, at, attempt, claim, dead, event_of, retry, to};

#[tokio::test]
async fn the_longest_waiting_goes_first() {
    let journal = Kept::new().await;
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

#[tokio::test]
async fn a_claim_takes_of_its_own_lane_only() {
    let journal = Kept::new().await;
    for tenant in ["acme", "other"] {
        for number in 0..3 {
            let event = event_of(tenant, &format!("evt_{tenant}_{number}"));
            let deliveries = vec![to(&event, "Echo"), to(&event, "Log")];
            journal.record(event, deliveries, at(number)).await.unwrap();
        }
    }
    let taken = journal.take(100, 10).await;
    assert_eq!(taken.len(), 3);
    assert!(taken.iter().all(|claimed| claimed.event.tenant.as_str() == "acme" && claimed.module.as_str() == "Echo"));

    let lane = |tenant: &str, module: &str, waiting| Lane { tenant: tenant.into(), module: module.into(), waiting };
    let mut lanes = journal.lanes().await.unwrap();
    lanes.sort_by_key(|lane| (lane.tenant.clone(), lane.module.clone()));
    assert_eq!(lanes, [lane("acme", "Log", 3), lane("other", "Echo", 3), lane("other", "Log", 3)]);
    let nobody = Claim { tenant: "nobody".into(), ..claim("acme", 5, 10) };
    assert!(journal.claim(nobody).await.unwrap().is_empty());
}

#[tokio::test]
async fn lanes_are_counted_right_through_everything() {
    let journal = Kept::new().await;
    let waiting = async |journal: &Kept| {
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
    journal.end(&taken[0], retry(500), 20).await;
    assert_eq!(waiting(&journal).await, 3, "one that isn't due yet waits too");
    journal.end(&taken[1], dead(), 20).await;
    assert_eq!(waiting(&journal).await, 3);
    assert!(journal.resend(&taken[1].id, false, at(30)).await.unwrap());
    assert_eq!(waiting(&journal).await, 4);
    assert!(journal.drop_waiting(&taken[1].id, "not needed", at(40)).await.unwrap());
    let journal = journal.reopened().await;
    assert_eq!(waiting(&journal).await, 3);
    assert_eq!(journal.totals().await.unwrap().deliveries, [3, 0, 0, 0, 1]);
}

#[tokio::test]
async fn a_retry_runs_when_it_is_due_and_not_before() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    journal.end(&claimed, retry(5_000), 2).await;

    assert_eq!(journal.next_due().await.unwrap(), Some(at(5_000)));
    assert!(journal.take(1, 4_999).await.is_empty());
    let journal = journal.reopened().await;
    assert!(journal.take(1, 4_999).await.is_empty());
    let again = journal.take(1, 5_000).await.pop().unwrap();
    assert_eq!((again.id, again.attempt), (id, 2));
    assert_eq!(journal.next_due().await.unwrap(), None);
}

#[tokio::test]
async fn a_retry_and_what_waits_for_its_turn_go_in_the_order_in_which_they_became_due() {
    let journal = Kept::new().await;
    let early = journal.one("evt_early", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    journal.end(&claimed, retry(50), 2).await;
    let before = journal.one("evt_before", 40).await;
    let after = journal.one("evt_after", 60).await;
    assert_eq!(journal.take_ids(2, 100).await, [before, early]);
    assert_eq!(journal.take_ids(2, 100).await, [after]);
}

#[tokio::test]
async fn what_is_due_already_is_due_whatever_the_clock_says() {
    let journal = Kept::new().await;
    assert_eq!(journal.next_due().await.unwrap(), None);
    let id = journal.one("evt_1", 1_000_000).await;
    // The clock goes back by a quarter of an hour.
    assert!(journal.next_due().await.unwrap().is_some_and(|due| due <= at(0)));
    assert_eq!(journal.take_ids(1, 100).await, [id]);
}

#[tokio::test]
async fn a_lease_that_runs_out_gives_the_delivery_back_at_its_old_place() {
    let journal = Kept::new().await;
    let first = journal.one("evt_1", 0).await;
    let second = journal.one("evt_2", 1).await;
    assert_eq!(journal.take_ids(1, 10).await, std::slice::from_ref(&first)); // leased until 10,010
    assert_eq!(journal.reclaim(None, at(10_009)).await.unwrap(), 0);
    assert_eq!(journal.reclaim(None, at(10_010)).await.unwrap(), 1);
    assert_eq!(journal.reclaim(None, at(10_010)).await.unwrap(), 0);
    assert_eq!(journal.take_ids(5, 10_011).await, [first, second]);
}

#[tokio::test]
async fn an_unclaimed_delivery_keeps_its_place_and_its_attempts() {
    let journal = Kept::new().await;
    let first = journal.one("evt_1", 0).await;
    let second = journal.one("evt_2", 1).await;
    let claimed = journal.take(1, 10).await.pop().unwrap();
    assert!(!journal.unclaim(&claimed, "host-2", at(11)).await.unwrap(), "it is another host's");
    assert!(journal.unclaim(&claimed, "host-1", at(11)).await.unwrap());
    assert!(!journal.unclaim(&claimed, "host-1", at(11)).await.unwrap(), "it isn't claimed any more");
    let again = journal.take(5, 12).await;
    assert_eq!(again.iter().map(|it| (&it.id, it.attempt)).collect::<Vec<_>>(), [(&first, 1), (&second, 1)]);

    // Attempts that were made stay counted, and nothing is left of the one that wasn't.
    journal.end(&again[0], retry(5_000), 13).await;
    let claimed = journal.take(1, 5_000).await.pop().unwrap();
    assert!(journal.unclaim(&claimed, "host-1", at(5_001)).await.unwrap());
    let journal = journal.reopened().await;
    let details = journal.show(&first).await.unwrap().unwrap();
    assert_eq!(details.attempts.len(), 1);
    let again = journal.take(1, 5_002).await.pop().unwrap();
    assert_eq!((&again.id, again.attempt), (&first, 2));
}

#[tokio::test]
async fn a_heartbeat_prolongs_leases_and_tells_which_are_lost() {
    let journal = Kept::new().await;
    let kept = journal.one("evt_kept", 0).await;
    let lost = journal.one("evt_lost", 1).await;
    journal.take(2, 10).await;
    let unknown = DeliveryId::from_text("dlv_unknown");

    let asked = vec![kept.clone()];
    assert!(journal.heartbeat("host-1", asked, at(60_000)).await.unwrap().is_empty());
    assert_eq!(journal.reclaim(None, at(30_000)).await.unwrap(), 1);
    assert_eq!(journal.state(&kept).await, State::Running);

    let asked = vec![kept.clone(), lost.clone(), unknown.clone()];
    assert_eq!(journal.heartbeat("host-1", asked, at(90_000)).await.unwrap(), [lost, unknown]);
    assert_eq!(journal.heartbeat("host-2", vec![kept.clone()], at(90_000)).await.unwrap(), [kept]);
}

#[tokio::test]
async fn what_a_host_that_is_gone_had_is_given_back_at_once() {
    let journal = Kept::new().await;
    let gone = journal.one("evt_gone", 0).await;
    let alive = journal.one("evt_alive", 1).await;
    assert_eq!(journal.take_ids(1, 10).await, std::slice::from_ref(&gone));
    journal.claim(Claim { owner: "host-2".to_owned(), ..claim("acme", 1, 10) }).await.unwrap();

    let journal = journal.reopened().await;
    assert_eq!(journal.reclaim(Some("host-1"), at(20)).await.unwrap(), 1);
    assert_eq!(journal.state(&alive).await, State::Running);
    let again = journal.take(5, 20).await.pop().unwrap();
    assert_eq!((again.id.clone(), again.attempt), (gone.clone(), 2), "an attempt that was cut off counts");
    let details = journal.show(&gone).await.unwrap().unwrap();
    let states: Vec<State> = details.changes.iter().map(|change| change.state).collect();
    assert_eq!(states, [State::Waiting, State::Running, State::Waiting, State::Running]);
    assert!(details.changes[2].reason.as_ref().is_some_and(|reason| reason.contains("host")));
}

#[tokio::test]
async fn only_who_has_a_delivery_can_settle_it() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let first = journal.take(1, 10).await.pop().unwrap();
    let lost = |ended: Result<(), JournalError>| matches!(ended, Err(JournalError::LeaseLost(lost)) if lost == id);

    let another = modhost_storage::journal::Attempt { owner: "host-2".to_owned(), ..attempt(&first, 20) };
    assert!(lost(journal.complete_attempt(id.clone(), another, Disposition::Completed).await));
    assert_eq!(journal.state(&id).await, State::Running);

    journal.reclaim(Some("host-1"), at(20)).await.unwrap();
    assert!(
        lost(journal.complete_attempt(id.clone(), attempt(&first, 20), Disposition::Completed).await),
        "it waits again"
    );
    let second = journal.take(1, 30).await.pop().unwrap();
    // The same host has it, but this attempt hasn't.
    assert!(lost(journal.complete_attempt(id.clone(), attempt(&first, 40), Disposition::Completed).await));
    journal.end(&second, Disposition::Completed, 50).await;
    assert!(lost(journal.complete_attempt(id.clone(), attempt(&second, 60), dead()).await), "it has ended");
    assert_eq!(journal.state(&id).await, State::Completed);
    let attempts = journal.show(&id).await.unwrap().unwrap().attempts;
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [2]);
}
