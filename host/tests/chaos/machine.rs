//! Tests of a full disk and of a clock that jumps.

use std::fs;
use std::path::Path;

use http::Method;

use super::faulty_platform::{Fault, FaultyPlatform};
use super::harness::until;
use super::host::{Config, TENANT};
use super::small_disk::SmallDisk;
use super::small_disk::notice::notice;

const COMPLETIONS: &str = "/openai/chat/completions";

/// A library that fakes the time of a process (Debian package `faketime`).
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_refuses_events_and_loses_none() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let retry = r#"retry = { attempts = 50, first = "100ms", max = "200ms" }"#;
    let data_dir = format!("data_dir = {:?}", disk.path().join("data"));
    let host = Config::new().module("Assistant", "assistant", retry).server(&data_dir).start(&faulty_platform).await;
    let ballast = disk.ballast(7 * 1024 * 1024);

    let mut acknowledged = Vec::new();
    let refused = loop {
        let question = faulty_platform.ask("Assistant", "What about travel?", None).await;
        let posted = host.post_to(TENANT, &question.event).await.expect("an answer");
        if !posted.is_acknowledged() {
            assert_eq!(posted.status, 503);
            assert!(posted.retry_after.is_some());
            break question;
        }
        acknowledged.push(question);
        assert!(acknowledged.len() < 5_000, "the disk never fills up");
    };
    host.logged(&["refused for now", "the journal is full"]).await;

    fs::remove_file(ballast).unwrap();
    until("the host to accept events again", async || {
        host.post_to(TENANT, &refused.event).await.filter(|posted| posted.is_acknowledged())
    })
    .await;
    acknowledged.push(refused);
    for question in &acknowledged {
        host.in_state(question, "completed").await;
        assert!(faulty_platform.reply(question).await.is_complete());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_jumps_do_not_delay_deliveries() {
    if !Path::new(FAKETIME).exists() {
        // CI has it installed.
        assert!(std::env::var_os("CI").is_none(), "{FAKETIME} is missing");
        notice(&format!("SKIPPED jumps of the clock: {FAKETIME} is missing (Debian: faketime)"));
        return;
    }
    let faulty_platform = FaultyPlatform::start(&["Assistant"]).await;
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    fs::write(&clock, "+0d").unwrap();
    let host = Config::new()
        .module("Assistant", "assistant", "")
        // Shorter than the `Retry-After` of the platform, so that the delivery waits for a retry, not the call.
        .platform(r#"timeout = "4s""#)
        // The test signs with the real clock.
        .source("tolerance = \"0s\"\ntolerance_ahead = \"0s\"")
        .variable("LD_PRELOAD", FAKETIME)
        .variable("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start(&faulty_platform)
        .await;
    for (round, jump) in ["+1d", "-1d", "+400d", "+0d"].into_iter().enumerate() {
        let marker = format!("jump {round}");
        faulty_platform.plan(
            Method::POST,
            COMPLETIONS,
            &marker,
            1,
            Fault::Answer(429, Some(5), r#"{"error":"slow down"}"#),
        );
        let question = faulty_platform.ask("Assistant", &format!("What about {marker}?"), None).await;
        host.post_acknowledged(&question).await;
        // The clock jumps while the delivery waits for its retry.
        host.in_state_after(&question, "waiting", 1).await;
        fs::write(&clock, jump).unwrap();
        assert_eq!(host.in_state(&question, "completed").await["attempts"], 2, "{jump}");
        assert!(faulty_platform.reply(&question).await.is_complete(), "{jump}");
    }
}
