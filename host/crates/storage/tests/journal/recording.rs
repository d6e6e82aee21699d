//! Recording: an event is recorded once and durably.

use std::sync::Arc;

use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_storage::journal::{AttemptReport, Claim, Disposition, Filter, Journal, Recorded, State};

use crate::support::{
    Engine, TestJournal, at, call, claim, event, event_from, event_of, in_chat, on_every_engine, open, report, to,
};

on_every_engine! {
    returns_an_event_as_it_was_recorded,
    recognizes_a_redelivery_in_every_state_and_after_a_restart,
    records_one_of_many_concurrent_redeliveries,
    keeps_events_of_the_same_id_from_two_sources_apart,
    keeps_the_id_of_an_event_without_deliveries,
    records_one_delivery_for_each_module,
    rejects_an_invalid_event_alone,
    keeps_events_of_the_same_id_of_two_tenants_apart,
    keeps_odd_characters_of_an_event,
}

async fn returns_an_event_as_it_was_recorded(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    journal.at(7).record(event.clone(), vec![delivery.clone()]).await.unwrap();

    let journal = journal.reopened().await;
    let claimed = journal.take(5, 7).await.pop().unwrap();
    assert_eq!(*claimed.event, *event);
    assert_eq!(claimed.event.raw(), event.raw());
    assert_eq!(claimed.event.payload(), r#"{"word":"größer","of":"evt_1"}"#);
    assert_eq!(*claimed.id(), delivery.id);
    assert_eq!(claimed.module, Name::from("Echo"));
    assert_eq!(claimed.received_at, at(7));
    assert_eq!((claimed.attempt(), claimed.earlier_attempts, claimed.calls), (1, 0, 0));
}

#[tokio::test]
async fn keeps_acknowledged_events_when_dropped_without_close() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).await;
    for number in 0..50 {
        let event = event(&format!("evt_{number}"));
        let delivery = to(&event, "Echo");
        journal.record(event, vec![delivery]).await.unwrap();
    }
    drop(journal);

    let journal = open(directory.path()).await;
    assert_eq!(journal.totals().await.unwrap().deliveries[State::Waiting as usize], 50);
    let ids: Vec<String> =
        journal.claim(claim("acme", 100)).await.unwrap().iter().map(|claimed| claimed.event.id.clone()).collect();
    assert_eq!(ids, (0..50).map(|number| format!("evt_{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn finishes_queued_writes_when_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path()).await;
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    journal.record(event, vec![delivery.clone()]).await.unwrap();
    let claimed = journal.claim(claim("acme", 1)).await.unwrap().pop().unwrap();
    for number in 0..500 {
        let _ = journal.write(&claimed.lease, call(number, "answer")).unwrap();
    }
    drop(journal);

    let journal = open(directory.path()).await;
    assert_eq!(journal.calls(&delivery.id).await.unwrap().len(), 500);
}

async fn recognizes_a_redelivery_in_every_state_and_after_a_restart(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    let again = async |journal: &TestJournal| {
        let recorded = journal.at(9).record(event.clone(), vec![to(&event, "Echo")]).await.unwrap();
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

async fn records_one_of_many_concurrent_redeliveries(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    let attempts = (0..64).map(|_| journal.at(0).record(event.clone(), vec![to(&event, "Echo")]));
    let recorded: Vec<Recorded> = futures::future::try_join_all(attempts).await.unwrap();
    assert_eq!(recorded.iter().filter(|recorded| recorded.is_new()).count(), 1);
    assert_eq!(journal.take(100, 1).await.len(), 1);
}

async fn keeps_events_of_the_same_id_from_two_sources_apart(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for source in ["unique", "nexus"] {
        let event = event_from(source, "acme", "evt_1");
        let delivery = to(&event, "Echo");
        assert!(journal.at(0).record(event, vec![delivery]).await.unwrap().is_new());
    }
    assert_eq!(journal.take(5, 1).await.len(), 2);
}

async fn keeps_the_id_of_an_event_without_deliveries(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event("evt_1");
    assert!(journal.at(0).record(event.clone(), Vec::new()).await.unwrap().is_new());
    assert_eq!(journal.at(1).record(event.clone(), Vec::new()).await.unwrap(), Recorded::Duplicate);

    let journal = journal.reopened().await;
    // A redelivery adds no deliveries either, because the host has acknowledged the event.
    assert_eq!(journal.at(2).record(event.clone(), vec![to(&event, "Echo")]).await.unwrap(), Recorded::Duplicate);
    assert!(journal.lanes().await.unwrap().is_empty());
    assert!(journal.next_due().await.unwrap().is_none());
}

async fn records_one_delivery_for_each_module(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let event = event_of("acme", "evt_1");
    let deliveries = vec![to(&event, "Echo"), to(&event, "Log")];
    journal.at(0).record(event.clone(), deliveries).await.unwrap();

    let echo = journal.take(5, 1).await;
    let log = journal.claim(Claim { module: "Log".into(), ..claim("acme", 5) }).await.unwrap();
    assert_eq!(echo.iter().map(|claimed| claimed.id()).collect::<Vec<_>>(), [&DeliveryId::new(&event, &"Echo".into())]);
    assert_eq!(log.iter().map(|claimed| claimed.id()).collect::<Vec<_>>(), [&DeliveryId::new(&event, &"Log".into())]);
    assert_eq!(*echo[0].event, *log[0].event);
}

async fn rejects_an_invalid_event_alone(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let broken = event("evt_broken");
    // The event has the same delivery twice.
    let twice = vec![to(&broken, "Echo"), to(&broken, "Echo")];
    let good = (0..20).map(|number| {
        let event = event(&format!("evt_{number}"));
        let delivery = to(&event, "Echo");
        journal.at(0).record(event, vec![delivery])
    });
    let (refused, good) = tokio::join!(journal.at(0).record(broken.clone(), twice), futures::future::join_all(good));

    assert!(refused.is_err());
    assert!(good.iter().all(|recorded| matches!(recorded, Ok(Recorded::New { .. }))));
    assert_eq!(journal.totals().await.unwrap().deliveries, [20, 0, 0, 0, 0]);
    // Nothing of the invalid event was recorded.
    assert!(journal.at(1).record(broken.clone(), vec![to(&broken, "Echo")]).await.unwrap().is_new());
}

async fn keeps_events_of_the_same_id_of_two_tenants_apart(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for tenant in ["shop-a", "shop-b"] {
        let event = event_of(tenant, "1001");
        let delivery = to(&event, "Echo");
        assert!(journal.at(0).record(event.clone(), vec![delivery.clone()]).await.unwrap().is_new(), "{tenant}");
        assert_eq!(journal.at(1).record(event, vec![delivery]).await.unwrap(), Recorded::Duplicate, "{tenant}");
    }
    let journal = journal.reopened().await;
    for tenant in ["shop-a", "shop-b"] {
        let event = event_of(tenant, "1001");
        let again = journal.at(2).record(event.clone(), vec![to(&event, "Echo")]).await.unwrap();
        assert_eq!(again, Recorded::Duplicate, "{tenant}");
        let claimed = journal.claim(claim(tenant, 5)).await.unwrap();
        assert_eq!(claimed.len(), 1, "{tenant}");
        assert_eq!(claimed[0].event.tenant, tenant.into());
    }
}

/// A signed event may contain any character, also in its id.
async fn keeps_odd_characters_of_an_event(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for (number, text) in
        ["\0", "a\0b\0", "\u{1a}0", "\u{1a}", "\u{1a}\0\u{1a}1", "\u{feff}\u{10ffff}'\"\\"].into_iter().enumerate()
    {
        let plain = event("evt");
        let header = Header {
            id: format!("{number}{text}"),
            source: "unique".into(),
            name: text.to_owned(),
            tenant: "acme".into(),
            user_id: Some(text.to_owned()),
            company_id: Some(format!("{text}{text}")),
            created_at: None,
        };
        let odd = Arc::new(Event::new(header, plain.raw().clone(), plain.payload_range()));
        let delivery = in_chat(&odd, "Echo", text);
        assert!(journal.at(0).record(odd.clone(), vec![delivery.clone()]).await.unwrap().is_new(), "{text:?}");
        let again = journal.record(odd.clone(), vec![delivery]).await.unwrap();
        assert_eq!(again, Recorded::Duplicate, "{text:?}");
        let claimed = journal.take(1, 1).await.pop().unwrap();
        assert_eq!(*claimed.event, *odd, "{text:?}");
        let of_event = Filter { event: Some(odd.id.clone()), ..Filter::default() };
        let listed = journal.list(of_event).await.unwrap();
        assert_eq!((listed.len(), &listed[0].event_id, &listed[0].event_name), (1, &odd.id, &odd.name));
        let failed = AttemptReport { outcome: text.to_owned(), ..report() };
        journal.complete_attempt(&claimed.lease, failed, Disposition::Dead { reason: text.into() }).await.unwrap();
    }
}
