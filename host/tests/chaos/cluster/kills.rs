//! Hosts of a cluster are killed, and their work continues on others or after their restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use super::super::audit::{RepeatedCalls, Surplus};
use super::super::faulty_platform::{Fault, FaultyPlatform, Question};
use super::super::host::Host;
use super::super::kills::{CONCURRENCY, Clients, check_answers, come_to_rest, random, rounds};
use super::{PostgresServer, TAKE_OVER, config, platform, start_all};

const COMPLETIONS: &str = "/openai/chat/completions";

/// The number of kills, unless `MODHOST_CHAOS_ROUNDS` is set.
const ROUNDS: u32 = 8;

/// After this many kills all deliveries complete and the results are compared.
const AUDIT_EVERY: u32 = 20;

/// The maximum time between two kills.
const MAX_PAUSE: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_hosts_of_a_cluster_are_killed() {
    let Some(server) = PostgresServer::shared() else { return };
    let rounds = rounds().unwrap_or(ROUNDS);
    let mut random = random(rounds);
    let faulty_platform = platform().await;
    let config = config(&server.new_database());
    let hosts: Arc<[Host]> = (0..3).map(|_| config.lay_out(&faulty_platform)).collect();
    start_all(&hosts).await;
    let mut done = 0;
    while done < rounds {
        let kills = AUDIT_EVERY.min(rounds - done);
        done += kills;
        let clients = Clients::start(&faulty_platform, &hosts, &mut random);
        for _ in 0..kills {
            tokio::time::sleep(MAX_PAUSE.mul_f64(random.f64())).await;
            let host = &hosts[random.usize(..hosts.len())];
            host.kill();
            // Sometimes the host is away for a while, and sometimes the next kill follows before it accepts events.
            if random.bool() {
                tokio::time::sleep(MAX_PAUSE.mul_f64(random.f64())).await;
            }
            host.spawn();
            if random.u8(..) > 50 {
                host.listening().await;
            }
        }
        let posted_events = clients.stop().await;
        for host in &*hosts {
            host.listening().await;
        }
        let host = &hosts[random.usize(..hosts.len())];
        come_to_rest(host).await;

        let (surplus, acknowledged) = check_answers(&faulty_platform, host, &posted_events).await;
        let seen = faulty_platform.seen();
        let repeated = RepeatedCalls::among(&seen, 0);
        println!(
            "{} events, {acknowledged} acknowledged, {} calls, {kills} kills; {} calls made twice, in flight each: \
             {repeated:?}",
            posted_events.len(),
            seen.len(),
            repeated.effects(),
        );
        assert!(repeated.effects() <= usize::try_from(kills).unwrap() * CONCURRENCY, "{repeated:?}");
        assert_eq!(surplus, Surplus { steps: repeated.steps, messages: repeated.messages }, "{repeated:?}");
        faulty_platform.forget();
    }
}

/// Posts an event to the only host. Its completion is not answered. Waits until the host has asked for it.
async fn in_flight(faulty_platform: &FaultyPlatform, host: &Host, marker: &str) -> Question {
    faulty_platform.plan(Method::POST, COMPLETIONS, marker, 1, Fault::Hold);
    let question = faulty_platform.ask("Test", &format!("complete {marker}"), None).await;
    host.post_acknowledged(&question).await;
    let id = host.delivery_id(&question).await;
    let asked = async || (!faulty_platform.seen_of(&id, &Method::POST, COMPLETIONS).is_empty()).then_some(());
    super::super::harness::until("the completion to be requested", asked).await;
    question
}

#[tokio::test(flavor = "multi_thread")]
async fn other_host_takes_over_from_a_killed_one() {
    let Some(server) = PostgresServer::shared() else { return };
    let faulty_platform = platform().await;
    let config = config(&server.new_database());
    let [killed, other] = [(); 2].map(|()| config.lay_out(&faulty_platform));
    start_all(std::slice::from_ref(&killed)).await;
    let question = in_flight(&faulty_platform, &killed, "travel").await;
    start_all(std::slice::from_ref(&other)).await;
    assert_eq!(other.delivery(&question).await["state"], "running", "a host shows the deliveries of all hosts");

    killed.kill();
    let begin = Instant::now();
    other.in_state_after(&question, "completed", 2).await;
    let took = begin.elapsed();
    println!("taken over and completed after {took:?}");
    assert!(took < TAKE_OVER, "{took:?}");
    let seen = faulty_platform.seen_of(&other.delivery_id(&question).await, &Method::POST, COMPLETIONS);
    assert_eq!(seen.len(), 2, "the call in flight is repeated: {seen:?}");
    assert_eq!(seen[0].key, seen[1].key, "with the same key");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_host_continues_its_work_before_its_lease_expires() {
    let Some(server) = PostgresServer::shared() else { return };
    let faulty_platform = platform().await;
    let config = config(&server.new_database());
    let [host, other] = [(); 2].map(|()| config.lay_out(&faulty_platform));
    start_all(std::slice::from_ref(&host)).await;
    let question = in_flight(&faulty_platform, &host, "travel").await;
    start_all(std::slice::from_ref(&other)).await;
    host.kill();
    host.start().await;
    let begin = Instant::now();
    host.in_state_after(&question, "completed", 2).await;
    let took = begin.elapsed();
    println!("completed {took:?} after the restart");
    // The lease of the earlier life lasts at least 25 s: it is extended every 5 s to 30 s.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
