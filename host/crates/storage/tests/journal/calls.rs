//! The calls of a delivery: in order, replaced and forgotten as asked, large answers once.

use modhost_core::event::DeliveryId;
use modhost_storage::journal::{Call, Journal, JournalError};

use crate::support::{Kept, at, call, retry};

#[tokio::test]
async fn calls_come_back_in_order_and_whole() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let calls = [
        call(0, "answer"),
        Call { answer: Some(Vec::new()), ..call(1, "") },
        call(2, vec![7; 100_000]),
        Call { answer: None, import: "completion.complete".into(), ..call(3, "") },
    ];
    let mut last = None;
    for call in &calls {
        last = Some(journal.write(&id, call.clone()).unwrap());
    }
    // What was written before is on disk with it.
    last.unwrap().on_disk().await.unwrap();
    assert_eq!(journal.calls(&id).await.unwrap(), calls);
    let journal = journal.reopened().await;
    assert_eq!(journal.calls(&id).await.unwrap(), calls);
    assert_eq!(journal.show(&id).await.unwrap().unwrap().calls, calls);
}

#[tokio::test]
async fn an_answer_takes_the_place_of_its_intent() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let intent = Call { answer: None, ..call(0, "") };
    journal.write(&id, intent.clone()).unwrap().on_disk().await.unwrap();
    assert_eq!(journal.calls(&id).await.unwrap(), [intent]);
    for answer in [vec![1; 10], vec![2; 20_000], vec![3; 30_000], vec![4; 10]] {
        let answered = call(0, answer);
        journal.write(&id, answered.clone()).unwrap().on_disk().await.unwrap();
        assert_eq!(journal.calls(&id).await.unwrap(), [answered]);
    }
}

#[tokio::test]
async fn what_is_forgotten_is_gone_and_what_is_written_after_it_stays() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    for number in 0..5 {
        let _ = journal.write(&id, call(number, "before")).unwrap();
    }
    let _ = journal.forget(&id, 2).unwrap();
    journal.write(&id, call(2, "after")).unwrap().on_disk().await.unwrap();
    assert_eq!(journal.calls(&id).await.unwrap(), [call(0, "before"), call(1, "before"), call(2, "after")]);
}

#[tokio::test]
async fn an_attempt_learns_how_many_calls_there_were_before_it() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let first = journal.take(1, 1).await.pop().unwrap();
    for number in 0..3 {
        let _ = journal.write(&id, call(number, "answer")).unwrap();
    }
    journal.end(&first, retry(10), 5).await;
    assert_eq!(journal.take(1, 10).await.pop().unwrap().calls, 3);
}

#[tokio::test]
async fn a_large_answer_is_stored_once() {
    let journal = Kept::new().await;
    let answer: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    for number in 0..20 {
        let id = journal.one(&format!("evt_{number}"), number).await;
        journal.write(&id, call(0, answer.clone())).unwrap().on_disk().await.unwrap();
    }
    let directory = journal.directory.path().to_owned();
    journal.close().await.unwrap();
    let bytes = std::fs::metadata(directory.join("journal.sqlite")).unwrap().len();
    assert!(bytes < 2 * answer.len() as u64, "20 answers of a megabyte take {bytes} bytes");
}

#[tokio::test]
async fn a_large_answer_stays_as_long_as_one_call_uses_it() {
    let journal = Kept::new().await;
    let answer = vec![9; 50_000];
    let first = journal.one("evt_1", 0).await;
    let second = journal.one("evt_2", 1).await;
    for id in [&first, &second] {
        journal.write(id, call(0, answer.clone())).unwrap().on_disk().await.unwrap();
    }
    journal.forget(&first, 0).unwrap().on_disk().await.unwrap();
    assert_eq!(journal.calls(&second).await.unwrap(), [call(0, answer.clone())]);
    journal.forget(&second, 0).unwrap().on_disk().await.unwrap();
    journal.write(&first, call(0, answer.clone())).unwrap().on_disk().await.unwrap();
    assert_eq!(journal.calls(&first).await.unwrap(), [call(0, answer)]);
}

#[tokio::test]
async fn a_call_of_no_delivery_is_an_error() {
    let journal = Kept::new().await;
    let unknown = DeliveryId::from_text("dlv_unknown");
    let ended = journal.write(&unknown, call(0, "answer")).unwrap().on_disk().await;
    assert!(matches!(ended, Err(JournalError::Broken(why)) if why.contains("dlv_unknown")));
    assert!(journal.calls(&unknown).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_never_waits_and_says_when_there_is_too_much() {
    let journal = Kept::new().await;
    let id = journal.one("evt_1", 0).await;
    let answer: Vec<u8> = vec![5; 4 * 1024 * 1024];
    let mut accepted = Vec::new();
    let refused = loop {
        let number = accepted.len() as u32;
        // Each its own, so that each has to be written.
        let mut answer = answer.clone();
        answer[..4].copy_from_slice(&number.to_le_bytes());
        match journal.write(&id, Call { number, answer: Some(answer), at: at(0), ..call(0, "") }) {
            Ok(written) if number < 1_000 => accepted.push(written),
            Ok(_) => return, // the disk is quicker than this loop
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, JournalError::Full(_)), "{refused}");
    let count = accepted.len();
    for written in accepted {
        written.on_disk().await.unwrap();
    }
    assert_eq!(journal.calls(&id).await.unwrap().len(), count);
    // There is room again.
    journal.write(&id, call(count as u32, answer)).unwrap().on_disk().await.unwrap();
}
