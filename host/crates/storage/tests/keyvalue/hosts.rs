//! Several hosts that use one store in PostgreSQL at the same time.

use std::sync::Arc;

use futures::future::join_all;
use modhost_storage::error::StorageErrorKind;
use modhost_storage::keyvalue::{Bucket, Change, Changed, KeyValue, KeyValueError, Postgres};

use crate::postgres_server::PostgresServer;
use crate::support::{UNLIMITED, bucket, get, once, open_in_postgres, quota, refused, set, space, storage_error};

fn increment(key: &str) -> Change {
    Change::Increment { key: key.into(), delta: 1 }
}

/// Opens a new store on this many hosts. Returns them with the URL of the database.
async fn hosts(count: usize) -> Option<(Vec<Arc<Postgres>>, String)> {
    let url = PostgresServer::shared()?.new_database();
    // At the same time: one of them creates the tables.
    let hosts = join_all((0..count).map(|_| open_in_postgres(&url))).await;
    Some((hosts.into_iter().map(Arc::new).collect(), url))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_two_hosts_make_with_one_key_is_applied_once() {
    let Some((hosts, _)) = hosts(2).await else { return };
    let change = |host: &Arc<Postgres>, number: u32| {
        let host = host.clone();
        tokio::spawn(async move {
            let key = format!("change-{number}");
            (number, host.change(&bucket("default"), increment("hits"), UNLIMITED, &key).await.unwrap())
        })
    };
    let changes = (0..100).flat_map(|number| hosts.iter().map(move |host| (host, number)));
    let changes: Vec<_> = changes.map(|(host, number)| change(host, number)).collect();
    let mut answers = vec![Vec::new(); 100];
    for done in join_all(changes).await {
        let (number, answer) = done.unwrap();
        answers[number as usize].push(answer);
    }
    assert_eq!(get(&*hosts[0], &bucket("default"), "hits").await, Some(b"100".to_vec()));
    assert!(answers.iter().all(|answers| answers[0] == answers[1]), "a repeated change must return its first answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosts_together_stay_within_the_quota() {
    let Some((hosts, _)) = hosts(3).await else { return };
    // Ten keys of one byte with values of 99 bytes.
    let quota = quota(1000);
    let writes = (0..60).map(|number: u32| {
        let host = hosts[number as usize % 3].clone();
        tokio::spawn(async move {
            // Different buckets of one space: the quota is that of the space.
            let key = char::from(b'0' + u8::try_from(number / 6).unwrap()).to_string();
            let change = Change::Set(vec![(key, vec![1; 99])]);
            host.change(&bucket(["b", "c"][number as usize % 2]), change, quota, &once()).await
        })
    });
    let results: Vec<_> = join_all(writes).await.into_iter().map(|write| write.unwrap()).collect();
    for result in &results {
        assert!(matches!(result, Ok(Changed::Done) | Err(KeyValueError::Refused(_))), "{result:?}");
    }
    let totals = hosts[0].buckets(&space("acme", "Echo")).await.unwrap();
    assert_eq!(
        (totals.iter().map(|it| it.keys).sum::<u64>(), totals.iter().map(|it| it.bytes).sum::<u64>()),
        (10, 1000)
    );
    // The recorded size is that of the rows: a key of one byte fits once a value is one byte smaller.
    let bucket = Bucket::new(space("acme", "Echo"), totals[0].name.clone()).unwrap();
    let one_more = || Change::Set(vec![("n".into(), Vec::new())]);
    refused(hosts[2].change(&bucket, one_more(), quota, &once()).await);
    let key = hosts[1].keys(&bucket, None, 1).await.unwrap().remove(0).key;
    hosts[1].change(&bucket, Change::Set(vec![(key, vec![1; 98])]), quota, &once()).await.unwrap();
    hosts[2].change(&bucket, one_more(), quota, &once()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_half_of_a_batch_of_another_host() {
    let Some((hosts, _)) = hosts(2).await else { return };
    let keys = || vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let write = |host: Arc<Postgres>, value: u8| async move {
        for _ in 0..40 {
            // In different orders.
            let mut entries: Vec<_> = keys().into_iter().map(|key| (key, vec![value])).collect();
            if value == 1 {
                entries.reverse();
            }
            host.change(&bucket("default"), Change::Set(entries), UNLIMITED, &once()).await.unwrap();
            let remove = Change::Delete(keys());
            host.change(&bucket("default"), remove, UNLIMITED, &once()).await.unwrap();
        }
    };
    let writers = [(0, 1), (1, 2)].map(|(host, value)| tokio::spawn(write(hosts[host].clone(), value)));
    while !writers.iter().all(|writer| writer.is_finished()) {
        let found = hosts[0].get(&bucket("default"), keys()).await.unwrap();
        let values: Vec<_> = found.into_iter().map(|entry| entry.map(|entry| entry.value.0)).collect();
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_host_forgets_the_key_of_a_change_that_another_made() {
    let Some((hosts, _)) = hosts(2).await else { return };
    let change = async |host: &Postgres, key: &str| {
        host.change(&bucket("default"), increment("hits"), UNLIMITED, key).await.unwrap()
    };
    assert_eq!(change(&hosts[0], "once").await, Changed::Counted(1));
    assert_eq!(change(&hosts[1], "once").await, Changed::Counted(1));
    hosts[1].forget_key("once");
    // With the next commit of that host, or when it stops.
    hosts[1].close().await.unwrap();
    assert_eq!(change(&hosts[0], "once").await, Changed::Counted(2));
}

#[tokio::test]
async fn keys_of_changes_that_nobody_reported_are_removed_once_they_are_old() {
    let Some((hosts, url)) = hosts(1).await else { return };
    for key in ["old", "young"] {
        hosts[0].change(&bucket("default"), increment("hits"), UNLIMITED, key).await.unwrap();
    }
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("UPDATE keyvalue_done SET at = now() - interval '31 days' WHERE once = 'old'").await.unwrap();
    let later = open_in_postgres(&url).await;
    let rows = client.query("SELECT once FROM keyvalue_done", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["young"]);
    assert_eq!(get(&later, &bucket("default"), "hits").await, Some(b"2".to_vec()));
}

#[tokio::test]
async fn reports_the_database_and_why_a_statement_failed() {
    let Some(server) = PostgresServer::shared() else { return };
    let url = server.new_database();
    let store = open_in_postgres(&url).await;
    set(&store, &bucket("default"), "a", "b").await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("DROP TABLE keyvalue_done").await.unwrap();
    let (kind, text) = storage_error(set(&store, &bucket("default"), "a", "c").await);
    assert_eq!(kind, StorageErrorKind::Broken);
    assert!(text.contains("the key-value store fails: database test_") && text.contains("keyvalue_done"), "{text}");
    assert_eq!(get(&store, &bucket("default"), "a").await, Some(b"b".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_of_a_tenant_that_wait_delay_no_other() {
    let Some((hosts, url)) = hosts(1).await else { return };
    let host = &hosts[0];
    set(&**host, &bucket("default"), "a", "b").await.unwrap();
    // Another host holds the lock of the tenant's space.
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT FROM keyvalue_spaces WHERE tenant = 'acme' FOR UPDATE").await.unwrap();
    let waiting = (0..40).map(|_| {
        let host = host.clone();
        tokio::spawn(async move { host.change(&bucket("default"), increment("hits"), UNLIMITED, &once()).await })
    });
    let waiting: Vec<_> = waiting.collect();
    let other = Bucket::new(space("globex", "Echo"), String::new()).unwrap();
    for number in 0..20 {
        set(&**host, &other, &number.to_string(), "value").await.unwrap();
    }
    assert!(waiting.iter().all(|change| !change.is_finished()));
    client.batch_execute("COMMIT").await.unwrap();
    for change in waiting {
        change.await.unwrap().unwrap();
    }
    assert_eq!(get(&**host, &bucket("default"), "hits").await, Some(b"40".to_vec()));
}
