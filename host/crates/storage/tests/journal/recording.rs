//! The way in: what is recorded stays, and is recorded once.

use modhost_core::event::{DeliveryId, Name};
use modhost_storage::journal::{Disposition, Journal, Recorded, State};

use crate::support::{Kept, at, claim, event, event_from, event_of, open, to};

#[tokio::test]
async fn an_event_comes_back_as_it_was_recorded() {
    let journal = Kept::new().await;
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    journal.record(event.clone(), vec![delivery.clone()], at(7)).await.unwrap();

    let journal = journal.reopened().await;
    let claimed = journal.take(5, 7).await.pop().unwrap();
    assert_eq!(*claimed.event, *event);
    assert_eq!(claimed.event.raw(), event.raw());
    assert_eq!(claimed.event.payload(), r#"{"word":"größer","of":"evt_1"}"#);
    assert_eq!(claimed.id, delivery.id);
    assert_eq!(claimed.module, Name::from("Echo"));
    assert_eq!(claimed.received_at, at(7));
    assert_eq!((claimed.attempt, claimed.earlier, claimed.calls), (1, 0, 0));
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_journal_that_is_dropped_in_the_middle() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).await;
    for number in 0..50 {
        let event = event(&format!("evt_{number}"));
        let delivery = to(&event, "Echo");
        journal.record(event, vec![delivery], at(number)).await.unwrap();
    }
    drop(journal); // without closing it

    let journal = open(directory.path()).await;
    assert_eq!(journal.totals().await.unwrap().deliveries[State::Waiting as usize], 50);
    let ids: Vec<String> =
        journal.claim(claim("acme", 100, 1000)).await.unwrap().iter().map(|claimed| claimed.event.id.clone()).collect();
    assert_eq!(ids, (0..50).map(|number| format!("evt_{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_nobody_waited_for_is_done_before_the_journal_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).await;
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    journal.record(event, vec![delivery.clone()], at(0)).await.unwrap();
    for number in 0..500 {
        let _ = journal.write(&delivery.id, crate::support::call(number, "answer")).unwrap();
    }
    drop(journal);

    let journal = open(directory.path()).await;
    assert_eq!(journal.calls(&delivery.id).await.unwrap().len(), 500);
}

#[tokio::test]
async fn a_redelivery_is_known_while_the_first_waits_runs_has_ended_and_after_a_restart() {
    let journal = Kept::new().await;
    let event = event("evt_1");
    let again = async |journal: &Kept| {
        let recorded = journal.record(event.clone(), vec![to(&event, "Echo")], at(9)).await.unwrap();
        assert_eq!(recorded, Recorded::Duplicate);
    };
    journal.one("evt_1", 0).await;
    again(&journal).await;

    let claimed = journal.take(1, 1).await.pop().unwrap();
    again(&journal).await;

    journal.end(&claimed, Disposition::Completed, 2).await;
    again(&journal).await;

    let journal = journal.reopened().await;
    again(&journal).await;
    assert_eq!(journal.totals().await.unwrap().deliveries.iter().sum::<u64>(), 1);
    assert!(journal.take(5, 100).await.is_empty());
}

#[tokio::test]
async fn one_of_many_redeliveries_at_the_same_moment_is_new() {
    let journal = Kept::new().await;
    let event = event("evt_1");
    let tries = (0..64).map(|_| journal.record(event.clone(), vec![to(&event, "Echo")], at(0)));
    let recorded: Vec<Recorded> = futures::future::try_join_all(tries).await.unwrap();
    assert_eq!(recorded.iter().filter(|recorded| **recorded == Recorded::New).count(), 1);
    assert_eq!(journal.take(100, 1).await.len(), 1);
}

#[tokio::test]
async fn the_same_id_from_another_source_is_another_event() {
    let journal = Kept::new().await;
    for source in ["unique", "nexus"] {
        let event = event_from(source, "acme", "evt_1");
        let delivery = to(&event, "Echo");
        assert_eq!(journal.record(event, vec![delivery], at(0)).await.unwrap(), Recorded::New);
    }
    assert_eq!(journal.take(5, 1).await.len(), 2);
}

#[tokio::test]
async fn an_event_for_no_module_is_known_by_its_id() {
    let journal = Kept::new().await;
    let event = event("evt_1");
    assert_eq!(journal.record(event.clone(), Vec::new(), at(0)).await.unwrap(), Recorded::New);
    assert_eq!(journal.record(event.clone(), Vec::new(), at(1)).await.unwrap(), Recorded::Duplicate);

    let journal = journal.reopened().await;
    // Nor does it get deliveries later: whoever sent it was told that it is done.
    assert_eq!(journal.record(event.clone(), vec![to(&event, "Echo")], at(2)).await.unwrap(), Recorded::Duplicate);
    assert!(journal.lanes().await.unwrap().is_empty());
    assert!(journal.next_due().await.unwrap().is_none());
}

#[tokio::test]
async fn an_event_makes_one_delivery_for_each_module() {
    let journal = Kept::new().await;
    let event = event_of("acme", "evt_1");
    let deliveries = vec![to(&event, "Echo"), to(&event, "Log")];
    journal.record(event.clone(), deliveries, at(0)).await.unwrap();

    let echo = journal.take(5, 1).await;
    let log =
        journal.claim(modhost_storage::journal::Claim { module: "Log".into(), ..claim("acme", 5, 1) }).await.unwrap();
    assert_eq!(echo.iter().map(|claimed| &claimed.id).collect::<Vec<_>>(), [&DeliveryId::new(&event, &"Echo".into())]);
    assert_eq!(log.iter().map(|claimed| &claimed.id).collect::<Vec<_>>(), [&DeliveryId::new(&event, &"Log".into())]);
    assert_eq!(*echo[0].event, *log[0].event);
}

#[tokio::test]
async fn one_that_cannot_be_recorded_takes_no_other_with_it() {
    let journal = Kept::new().await;
    let broken = event("evt_broken");
    // The same delivery twice: nothing a host does, and nothing the journal lets in.
    let twice = vec![to(&broken, "Echo"), to(&broken, "Echo")];
    let good = (0..20).map(|number| {
        let event = event(&format!("evt_{number}"));
        let delivery = to(&event, "Echo");
        journal.record(event, vec![delivery], at(0))
    });
    let (refused, good) = tokio::join!(journal.record(broken.clone(), twice, at(0)), futures::future::join_all(good));

    assert!(refused.is_err());
    assert!(good.iter().all(|recorded| matches!(recorded, Ok(Recorded::New))));
    assert_eq!(journal.totals().await.unwrap().deliveries, [20, 0, 0, 0, 0]);
    // Nothing is left of it: it can be recorded as it should be.
    assert_eq!(journal.record(broken.clone(), vec![to(&broken, "Echo")], at(1)).await.unwrap(), Recorded::New);
}

#[tokio::test]
async fn the_same_id_of_another_tenant_behind_the_same_source_is_another_event() {
    let journal = Kept::new().await;
    for tenant in ["shop-a", "shop-b"] {
        let event = event_of(tenant, "1001");
        let delivery = to(&event, "Echo");
        assert_eq!(
            journal.record(event.clone(), vec![delivery.clone()], at(0)).await.unwrap(),
            Recorded::New,
            "{tenant}"
        );
        assert_eq!(journal.record(event, vec![delivery], at(1)).await.unwrap(), Recorded::Duplicate, "{tenant}");
    }
    let journal = journal.reopened().await;
    for tenant in ["shop-a", "shop-b"] {
        let event = event_of(tenant, "1001");
        let again = journal.record(event.clone(), vec![to(&event, "Echo")], at(2)).await.unwrap();
        assert_eq!(again, Recorded::Duplicate, "{tenant}");
        let claimed = journal.claim(claim(tenant, 5, 3)).await.unwrap();
        assert_eq!(claimed.len(), 1, "{tenant}");
        assert_eq!(claimed[0].event.tenant, tenant.into());
    }
}
