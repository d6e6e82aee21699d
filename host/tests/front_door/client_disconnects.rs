//! Tests of clients that disconnect during a request: the request either completes or has no effect.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;

use super::harness::{Host, Settings, Wire, chosen, head, http, signed_post, until};

/// The number of rounds; each disconnects at a random moment.
const ROUNDS: usize = 40;

/// Sends a complete request and disconnects a moment later.
async fn hang_up_on(address: SocketAddr, request: String) {
    let mut wire = Wire::from(Ipv4Addr::LOCALHOST, address).await;
    wire.send(request).await;
    tokio::time::sleep(Duration::from_micros(fastrand::u64(0..4_000))).await;
}

async fn get(host: &Host, path: &str) -> Value {
    http().get(format!("{}{path}", host.admin)).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_the_event_of_a_disconnected_client() {
    let host = Settings::test_guest("").start().await;
    for round in 0..ROUNDS {
        let id = format!("evt_{round}");
        let body = chosen(&id, "Test", "nothing").to_string();
        let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        hang_up_on(host.socket(), head(body.as_bytes(), &length) + &body).await;
        // The redelivery is either a duplicate or new; in both cases the event is processed.
        assert_eq!(signed_post(&host.webhook, body).await.status(), 200);
        until(&format!("delivery {id} to complete"), async || {
            let found = get(&host, &format!("/api/deliveries?event={id}")).await;
            let deliveries = found["deliveries"].as_array().unwrap();
            assert!(deliveries.len() <= 1, "{found}");
            deliveries.iter().any(|it| it["state"] == "dead" || it["state"] == "completed").then_some(())
        })
        .await;
    }
    let totals = get(&host, "/api/totals").await;
    assert_eq!(
        (&totals["deliveries"]["waiting"], &totals["deliveries"]["running"]),
        (&0.into(), &0.into()),
        "{totals}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_an_admin_operation_completely_or_not_at_all() {
    let host = Settings::test_guest("").start().await;
    let admin: SocketAddr = host.admin.trim_start_matches("http://").parse().unwrap();
    let record = host.file(".modhost/versions.sqlite");
    let on_disk = || {
        let record = Connection::open(&record).unwrap();
        let sql = "SELECT count(*) FROM modules WHERE module = 'Test' AND paused_at IS NOT NULL";
        record.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap()
    };
    for round in 0..ROUNDS {
        let operation = if round % 2 == 0 { "pause" } else { "resume" };
        let request = format!(
            "POST /api/modules/Test/{operation} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        hang_up_on(admin, request).await;
        until(&format!("disk and memory to agree after {operation}"), async || {
            let in_force = !get(&host, "/api/modules/Test").await["paused"].is_null();
            (in_force == on_disk()).then_some(())
        })
        .await;
    }
}
