//! Accepting events: reserved capacity is always released, and a recorded event always runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use modhost_storage::journal::State;
use tokio::task::JoinHandle;

use super::journal::{Held, Op, Pass, Point};
use super::*;

/// Spawns a client that sends an event and counts the results.
fn client(host: &TestHost, event: Event, counted: &Arc<AtomicUsize>) -> JoinHandle<Result<Accepted, Refused>> {
    let (dispatcher, counted) = (host.dispatcher.clone(), counted.clone());
    tokio::spawn(async move {
        let count = move |_: &_| {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        dispatcher.accept_then(event, count).await
    })
}

/// Disconnects a client while its event is being recorded, with the journal held at a point.
async fn disconnects_at(host: &TestHost, event: &Event, point: Point, counted: &Arc<AtomicUsize>) -> Held {
    let mut held = host.journal.hold(Op::Record, point);
    let client = client(host, event.clone(), counted);
    host.until("the event to be recorded", || held.is_reached()).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    host.settle().await;
    held
}

#[tokio::test]
async fn runs_and_counts_event_whose_client_disconnects() {
    for point in [Point::Before, Point::After] {
        let (host, counted) = (TestHost::new().await, Arc::default());
        let sent = event("evt_1", "Echo");
        let held = disconnects_at(&host, &sent, point, &counted).await;
        assert_eq!(counted.load(Ordering::SeqCst), 0);
        held.release();
        let delivery = DeliveryId::new(&sent, &"Echo".into());
        host.end(&delivery, answered()).await;
        assert_eq!(host.state(&delivery).await, State::Completed);
        assert_eq!(counted.load(Ordering::SeqCst), 1, "{point:?}");
        assert_eq!(host.accept(&sent).await.unwrap(), Accepted::Duplicate);
        host.assert_idle(&["acme"]);
    }
}

#[tokio::test]
async fn releases_capacity_when_record_fails() {
    for point in [Point::Before, Point::After] {
        for disconnects in [false, true] {
            let (host, counted) = (TestHost::new().await, Arc::default());
            host.journal.lease_on_record(false);
            let sent = event("evt_1", "Echo");
            if disconnects {
                disconnects_at(&host, &sent, point, &counted).await.fail();
            } else {
                let mut held = host.journal.hold(Op::Record, point);
                let client = client(&host, sent.clone(), &counted);
                host.until("the event to be recorded", || held.is_reached()).await;
                held.fail();
                assert!(matches!(client.await.unwrap(), Err(Refused::Journal(_))));
            }
            host.settle().await;
            assert_eq!(counted.load(Ordering::SeqCst), 1, "{point:?}, disconnects: {disconnects}");
            host.assert_nothing_reserved();

            // The sender repeats the event, and it runs once, whether or not it was on disk.
            let known = point == Point::After;
            assert_eq!(host.accept(&sent).await.unwrap() == Accepted::Duplicate, known);
            let delivery = DeliveryId::new(&sent, &"Echo".into());
            host.end(&delivery, answered()).await;
            assert_eq!(host.state(&delivery).await, State::Completed);
            assert_eq!(host.modules.starts_of(&delivery), 1);
            host.assert_idle(&["acme"]);
        }
    }
}

#[tokio::test]
async fn releases_capacity_when_accepting_panics() {
    let host = TestHost::new().await;
    host.journal.decide_by(Some(Box::new(|op, _, _| if op == Op::Record { Pass::Panic } else { Pass::Go })));
    let sent = event("evt_1", "Echo");
    assert!(matches!(host.accept(&sent).await, Err(Refused::Panicked)));
    host.assert_nothing_reserved();
    host.journal.decide_by(None);
    let delivery = host.accepted(&sent).await;
    host.end(&delivery, answered()).await;
    host.assert_idle(&["acme"]);
}

/// An event counts against the limit while it is being recorded, and no longer once recording has failed.
#[tokio::test]
async fn counts_events_that_are_being_recorded() {
    let host = TestHost::of(Setup { max_deliveries: 1, ..Setup::default() }).await;
    let mut held = host.journal.hold(Op::Record, Point::Before);
    let first = client(&host, event("evt_1", "Echo"), &Arc::default());
    host.until("the event to be recorded", || held.is_reached()).await;
    let second = event("evt_2", "Echo");
    assert!(matches!(host.accept(&second).await, Err(Refused::Full { limit: 1, .. })));
    held.fail();
    assert!(matches!(first.await.unwrap(), Err(Refused::Journal(_))));
    let delivery = host.accepted(&second).await;
    let third = event("evt_3", "Echo");
    assert!(matches!(host.accept(&third).await, Err(Refused::Full { .. })), "the second event is running");
    host.end(&delivery, answered()).await;
    let delivery = host.accepted(&third).await;
    host.end(&delivery, answered()).await;
    host.assert_idle(&["acme"]);
}

/// An event always counts at least once: as reserved, in the backlog, or briefly in both.
#[tokio::test]
async fn never_accepts_more_than_the_limit() {
    for point in [Point::Before, Point::After] {
        let tenants = vec![
            TenantSetup { name: "acme", concurrency: 16, max_deliveries: 2 },
            TenantSetup { name: "other", concurrency: 16, max_deliveries: 2 },
        ];
        let host = TestHost::of(Setup { max_deliveries: 3, tenants, ..Setup::default() }).await;
        host.modules.pause("Echo");
        let clients: Vec<_> = (0..12)
            .map(|number| {
                let tenant = ["acme", "other"][number % 2];
                let held = host.journal.hold(Op::Record, point);
                let sent = message(tenant, &format!("evt_{number}"), "Echo", "chat");
                (client(&host, sent, &Arc::default()), held)
            })
            .collect();
        host.settle().await;
        let mut taken = 0;
        for (client, held) in clients {
            held.release();
            taken += usize::from(client.await.unwrap().is_ok());
        }
        // While a commit is held after it took effect, its event counts twice, so fewer events may be accepted.
        match point {
            Point::Before => assert_eq!(taken, 3),
            Point::After => assert!((1..=3).contains(&taken), "{taken}"),
        }
        host.assert_nothing_reserved();
        let backlog = ["acme", "other"].map(|tenant| host.journal.backlog(&tenant.into()));
        assert!(backlog.iter().all(|backlog| backlog.host == taken as u64 && backlog.tenant <= 2), "{backlog:?}");
    }
}

/// More clients connect than events are accepted at once, and the last one disconnects before its turn.
#[tokio::test]
async fn releases_everything_of_client_that_disconnects_while_queued() {
    let tenants = vec![TenantSetup { name: "acme", concurrency: 16, max_deliveries: 10_000 }];
    let host = TestHost::of(Setup { max_deliveries: 10_000, tenants, ..Setup::default() }).await;
    host.modules.end_automatically("Echo", answered());
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let holding = held.clone();
    host.journal.decide_by(Some(Box::new(move |op, point, _| match (op, point) {
        (Op::Record, Point::Before) => {
            let (release, go_on) = tokio::sync::oneshot::channel();
            lock(&holding).push(release);
            Pass::Wait(go_on)
        }
        _ => Pass::Go,
    })));
    let of = |number| client(&host, event(&format!("evt_{number}"), "Echo"), &Arc::default());
    let clients: Vec<_> = (0..super::super::MAX_ACCEPTING_PER_TENANT).map(of).collect();
    host.until("all events to be recorded", || lock(&held).len() == super::super::MAX_ACCEPTING_PER_TENANT).await;
    let queued = of(super::super::MAX_ACCEPTING_PER_TENANT);
    host.settle().await;
    queued.abort();
    assert!(queued.await.unwrap_err().is_cancelled());
    host.journal.decide_by(None);
    let releases = std::mem::take(&mut *lock(&held));
    for release in releases {
        release.send(true).unwrap();
    }
    for client in clients {
        client.await.unwrap().unwrap();
    }
    host.until("all deliveries to end", || host.journal.backlog(&"acme".into()) == Backlog::default()).await;
    assert_eq!(host.modules.history().len(), super::super::MAX_ACCEPTING_PER_TENANT);
    host.settle().await;
    host.assert_idle(&["acme"]);
}

/// A tenant sends more events at once than are accepted concurrently, and none can be recorded yet.
#[tokio::test]
async fn many_events_of_a_tenant_at_once_delay_no_other() {
    let tenants = ["acme", "other"].map(|name| TenantSetup { name, concurrency: 16, max_deliveries: 10_000 });
    let host = TestHost::of(Setup { max_deliveries: 10_000, tenants: tenants.into(), ..Setup::default() }).await;
    host.modules.end_automatically("Echo", answered());
    let held = Arc::new(std::sync::Mutex::new(Vec::new()));
    let holding = held.clone();
    host.journal.decide_by(Some(Box::new(move |op, point, _| match (op, point) {
        (Op::Record, Point::Before) => {
            let (release, go_on) = tokio::sync::oneshot::channel();
            lock(&holding).push(release);
            Pass::Wait(go_on)
        }
        _ => Pass::Go,
    })));
    let of = |tenant, number| client(&host, message(tenant, &format!("evt_{number}"), "Echo", "chat"), &Arc::default());
    let mut clients: Vec<_> = (0..2 * super::super::MAX_ACCEPTING).map(|number| of("acme", number)).collect();
    host.settle().await;
    assert_eq!(lock(&held).len(), super::super::MAX_ACCEPTING_PER_TENANT);
    clients.push(of("other", 0));
    host.until("the other tenant's event to be recorded", || {
        lock(&held).len() > super::super::MAX_ACCEPTING_PER_TENANT
    })
    .await;
    host.journal.decide_by(None);
    for release in std::mem::take(&mut *lock(&held)) {
        release.send(true).unwrap();
    }
    for client in clients {
        client.await.unwrap().unwrap();
    }
}
