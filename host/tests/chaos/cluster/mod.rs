//! Several hosts on one PostgreSQL database: hosts are killed, cut off and restarted, and the primary is killed.
//!
//! Each test has a database of its own. Without PostgreSQL, they are skipped.

mod clocks;
#[path = "../../support/cuttable_proxy.rs"]
mod cuttable_proxy;
mod failover;
mod kills;
mod moving;
mod partitions;
#[path = "../../support/postgres_server.rs"]
mod postgres_server;

use std::sync::Arc;
use std::time::Duration;

use postgres_server::PostgresServer;

use super::faulty_platform::FaultyPlatform;
use super::host::{Config, Host};
use super::kills::CONCURRENCY;

/// The time within which the work of a host that is gone continues elsewhere: its lease, and a heartbeat.
const TAKE_OVER: Duration = Duration::from_secs(40);

/// The settings of a host: its deliveries survive as many attempts as hosts are killed.
fn config(url: &str) -> Config {
    let often = "retry = { attempts = 1000, first = \"100ms\", max = \"1s\" }";
    Config::new()
        .server(&format!("concurrency = {CONCURRENCY}"))
        .module("Assistant", "assistant", often)
        .module("Test", "test_guest", often)
        .database(url)
}

async fn platform() -> Arc<FaultyPlatform> {
    Arc::new(FaultyPlatform::start(&["Assistant", "Test"]).await)
}

/// Starts hosts and waits until all of them accept events and their modules serve. Until then, another host would run what
/// one accepts.
async fn start_all(hosts: &[Host]) {
    for host in hosts {
        host.spawn();
    }
    for host in hosts {
        host.listening().await;
        host.logged(&["modules started", "serving=2"]).await;
    }
}
