//! Tests of scheduling: order within a chat, fairness between tenants, and limits.

use futures::stream::{self, StreamExt};
use http::Method;

use super::faulty_platform::{Fault, FaultyPlatform};
use super::harness::until;
use super::host::{Config, Posted, TENANT};

const MESSAGES: &str = "/messages/";

#[tokio::test(flavor = "multi_thread")]
async fn answers_the_events_of_a_chat_in_order() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let lines = r#"ordering = "chat"
retry = { attempts = 2, first = "100ms", max = "100ms" }"#;
    let host = Config::new().module("Test", "test_guest", lines).start(&faulty_platform).await;
    let first = faulty_platform.ask("Test", "retry 1", None).await;
    let chat = Some(first.chat.as_str());
    let second = faulty_platform.ask("Test", "reply Two", chat).await;
    let third = faulty_platform.ask("Test", "reply Three", chat).await;
    let elsewhere = faulty_platform.ask("Test", "reply Hello", None).await;
    for question in [&first, &second, &third, &elsewhere] {
        host.post_acknowledged(question).await;
    }
    host.in_state(&third, "completed").await;
    assert_eq!(host.delivery(&first).await["state"], "dead");
    assert_eq!(host.delivery(&second).await["state"], "completed");

    let seen = faulty_platform.seen();
    let places = |reply: &str| {
        let path = format!("{MESSAGES}{reply}");
        let places = seen.iter().enumerate().filter(move |(_, call)| call.is(&Method::PATCH, &path));
        places.map(|(place, _)| place).collect::<Vec<_>>()
    };
    let (one, two, three) = (places(&first.reply), places(&second.reply), places(&third.reply));
    // The notice after the first attempt, and the apology after the second.
    assert_eq!((one.len(), two.len(), three.len()), (2, 1, 1), "{seen:?}");
    assert!(one[1] < two[0] && two[0] < three[0], "{seen:?}");
    assert!(places(&elsewhere.reply)[0] < one[1], "the other chat waited: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_of_one_tenant_does_not_delay_others() {
    const BACKLOG: usize = 2000;
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let config = Config::new().server("concurrency = 2").tenants(&[("loud", ""), ("quiet", "")]);
    let host = config.module("Test", "test_guest", "").start(&faulty_platform).await;
    let loud = faulty_platform.ask("Test", "sleep 30", None).await;
    let events = (0..BACKLOG).map(|number| loud.again_as(&format!("evt_loud_{number}")));
    let posts = events.map(async |event| host.post_to("loud", &event).await);
    let posted: Vec<Option<Posted>> = stream::iter(posts).buffer_unordered(16).collect().await;
    assert!(posted.iter().all(|posted| posted.as_ref().is_some_and(Posted::is_acknowledged)), "{posted:?}");

    let quiet = faulty_platform.ask("Test", "reply Hello", None).await;
    let before = host.totals().await["deliveries"]["completed"].as_u64().unwrap();
    assert!(host.post_to("quiet", &quiet.event).await.unwrap().is_acknowledged());
    host.in_state(&quiet, "completed").await;
    // Counts the deliveries that completed before it instead of measuring time: it must be next once a running delivery
    // has ended.
    let ended = host.get("/api/deliveries?tenant=quiet").await["deliveries"][0]["ended_at"].clone();
    let all = host.get("/api/deliveries?state=completed&tenant=loud&limit=10000").await;
    let earlier = all["deliveries"].as_array().unwrap().iter().filter(|it| it["ended_at"].as_str() < ended.as_str());
    let between = earlier.count() as u64 - before;
    assert!(between < 200, "{between} deliveries of the loud tenant completed before it");
    let waiting = host.totals().await["deliveries"]["waiting"].as_u64().unwrap();
    assert!(waiting > 0, "the backlog is empty, so the test proves nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_the_event_rate_of_a_tenant() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let config = Config::new().tenants(&[(TENANT, "events_per_second = 1")]);
    let host = config.module("Test", "test_guest", "").start(&faulty_platform).await;
    let question = faulty_platform.ask("Test", "reply Hello", None).await;
    let mut number = 0;
    let refused = until("a refusal", async || {
        number += 1;
        let event = question.again_as(&format!("evt_fast_{number}"));
        Some(host.post_to(TENANT, &event).await.unwrap()).filter(|posted| !posted.is_acknowledged())
    })
    .await;
    assert_eq!((refused.status, refused.retry_after), (429, Some(1)));
    assert!(host.deliveries_of(&format!("evt_fast_{number}")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_the_unfinished_deliveries_of_a_tenant() {
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let config = Config::new().tenants(&[(TENANT, "max_deliveries = 2")]);
    let host = config.module("Test", "test_guest", "").start(&faulty_platform).await;
    faulty_platform.plan(Method::PATCH, MESSAGES, "", 2, Fault::Hold);
    let question = faulty_platform.ask("Test", "reply Hello", None).await;
    for id in ["evt_a", "evt_b"] {
        assert!(host.post_to(TENANT, &question.again_as(id)).await.unwrap().is_acknowledged());
    }
    let refused = host.post_to(TENANT, &question.again_as("evt_c")).await.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    assert!(host.deliveries_of("evt_c").await.is_empty());

    faulty_platform.release();
    until("capacity for the event", async || {
        host.post_to(TENANT, &question.again_as("evt_c")).await.filter(Posted::is_acknowledged)
    })
    .await;
}
