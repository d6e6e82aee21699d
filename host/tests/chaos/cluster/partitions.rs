//! Hosts are cut off from the database, each in another way, and the remaining host takes their work over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use http::Method;

use super::super::audit::{Expected, RepeatedCalls, Surplus};
use super::super::faulty_platform::{Fault, FaultyPlatform};
use super::super::harness::until;
use super::super::host::{Config, Host, Posted, TENANT};
use super::super::kills::{CONCURRENCY, PostedEvent, check_answers, come_to_rest};
use super::cuttable_proxy::{CuttableProxy, Direction, Flow};
use super::{PostgresServer, TAKE_OVER, config, platform, start_all};

const COMPLETIONS: &str = "/openai/chat/completions";

/// A way to cut a host off, with its name.
type Partition = (&'static str, fn(&CuttableProxy));

const PARTITIONS: [Partition; 5] = [
    ("connections are reset", CuttableProxy::cut),
    ("bytes disappear in both directions", |proxy| proxy.set(Flow::Swallowed)),
    ("bytes arrive when the partition ends", |proxy| proxy.set(Flow::Held)),
    ("answers disappear", |proxy| proxy.set_one(Direction::ToClient, Flow::Swallowed)),
    ("requests arrive when the partition ends", |proxy| proxy.set_one(Direction::ToServer, Flow::Held)),
];

/// The number of events that each host is working on when it is cut off: some wait for an answer of the platform, the
/// others make one call after the other.
const EVENTS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn host_that_is_cut_off_stops_before_its_work_is_taken_over() {
    let Some(server) = PostgresServer::shared() else { return };
    let faulty_platform = platform().await;
    let url = server.new_database();
    let mut proxies = Vec::new();
    let mut hosts = Vec::new();
    for _ in PARTITIONS {
        let proxy = CuttableProxy::start(SocketAddr::from(([127, 0, 0, 1], server.port()))).await;
        hosts.push(through(&proxy, server.port(), &url).lay_out(&faulty_platform));
        proxies.push(proxy);
    }
    let healthy = config(&url).lay_out(&faulty_platform);
    start_all(&hosts).await;
    healthy.start().await;

    let mut posted = Vec::new();
    for (number, host) in hosts.iter().enumerate() {
        posted.extend(post_work(&faulty_platform, host, number).await);
    }
    for (proxy, (_, partition)) in proxies.iter().zip(PARTITIONS) {
        partition(proxy);
    }
    let begin = Instant::now();
    let lives: Vec<u32> = hosts.iter().map(Host::life).collect();
    let take_over = async {
        come_to_rest(&healthy).await;
        begin.elapsed()
    };
    let refusals =
        join_all(hosts.iter().zip(PARTITIONS).map(|(host, (name, _))| refuses(&faulty_platform, host, name)));
    let (took, _) = tokio::join!(take_over, refusals);
    println!("taken over and completed after {took:?}");
    for host in &hosts {
        host.logged(&["the storage confirmed no heartbeat in time"]).await;
    }

    // What the cut-off hosts waited for arrives: they must not continue with it.
    faulty_platform.release();
    for proxy in &proxies {
        proxy.heal();
    }
    for (host, (name, _)) in hosts.iter().zip(PARTITIONS) {
        until(&format!("the host to accept events again ({name})"), async || {
            let question = faulty_platform.ask("Test", "create A note", None).await;
            let acknowledged = host.post_to(TENANT, &question.event).await.is_some_and(|it| it.is_acknowledged());
            let expected = Expected { steps: 0, new_messages: 1 };
            posted.push(PostedEvent { question, expected, acknowledged });
            acknowledged.then_some(())
        })
        .await;
    }
    come_to_rest(&healthy).await;

    let (surplus, acknowledged) = check_answers(&faulty_platform, &healthy, &posted).await;
    // Checks as well that no host made a call of a delivery after another had continued it.
    let repeated = RepeatedCalls::among(&faulty_platform.seen(), 0);
    println!("{acknowledged} acknowledged; {} calls made twice, in flight each: {repeated:?}", repeated.effects());
    assert!(repeated.effects() <= PARTITIONS.len() * CONCURRENCY, "{repeated:?}");
    assert_eq!(surplus, Surplus { steps: repeated.steps, messages: repeated.messages }, "{repeated:?}");
    assert!(took < TAKE_OVER, "{took:?}");
    // None of them restarted: each began a new life in the same process.
    assert_eq!(lives, hosts.iter().map(Host::life).collect::<Vec<_>>());
}

/// Checks that a host that can't record an event refuses it.
async fn refuses(faulty_platform: &FaultyPlatform, host: &Host, name: &str) {
    let question = faulty_platform.ask("Test", "reply Hello", None).await;
    let refused = host.post_to(TENANT, &question.event).await;
    assert_eq!(refused.as_ref().map(|it| it.status), Some(503), "{name}: {refused:?}");
    assert!(refused.is_some_and(|it| it.retry_after.is_some()), "{name}");
}

/// The settings of a host that reaches the database through a proxy.
fn through(proxy: &CuttableProxy, port: u16, url: &str) -> Config {
    config(&url.replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port())))
}

/// Posts events to a host, and waits until it works on them: the answers of half of them are delayed.
async fn post_work(faulty_platform: &Arc<FaultyPlatform>, host: &Host, number: usize) -> Vec<PostedEvent> {
    let mut posted = Vec::new();
    let mut held = Vec::new();
    for event in 0..EVENTS {
        let (module, text, expected) = match event % 3 {
            0 => (
                "Assistant",
                "How many days of parental leave do I have?".to_owned(),
                Expected { steps: 2, new_messages: 0 },
            ),
            1 => ("Test", format!("complete marker {number} {event}."), Expected { steps: 0, new_messages: 0 }),
            _ => (
                "Test",
                format!("complete-into-reply marker {number} {event}."),
                Expected { steps: 0, new_messages: 0 },
            ),
        };
        if event % 3 == 1 {
            faulty_platform.plan(Method::POST, COMPLETIONS, &format!("marker {number} {event}."), 1, Fault::Hold);
        }
        let question = faulty_platform.ask(module, &text, None).await;
        let answer = host.post_to(TENANT, &question.event).await;
        assert!(answer.as_ref().is_some_and(Posted::is_acknowledged), "{answer:?}");
        if event % 3 == 1 {
            held.push(host.delivery_id(&question).await);
        }
        posted.push(PostedEvent { question, expected, acknowledged: true });
    }
    for delivery in held {
        until("the completion to be requested", async || {
            (!faulty_platform.seen_of(&delivery, &Method::POST, COMPLETIONS).is_empty()).then_some(())
        })
        .await;
    }
    posted
}
