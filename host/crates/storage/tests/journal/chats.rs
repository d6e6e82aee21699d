//! Deliveries of a chat that go one at a time, in the order they were recorded.

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Disposition, Journal, State};

use crate::support::{Kept, at, dead, event_of, in_chat, retry};

#[tokio::test]
async fn the_next_of_a_chat_goes_when_the_one_before_has_ended() {
    let journal = Kept::new().await;
    let mut chat_a = Vec::new();
    for number in 0..3 {
        chat_a.push(journal.one_in_chat(&format!("evt_a{number}"), "chat_a", number).await);
    }
    let other_chat = journal.one_in_chat("evt_b", "chat_b", 5).await;
    let no_chat = journal.one("evt_c", 6).await;

    let taken = journal.take(10, 100).await;
    let ids: Vec<&DeliveryId> = taken.iter().map(|claimed| &claimed.id).collect();
    assert_eq!(ids, [&chat_a[0], &other_chat, &no_chat]);
    assert_eq!(journal.lanes().await.unwrap()[0].waiting, 2, "those behind wait as well");

    journal.end(&taken[1], Disposition::Completed, 110).await;
    assert!(journal.take(10, 120).await.is_empty(), "the end of another chat's delivery is nothing to this one");
    for (next, ending) in [(1, Disposition::Completed), (2, dead())] {
        let claimed = if next == 1 { taken[0].clone() } else { journal.take(10, 130).await.pop().unwrap() };
        journal.end(&claimed, ending, 130).await;
        assert_eq!(journal.state(&chat_a[next]).await, State::Waiting);
        if next == 2 {
            assert_eq!(journal.take_ids(10, 140).await, [chat_a[2].clone()]);
        }
    }
}

#[tokio::test]
async fn a_retry_at_the_head_of_a_chat_holds_the_rest_back() {
    let journal = Kept::new().await;
    let first = journal.one_in_chat("evt_1", "chat", 0).await;
    let second = journal.one_in_chat("evt_2", "chat", 1).await;
    let claimed = journal.take(10, 10).await.pop().unwrap();
    journal.end(&claimed, retry(5_000), 20).await;

    let journal = journal.reopened().await;
    assert!(journal.take(10, 4_000).await.is_empty());
    assert_eq!(journal.next_due().await.unwrap(), Some(at(5_000)), "the one behind is not due before it");
    let claimed = journal.take(10, 5_000).await.pop().unwrap();
    assert_eq!(claimed.id, first);
    assert!(journal.take(10, 6_000).await.is_empty());
    journal.end(&claimed, Disposition::Completed, 6_000).await;
    assert_eq!(journal.take_ids(10, 6_000).await, [second]);
}

#[tokio::test]
async fn a_chat_stays_in_order_when_its_host_dies() {
    let journal = Kept::new().await;
    let first = journal.one_in_chat("evt_1", "chat", 0).await;
    journal.one_in_chat("evt_2", "chat", 1).await;
    journal.take(10, 10).await;
    let journal = journal.reopened().await;
    journal.reclaim(Some("host-1"), at(20)).await.unwrap();
    assert_eq!(journal.take_ids(10, 20).await, [first]);
}

#[tokio::test]
async fn dropping_one_of_a_chat_lets_the_next_go_only_if_it_was_the_first() {
    let journal = Kept::new().await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(journal.one_in_chat(&format!("evt_{number}"), "chat", number).await);
    }
    assert!(journal.drop_waiting(&ids[1], "not needed", at(10)).await.unwrap());
    assert_eq!(journal.take_ids(10, 20).await, [ids[0].clone()]);
    assert!(!journal.drop_waiting(&ids[0], "it runs", at(30)).await.unwrap());
    let claimed = journal.show(&ids[0]).await.unwrap().unwrap();
    assert_eq!(claimed.summary.state, State::Running);

    journal.reclaim(Some("host-1"), at(40)).await.unwrap();
    assert!(journal.drop_waiting(&ids[0], "not needed", at(50)).await.unwrap());
    assert_eq!(journal.take_ids(10, 60).await, [ids[2].clone()]);
}

#[tokio::test]
async fn one_sent_again_goes_behind_the_one_whose_turn_it_is() {
    let journal = Kept::new().await;
    let first = journal.one_in_chat("evt_1", "chat", 0).await;
    let claimed = journal.take(1, 1).await.pop().unwrap();
    journal.end(&claimed, dead(), 2).await;
    let second = journal.one_in_chat("evt_2", "chat", 3).await;
    let third = journal.one_in_chat("evt_3", "chat", 4).await;

    assert!(journal.resend(&first, false, at(5)).await.unwrap());
    let order = [second, first, third];
    for id in &order {
        assert_eq!(&journal.complete_next(10).await, id);
    }
    // Alone in its chat it goes at once.
    assert!(journal.resend(&order[0], false, at(20)).await.unwrap());
    assert_eq!(journal.complete_next(20).await, order[0]);
}

#[tokio::test]
async fn chats_of_the_same_name_are_apart_by_tenant_and_module() {
    let journal = Kept::new().await;
    for (tenant, module) in [("acme", "Echo"), ("acme", "Log"), ("other", "Echo")] {
        let event = event_of(tenant, &format!("evt_{tenant}_{module}"));
        let delivery = in_chat(&event, module, "chat");
        journal.record(event, vec![delivery], at(0)).await.unwrap();
    }
    for (tenant, module) in [("acme", "Echo"), ("acme", "Log"), ("other", "Echo")] {
        let claim = modhost_storage::journal::Claim { module: module.into(), ..crate::support::claim(tenant, 5, 1) };
        assert_eq!(journal.claim(claim).await.unwrap().len(), 1);
    }
}
