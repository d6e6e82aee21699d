//! A host moves from the files in its data directory to a database.

use std::fs;

use http::Method;

use super::super::faulty_platform::{Fault, FaultyPlatform};
use super::super::host::Config;
use super::PostgresServer;

const COMPLETIONS: &str = "/openai/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_of_a_killed_host_continue_in_the_database() {
    let Some(server) = PostgresServer::shared() else { return };
    let faulty_platform = FaultyPlatform::start(&["Test"]).await;
    let config = Config::new().module("Test", "test_guest", "").variable("CHAOS_DATABASE", server.new_database());
    let host = config.start(&faulty_platform).await;
    let answered = faulty_platform.ask("Test", "create A note", None).await;
    host.post_acknowledged(&answered).await;
    host.in_state(&answered, "completed").await;
    faulty_platform.plan(Method::POST, COMPLETIONS, "", 1, Fault::Hold);
    let in_flight = faulty_platform.ask("Test", "kv-count-and hits|complete hello", None).await;
    host.post_acknowledged(&in_flight).await;
    faulty_platform.asked_for(&Method::POST, COMPLETIONS, 1).await;

    let migrate = ["storage", "migrate", "--from", "sqlite", "--to", "env:CHAOS_DATABASE"];
    let refused = host.command(&migrate).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("already runs on the data directory"), "{error}");

    host.kill();
    let moved = host.command(&migrate).output().unwrap();
    let error = String::from_utf8_lossy(&moved.stderr).into_owned();
    assert_eq!(moved.status.code(), Some(0), "{error}");
    let output = String::from_utf8_lossy(&moved.stdout).into_owned();
    assert!(output.contains("2  deliveries") && output.contains("moved and compared"), "{output}");
    assert!(!host.file(".modhost/journal.sqlite").exists());

    // Without the database, the host doesn't start with empty files instead.
    let wrong = host.command(&["serve", "--port", "0", "--admin-port", "0"]).output().unwrap();
    assert!(!wrong.status.success());
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(error.contains("has kept its deliveries in a database"), "{error}");

    let settings = host.file("modules.toml");
    let text = fs::read_to_string(&settings).unwrap() + "\n[storage]\nurl = \"env:CHAOS_DATABASE\"\n";
    fs::write(settings, text).unwrap();
    host.start().await;
    assert_eq!(host.delivery(&answered).await["state"], "completed");
    let delivery = host.in_state(&in_flight, "completed").await;
    assert_eq!(delivery["attempts"], 2);
    // The increment was replayed, and the completion repeated with its key.
    let value = host.get("/api/keyvalue/default/Test/default/value?key=hits").await;
    assert_eq!(value["value"], "1");
    let seen = faulty_platform.seen_of(&host.delivery_id(&in_flight).await, &Method::POST, COMPLETIONS);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].key, seen[1].key);
    // A redelivery is recognized.
    host.post_acknowledged(&answered).await;
    host.delivery(&answered).await;
}
