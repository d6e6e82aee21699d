//! Deliveries of a chat that run one at a time, in the order they were recorded.

use std::time::Duration;

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Claim, Disposition, State};

use crate::support::{Engine, TestJournal, claim, dead, event_of, in_chat, on_every_engine};

on_every_engine! {
    releases_the_next_delivery_of_a_chat_when_the_first_ends,
    holds_a_chat_back_behind_a_retry,
    keeps_a_chat_in_order_when_its_host_dies,
    releases_the_next_of_a_chat_only_if_the_dropped_delivery_was_first,
    queues_a_resent_delivery_behind_the_unfinished_ones_of_its_chat,
    keeps_chats_of_the_same_name_apart_by_tenant_and_module,
}

async fn releases_the_next_delivery_of_a_chat_when_the_first_ends(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let mut chat_a = Vec::new();
    for number in 0..3 {
        chat_a.push(journal.one_in_chat(&format!("evt_a{number}"), "chat_a", number).await);
    }
    let other_chat = journal.one_in_chat("evt_b", "chat_b", 5).await;
    let no_chat = journal.one("evt_c", 6).await;

    let taken = journal.take(10, 100).await;
    let ids: Vec<&DeliveryId> = taken.iter().map(|claimed| claimed.id()).collect();
    assert_eq!(ids, [&chat_a[0], &other_chat, &no_chat]);
    assert_eq!(journal.lanes().await.unwrap()[0].waiting, 2, "blocked deliveries count as waiting");

    journal.end(&taken[1], Disposition::Completed, 110).await;
    assert!(journal.take(10, 120).await.is_empty(), "the end of a delivery of another chat released one");
    for (next, ending) in [(1, Disposition::Completed), (2, dead())] {
        let claimed = if next == 1 { taken[0].clone() } else { journal.take(10, 130).await.pop().unwrap() };
        journal.end(&claimed, ending, 130).await;
        assert_eq!(journal.state(&chat_a[next]).await, State::Waiting);
        if next == 2 {
            assert_eq!(journal.take_ids(10, 140).await, [chat_a[2].clone()]);
        }
    }
}

async fn holds_a_chat_back_behind_a_retry(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.one_in_chat("evt_1", "chat", 0).await;
    let second = journal.one_in_chat("evt_2", "chat", 1).await;
    let claimed = journal.take(10, 10).await.pop().unwrap();
    journal.retry_at(&claimed, 5_000, 20).await;

    let journal = journal.reopened().await;
    assert!(journal.take(10, 4_000).await.is_empty());
    assert_eq!(
        journal.next_due().await.unwrap(),
        Some(Duration::from_millis(1_000)),
        "the blocked delivery must not be due before the retry"
    );
    let claimed = journal.take(10, 5_000).await.pop().unwrap();
    assert_eq!(*claimed.id(), first);
    assert!(journal.take(10, 6_000).await.is_empty());
    journal.end(&claimed, Disposition::Completed, 6_000).await;
    assert_eq!(journal.take_ids(10, 6_000).await, [second]);
}

async fn keeps_a_chat_in_order_when_its_host_dies(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.one_in_chat("evt_1", "chat", 0).await;
    journal.one_in_chat("evt_2", "chat", 1).await;
    journal.take(10, 10).await;
    let journal = journal.reopened().await;
    journal.at(20).reclaim(Some("host-1")).await.unwrap();
    assert_eq!(journal.take_ids(10, 20).await, [first]);
}

async fn releases_the_next_of_a_chat_only_if_the_dropped_delivery_was_first(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(journal.one_in_chat(&format!("evt_{number}"), "chat", number).await);
    }
    assert!(journal.at(10).drop_waiting(&ids[1], "not needed").await.unwrap());
    assert_eq!(journal.take_ids(10, 20).await, [ids[0].clone()]);
    assert!(!journal.at(30).drop_waiting(&ids[0], "it runs").await.unwrap());
    let claimed = journal.show(&ids[0]).await.unwrap().unwrap();
    assert_eq!(claimed.summary.state, State::Running);

    journal.at(40).reclaim(Some("host-1")).await.unwrap();
    assert!(journal.at(50).drop_waiting(&ids[0], "not needed").await.unwrap());
    assert_eq!(journal.take_ids(10, 60).await, [ids[2].clone()]);
}

async fn queues_a_resent_delivery_behind_the_unfinished_ones_of_its_chat(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.one_in_chat("evt_1", "chat", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    journal.end(&claimed, dead(), 2).await;
    let second = journal.one_in_chat("evt_2", "chat", 3).await;
    let third = journal.one_in_chat("evt_3", "chat", 4).await;

    assert!(journal.at(5).resend(&first, false).await.unwrap());
    let order = [second, first, third];
    for id in &order {
        assert_eq!(&journal.complete_next(10).await, id);
    }
    // A resent delivery without others in its chat can be claimed at once.
    assert!(journal.at(20).resend(&order[0], false).await.unwrap());
    assert_eq!(journal.complete_next(20).await, order[0]);
}

async fn keeps_chats_of_the_same_name_apart_by_tenant_and_module(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    for (tenant, module) in [("acme", "Echo"), ("acme", "Log"), ("other", "Echo")] {
        let event = event_of(tenant, &format!("evt_{tenant}_{module}"));
        let delivery = in_chat(&event, module, "chat");
        journal.at(0).record(event, vec![delivery]).await.unwrap();
    }
    for (tenant, module) in [("acme", "Echo"), ("acme", "Log"), ("other", "Echo")] {
        let claim = Claim { module: module.into(), ..claim(tenant, 5) };
        assert_eq!(journal.claim(claim).await.unwrap().len(), 1);
    }
}
