//! A full disk is reported, no acknowledged write is lost, and the journal recovers once there is free space.

use modhost_storage::error::StorageErrorKind;
use modhost_storage::journal::{Filter, Journal, Recorded};

use crate::small_disk::SmallDisk;
use crate::support::{call, claim, committed, event, open, storage_error, to, try_open};

#[tokio::test(flavor = "multi_thread")]
async fn reports_a_full_disk_and_recovers() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let ballast = disk.ballast(4 * 1024 * 1024);
    let directory = disk.path().join("data");
    let journal = open(&directory).await;

    journal.record(event("evt_claimed"), vec![to(&event("evt_claimed"), "Echo")]).await.unwrap();
    let lease = journal.claim(claim("acme", 1)).await.unwrap().pop().unwrap().lease;
    let mut recorded = Vec::new();
    let error = loop {
        let event = event(&format!("evt_{}", recorded.len()));
        let delivery = to(&event, "Echo");
        match journal.record(event.clone(), vec![delivery.clone()]).await {
            Ok(Recorded::New { .. }) => recorded.push(delivery.id.clone()),
            Ok(Recorded::Duplicate) => panic!("{} was reported as a duplicate", event.id),
            Err(error) => break error,
        }
        let call = call(recorded.len() as u32 - 1, vec![7; 8_000]);
        if let Err(error) = journal.write(&lease, call).unwrap().durable().await {
            break error;
        }
        assert!(recorded.len() < 10_000, "the disk never fills up");
    };
    let (kind, text) = storage_error::<()>(Err(error));
    assert!(kind == StorageErrorKind::Full && text.contains(directory.to_str().unwrap()), "{text}");
    assert!(recorded.len() > 50, "{}", recorded.len());

    // While the disk is full, reads succeed, and each of many concurrent writes succeeds or reports the full disk.
    let refused = event("evt_refused");
    let attempts = (0..20).map(|_| journal.record(refused.clone(), vec![to(&refused, "Echo")]));
    for result in futures::future::join_all(attempts).await {
        assert!(result.is_ok() || storage_error(result).0 == StorageErrorKind::Full);
    }
    assert!(journal.list(Filter::default()).await.unwrap().len() >= recorded.len());

    std::fs::remove_file(ballast).unwrap();
    for number in 0..50 {
        let event = event(&format!("evt_after_{number}"));
        let delivery = to(&event, "Echo");
        recorded.push(delivery.id.clone());
        assert!(journal.record(event, vec![delivery]).await.unwrap().is_new());
    }
    journal.close().await.unwrap();

    let journal = open(&directory).await;
    let ids: Vec<_> = journal.list(Filter::default()).await.unwrap().into_iter().map(|it| it.id).collect();
    assert!(recorded.iter().all(|id| ids.contains(id)));
    journal.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_no_call_after_one_that_failed_on_a_full_disk() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let journal = open(&disk.path().join("data")).await;
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    journal.record(event, vec![delivery]).await.unwrap();
    let lease = journal.claim(claim("acme", 1)).await.unwrap().pop().unwrap().lease;
    let ballast = disk.ballast(5 * 1024 * 1024);

    committed(journal.write(&lease, call(0, "answer"))).await;
    let too_large = journal.write(&lease, call(1, vec![7; 6 * 1024 * 1024])).unwrap().durable().await;
    assert_eq!(storage_error(too_large).0, StorageErrorKind::Full);
    // There is space for this call, but an earlier one is missing.
    std::fs::remove_file(ballast).unwrap();
    let after_gap = journal.write(&lease, call(2, "answer")).unwrap().durable().await;
    assert_eq!(storage_error(after_gap).0, StorageErrorKind::Full);
    assert_eq!(journal.calls(&lease.delivery).await.unwrap(), [call(0, "answer")]);

    // The attempt can start over from the gap.
    let _ = journal.forget(&lease, 1).unwrap();
    committed(journal.write(&lease, call(1, "another"))).await;
    assert_eq!(journal.calls(&lease.delivery).await.unwrap(), [call(0, "answer"), call(1, "another")]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn reports_a_disk_too_small_for_a_new_journal() {
    let Some(disk) = SmallDisk::mount(1) else { return };
    let ballast = disk.ballast(1024 * 1024 - 64 * 1024);
    let (kind, text) = storage_error(try_open(&disk.path().join("data")).await.map(drop));
    assert_eq!(kind, StorageErrorKind::Full, "{text}");
    std::fs::remove_file(ballast).unwrap();
    open(&disk.path().join("data")).await.close().await.unwrap();
}
