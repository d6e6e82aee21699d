//! The hosts that share a PostgreSQL database: lives, leases and duties.

use std::sync::Arc;
use std::time::Duration;

use modhost_core::clock::ManualClock;
use modhost_storage::cluster::{Cluster, HostInfo};
use modhost_storage::journal::{Claim, Journal, Postgres};

use crate::postgres_server::PostgresServer;
use crate::support::{at, claim, event, new_database, open_postgres_with_clock, to};

const LEASE: Duration = Duration::from_secs(30);

fn host(name: &str, life: u32) -> HostInfo {
    HostInfo {
        owner: format!("{name}/{life}").into(),
        name: name.to_owned(),
        admin: Some("127.0.0.1:9000".to_owned()),
        version: "1.2.3".to_owned(),
        settings: "hash".to_owned(),
        modules: ["Echo".into(), "Log".into()].into(),
    }
}

async fn opened() -> Option<(Postgres, Arc<ManualClock>)> {
    PostgresServer::shared()?;
    let clock = Arc::new(ManualClock::new(at(0)));
    Some((open_postgres_with_clock(&new_database(), &clock).await, clock))
}

/// Returns the names of the hosts that live.
async fn alive(cluster: &Postgres) -> Vec<String> {
    let hosts = cluster.hosts().await.unwrap();
    hosts.into_iter().filter(|host| host.is_alive).map(|host| host.info.owner.to_string()).collect()
}

#[tokio::test]
async fn lists_hosts_while_they_live_and_for_a_while_after() {
    let Some((cluster, clock)) = opened().await else { return };
    assert!(cluster.join(&host("a", 1), LEASE).await.unwrap().is_empty());
    clock.set(at(1_000));
    assert!(cluster.join(&host("b", 1), LEASE).await.unwrap().is_empty());
    let listed = cluster.hosts().await.unwrap();
    assert_eq!(listed[0].info, host("a", 1));
    assert_eq!((listed[0].joined_at, listed[1].seen_at, listed.len()), (at(0), at(1_000), 2));

    clock.set(at(30_500));
    assert_eq!(alive(&cluster).await, ["b/1"]);
    assert!(cluster.beat("b/1", LEASE).await.unwrap());
    // Whoever looks for lost deliveries marks the host as gone first. It doesn't come back under this owner.
    cluster.reclaim(None).await.unwrap();
    assert!(!cluster.beat("a/1", LEASE).await.unwrap());
    assert!(!cluster.beat("unknown", LEASE).await.unwrap());
    assert_eq!(cluster.hosts().await.unwrap().len(), 2);
    cluster.leave("b/1").await.unwrap();
    assert_eq!(alive(&cluster).await, Vec::<String>::new());
    clock.set(at(2 * 3_600_000));
    assert!(cluster.hosts().await.unwrap().is_empty());
}

#[tokio::test]
async fn next_life_of_a_host_learns_whose_deliveries_to_reclaim() {
    let Some((cluster, clock)) = opened().await else { return };
    cluster.join(&host("a", 1), LEASE).await.unwrap();
    cluster.join(&host("b", 1), LEASE).await.unwrap();
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    cluster.record(event, vec![delivery]).await.unwrap();
    let claimed = cluster.claim(Claim { owner: "a/1".into(), ..claim("acme", 1) }).await.unwrap();
    assert_eq!(claimed.len(), 1);

    clock.set(at(10));
    assert_eq!(cluster.join(&host("a", 2), LEASE).await.unwrap(), ["a/1".into()]);
    assert!(!cluster.beat("a/1", LEASE).await.unwrap());
    // If the second life ends before it reclaims them, the third one learns it, too.
    assert_eq!(cluster.join(&host("a", 3), LEASE).await.unwrap(), ["a/1".into(), "a/2".into()]);
    assert_eq!(cluster.reclaim(Some("a/1")).await.unwrap(), 1);
    assert_eq!(cluster.join(&host("a", 4), LEASE).await.unwrap(), ["a/3".into()]);
    assert_eq!(alive(&cluster).await, ["a/4", "b/1"]);
}

#[tokio::test]
async fn one_host_at_a_time_has_a_duty() {
    let Some((cluster, clock)) = opened().await else { return };
    for name in ["a", "b"] {
        cluster.join(&host(name, 1), LEASE).await.unwrap();
    }
    let hold = async |owner| cluster.hold_duty("retention", owner, Duration::from_secs(10)).await.unwrap();
    assert!(hold("a/1").await);
    assert!(!hold("b/1").await);
    assert!(cluster.hold_duty("another", "b/1", LEASE).await.unwrap());
    clock.set(at(9_000));
    assert!(hold("a/1").await, "it is prolonged");
    clock.set(at(18_999));
    assert!(!hold("b/1").await);
    clock.set(at(19_000));
    assert!(hold("b/1").await, "its lease is over");
    assert!(!hold("a/1").await);
    cluster.leave("b/1").await.unwrap();
    assert!(hold("a/1").await, "its host left");
    cluster.join(&host("c", 1), LEASE).await.unwrap();
    cluster.join(&host("a", 2), LEASE).await.unwrap();
    assert!(hold("c/1").await, "its host was started again");
}

/// A life that doesn't know yet that it is gone publishes changed settings.
#[tokio::test]
async fn life_that_is_gone_does_not_end_its_successor() {
    let Some((cluster, _clock)) = opened().await else { return };
    assert!(cluster.join(&host("a", 1), LEASE).await.unwrap().is_empty());
    assert_eq!(cluster.join(&host("a", 2), LEASE).await.unwrap(), ["a/1".into()]);
    assert!(cluster.join(&host("a", 1), LEASE).await.unwrap().is_empty());
    assert_eq!(alive(&cluster).await, ["a/2"]);
    assert!(cluster.beat("a/2", LEASE).await.unwrap());
}
