//! The calls of a delivery: ordered, replaced, forgotten, fenced, and large answers stored once.

use modhost_core::event::DeliveryId;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{Call, JournalError, Lease};

use crate::support::{Engine, TestJournal, at, call, committed, lease, on_every_engine, retry};

on_every_engine! {
    returns_calls_in_order_and_complete,
    replaces_an_intent_by_its_answer,
    forgets_calls_and_keeps_those_written_after,
    counts_the_calls_of_earlier_attempts,
    keeps_a_large_answer_while_a_call_has_it,
    writes_nothing_under_a_stale_lease,
    rejects_calls_of_an_unknown_delivery,
}

async fn returns_calls_in_order_and_complete(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    let id = &lease.delivery;
    let calls = [
        call(0, "answer"),
        Call { answer: Some(Vec::new()), ..call(1, "") },
        call(2, vec![7; 100_000]),
        Call { answer: None, import: "completion.complete".into(), ..call(3, "") },
    ];
    let mut last = None;
    for call in &calls {
        last = Some(journal.write(&lease, call.clone()));
    }
    // Earlier writes are durable once the last one is.
    committed(last.unwrap()).await;
    assert_eq!(journal.calls(id).await.unwrap(), calls);
    let journal = journal.reopened().await;
    assert_eq!(journal.calls(id).await.unwrap(), calls);
    assert_eq!(journal.show(id).await.unwrap().unwrap().calls, calls);
}

async fn replaces_an_intent_by_its_answer(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    let intent = Call { answer: None, ..call(0, "") };
    committed(journal.write(&lease, intent.clone())).await;
    assert_eq!(journal.calls(&lease.delivery).await.unwrap(), [intent]);
    for answer in [vec![1; 10], vec![2; 20_000], vec![3; 30_000], vec![4; 10]] {
        let answered = call(0, answer);
        committed(journal.write(&lease, answered.clone())).await;
        assert_eq!(journal.calls(&lease.delivery).await.unwrap(), [answered]);
    }
}

async fn forgets_calls_and_keeps_those_written_after(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    for number in 0..5 {
        let _ = journal.write(&lease, call(number, "before")).unwrap();
    }
    let _ = journal.forget(&lease, 2).unwrap();
    committed(journal.write(&lease, call(2, "after"))).await;
    let calls = journal.calls(&lease.delivery).await.unwrap();
    assert_eq!(calls, [call(0, "before"), call(1, "before"), call(2, "after")]);
}

async fn counts_the_calls_of_earlier_attempts(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.claimed("evt_1", 0).await;
    for number in 0..3 {
        let _ = journal.write(&first.lease, call(number, "answer")).unwrap();
    }
    journal.end(&first, retry(5), 5).await;
    assert_eq!(journal.take(1, 10).await.pop().unwrap().calls, 3);
}

async fn keeps_a_large_answer_while_a_call_has_it(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let answer = vec![9; 50_000];
    let first = journal.claimed("evt_1", 0).await.lease;
    let second = journal.claimed("evt_2", 1).await.lease;
    for lease in [&first, &second] {
        committed(journal.write(lease, call(0, answer.clone()))).await;
    }
    committed(journal.forget(&first, 0)).await;
    assert_eq!(journal.calls(&second.delivery).await.unwrap(), [call(0, answer.clone())]);
    committed(journal.forget(&second, 0)).await;
    committed(journal.write(&first, call(0, answer.clone()))).await;
    assert_eq!(journal.calls(&first.delivery).await.unwrap(), [call(0, answer)]);
}

/// Fencing: an attempt that lost its lease cannot change the calls of the next attempt.
async fn writes_nothing_under_a_stale_lease(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let first = journal.claimed("evt_1", 0).await;
    let id = first.id().clone();
    committed(journal.write(&first.lease, call(0, "first"))).await;
    let lost = async |lease: &Lease| {
        let intent = Call { answer: None, ..call(1, "") };
        for handle in [journal.write(lease, intent), journal.write(lease, call(0, "stale")), journal.forget(lease, 0)] {
            assert_eq!(handle.unwrap().durable().await, Err(JournalError::LeaseLost(id.clone())), "{lease:?}");
        }
        assert_eq!(journal.calls(&id).await.unwrap(), [call(0, "first")], "{lease:?}");
    };
    lost(&Lease { owner: "host-2".into(), ..first.lease.clone() }).await;
    lost(&Lease { attempt: 2, ..first.lease.clone() }).await;

    // The lease has expired, and the delivery is not claimed again yet.
    journal.at(10_000).reclaim(None).await.unwrap();
    lost(&first.lease).await;
    // The same host claims it again.
    let second = journal.take(1, 10_000).await.pop().unwrap();
    lost(&first.lease).await;
    // The failed writes of the stale attempt do not count as a gap in the calls of this attempt.
    committed(journal.write(&second.lease, call(1, "second"))).await;
    journal.end(&second, retry(0), 10_001).await;
    let third = journal.take(1, 10_002).await.pop().unwrap();
    committed(journal.forget(&third.lease, 1)).await;
    lost(&second.lease).await;
    journal.end(&third, modhost_storage::journal::Disposition::Completed, 10_003).await;
    lost(&third.lease).await;
}

async fn rejects_calls_of_an_unknown_delivery(engine: Engine) {
    let journal = TestJournal::new(engine).await;
    let unknown = DeliveryId::from_text("dlv_unknown");
    let result = journal.write(&lease(&unknown), call(0, "answer")).unwrap().durable().await;
    assert_eq!(result, Err(JournalError::LeaseLost(unknown.clone())));
    assert!(journal.calls(&unknown).await.unwrap().is_empty());
}

#[tokio::test]
async fn stores_a_large_answer_once() {
    let journal = TestJournal::sqlite().await;
    let answer: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    for number in 0..20 {
        let lease = journal.claimed(&format!("evt_{number}"), number).await.lease;
        committed(journal.write(&lease, call(0, answer.clone()))).await;
    }
    let directory = journal.directory.path().to_owned();
    journal.close().await.unwrap();
    let bytes = std::fs::metadata(directory.join("journal.sqlite")).unwrap().len();
    assert!(bytes < 2 * answer.len() as u64, "20 answers of a megabyte take {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_waits_to_write_and_rejects_too_many_pending_bytes() {
    let journal = TestJournal::sqlite().await;
    let lease = journal.claimed("evt_1", 0).await.lease;
    let answer: Vec<u8> = vec![5; 4 * 1024 * 1024];
    let mut accepted = Vec::new();
    let refused = loop {
        let number = accepted.len() as u32;
        // Each answer differs, so that each is written.
        let mut answer = answer.clone();
        answer[..4].copy_from_slice(&number.to_le_bytes());
        match journal.write(&lease, Call { number, answer: Some(answer), at: at(0), ..call(0, "") }) {
            Ok(written) if number < 1_000 => accepted.push(written),
            Ok(_) => return, // the disk is faster than this loop
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, JournalError::Storage(error) if error.kind == StorageErrorKind::Full), "{refused}");
    let count = accepted.len();
    for written in accepted {
        written.durable().await.unwrap();
    }
    assert_eq!(journal.calls(&lease.delivery).await.unwrap().len(), count);
    committed(journal.write(&lease, call(count as u32, answer))).await;
}
