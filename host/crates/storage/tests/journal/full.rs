//! A full disk: said as such, nothing lost, and the journal works again once there is room.

use modhost_storage::journal::{Filter, Journal, JournalError, Recorded};

use crate::small_disk::SmallDisk;
use crate::support::{at, call, event, open, to, try_open};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_gets_over() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let ballast = disk.ballast(4 * 1024 * 1024);
    let directory = disk.path().join("data");
    let journal = open(&directory).await;

    let mut recorded = Vec::new();
    let error = loop {
        let event = event(&format!("evt_{}", recorded.len()));
        let delivery = to(&event, "Echo");
        match journal.record(event.clone(), vec![delivery.clone()], at(0)).await {
            Ok(Recorded::New) => recorded.push(delivery.id.clone()),
            Ok(Recorded::Duplicate) => panic!("{} was refused or new before", event.id),
            Err(error) => break error,
        }
        if let Err(error) = journal.write(&delivery.id, call(0, vec![7; 8_000])).unwrap().on_disk().await {
            break error;
        }
        assert!(recorded.len() < 10_000, "the disk never fills up");
    };
    assert!(matches!(&error, JournalError::Full(why) if why.contains(directory.to_str().unwrap())), "{error:?}");
    assert!(recorded.len() > 50, "{}", recorded.len());

    // It stays full, and it can still be read; many at once are each told.
    let refused = event("evt_refused");
    let tries = (0..20).map(|_| journal.record(refused.clone(), vec![to(&refused, "Echo")], at(1)));
    for ended in futures::future::join_all(tries).await {
        assert!(matches!(ended, Err(JournalError::Full(_)) | Ok(_)), "{ended:?}");
    }
    assert!(journal.list(Filter::default()).await.unwrap().len() >= recorded.len());

    std::fs::remove_file(ballast).unwrap();
    for number in 0..50 {
        let event = event(&format!("evt_after_{number}"));
        let delivery = to(&event, "Echo");
        recorded.push(delivery.id.clone());
        assert_eq!(journal.record(event, vec![delivery], at(2)).await.unwrap(), Recorded::New);
    }
    journal.close().await.unwrap();

    let journal = open(&directory).await;
    let there: Vec<_> = journal.list(Filter::default()).await.unwrap().into_iter().map(|it| it.id).collect();
    assert!(recorded.iter().all(|id| there.contains(id)));
    journal.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_written_after_one_that_found_no_room_are_not_on_disk_either() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let journal = open(&disk.path().join("data")).await;
    let event = event("evt_1");
    let delivery = to(&event, "Echo");
    journal.record(event, vec![delivery.clone()], at(0)).await.unwrap();
    let ballast = disk.ballast(5 * 1024 * 1024);

    journal.write(&delivery.id, call(0, "answer")).unwrap().on_disk().await.unwrap();
    let too_large = journal.write(&delivery.id, call(1, vec![7; 6 * 1024 * 1024])).unwrap();
    assert!(matches!(too_large.on_disk().await, Err(JournalError::Full(_))));
    // There is room for this one, but it stands on one that is missing.
    std::fs::remove_file(ballast).unwrap();
    assert!(matches!(
        journal.write(&delivery.id, call(2, "answer")).unwrap().on_disk().await,
        Err(JournalError::Full(_))
    ));
    assert_eq!(journal.calls(&delivery.id).await.unwrap(), [call(0, "answer")]);

    // Whoever starts over from there can.
    let _ = journal.forget(&delivery.id, 1).unwrap();
    journal.write(&delivery.id, call(1, "another")).unwrap().on_disk().await.unwrap();
    assert_eq!(journal.calls(&delivery.id).await.unwrap(), [call(0, "answer"), call(1, "another")]);
    journal.close().await.unwrap();
}

#[tokio::test]
async fn a_journal_that_cannot_be_made_for_want_of_room_says_so() {
    let Some(disk) = SmallDisk::mount(1) else { return };
    let ballast = disk.ballast(1024 * 1024 - 64 * 1024);
    let Err(error) = try_open(&disk.path().join("data")).await else { panic!("it opened") };
    assert!(matches!(error, JournalError::Full(_)), "{error:?}");
    std::fs::remove_file(ballast).unwrap();
    open(&disk.path().join("data")).await.close().await.unwrap();
}
