//! Changes: each once, whole or not at all, within its bounds, and whoever else is at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use modhost_core::limits::{Limit, SetBy};
use modhost_storage::keyvalue::{Bucket, BucketTotals, Change, Changed, KeyValue, MAX_BUCKETS, MAX_KEYS, Version};

use crate::support::{ROOM, TestStore, bucket, get, once, refused, room, set, space};

fn increment(key: &str, delta: i64) -> Change {
    Change::Increment { key: key.into(), delta }
}

async fn version(store: &TestStore, key: &str) -> Option<Version> {
    store.get(&bucket("default"), vec![key.into()]).await.unwrap().pop().flatten().map(|entry| entry.version)
}

#[tokio::test]
async fn a_change_that_was_made_is_not_made_again() {
    let (mut store, default) = (TestStore::new().await, bucket("default"));
    let count = increment("hits", 1);
    assert_eq!(store.change(&default, count.clone(), ROOM, "once").await.unwrap(), Changed::Counted(1));
    store.change(&default, count.clone(), ROOM, "another").await.unwrap();
    // The answer is the one it had then, also after a restart.
    for _ in 0..2 {
        assert_eq!(store.change(&default, count.clone(), ROOM, "once").await.unwrap(), Changed::Counted(1));
        store = store.reopened().await;
    }
    assert_eq!(get(&store, &default, "hits").await, Some(b"2".to_vec()));

    // Once nobody can ask for it any more, the name is free.
    store.answered("once");
    store.change(&default, count.clone(), ROOM, "a third").await.unwrap();
    assert_eq!(store.change(&default, count, ROOM, "once").await.unwrap(), Changed::Counted(4));
}

#[tokio::test]
async fn an_old_value_does_not_come_back_with_a_set_that_was_made() {
    let (store, default) = (TestStore::new().await, bucket("default"));
    let old = Change::Set(vec![("a".into(), b"old".to_vec())]);
    store.change(&default, old.clone(), ROOM, "once").await.unwrap();
    set(&store, &default, "a", "new").await.unwrap();
    store.change(&default, old, ROOM, "once").await.unwrap();
    assert_eq!(get(&store, &default, "a").await, Some(b"new".to_vec()));
}

#[tokio::test]
async fn what_was_refused_may_be_asked_for_again() {
    let (store, default) = (TestStore::new().await, bucket("default"));
    let change = Change::Set(vec![("a".into(), vec![1; 1000])]);
    let why = refused(store.change(&default, change.clone(), room(1000), "once").await);
    assert!(why.contains("1001 B more") && why.contains("`limits.keyvalue`"), "{why}");
    assert_eq!(store.change(&default, change, room(1001), "once").await.unwrap(), Changed::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_lose_no_count() {
    let store = Arc::new(TestStore::new().await);
    let tasks = (0..40).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                // Of those that wait together, one that is refused spoils nothing for the others.
                if task % 8 == 0 {
                    let huge = Change::Set(vec![("small".into(), b"1".to_vec()), ("huge".into(), vec![0; 100])]);
                    refused(store.change(&bucket("default"), huge, room(50), &once()).await);
                } else {
                    store.change(&bucket("default"), increment("hits", 1), ROOM, &once()).await.unwrap();
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    assert_eq!(get(&store, &bucket("default"), "hits").await, Some(b"875".to_vec()));
    assert_eq!(get(&store, &bucket("default"), "small").await, None, "a refused change left a part of itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_that_swap_the_same_value_one_does() {
    let store = Arc::new(TestStore::new().await);
    let default = bucket("default");
    for round in 0..20_u8 {
        let expected = version(&store, "a").await;
        let swaps = (0..8).map(|_| {
            let (store, default) = (store.clone(), default.clone());
            let change = Change::Swap { key: "a".into(), expected, value: vec![round] };
            tokio::spawn(async move { store.change(&default, change, ROOM, &once()).await.unwrap() })
        });
        let ended: Vec<Changed> = join_all(swaps).await.into_iter().map(|ended| ended.unwrap()).collect();
        assert_eq!(ended.iter().filter(|ended| **ended == Changed::Done).count(), 1, "{ended:?}");
        let now = version(&store, "a").await;
        let stale = ended.iter().filter_map(|ended| match ended {
            Changed::Stale(entry) => entry.as_ref().map(|entry| entry.version),
            _ => None,
        });
        assert!(stale.into_iter().all(|seen| Some(seen) == now), "they are told what stands there by now");
    }
}

#[tokio::test]
async fn a_value_that_was_gone_in_between_is_another_one() {
    let (store, default) = (TestStore::new().await, bucket("default"));
    set(&store, &default, "a", "same").await.unwrap();
    let expected = version(&store, "a").await;
    store.change(&default, Change::Delete(vec!["a".into()]), ROOM, &once()).await.unwrap();
    let store = store.reopened().await;
    set(&store, &default, "a", "same").await.unwrap();
    let swap = Change::Swap { key: "a".into(), expected, value: b"other".to_vec() };
    assert!(matches!(store.change(&default, swap, ROOM, &once()).await.unwrap(), Changed::Stale(Some(_))));
}

#[tokio::test]
async fn only_whole_numbers_are_counted() {
    let (store, default) = (TestStore::new().await, bucket("default"));
    assert_eq!(store.change(&default, increment("n", -5), ROOM, &once()).await.unwrap(), Changed::Counted(-5));
    for text in ["many", "1.5", "", "9223372036854775808", " 1"] {
        set(&store, &default, "n", text).await.unwrap();
        assert!(refused(store.change(&default, increment("n", 1), ROOM, &once()).await).contains("no whole number"));
    }
    set(&store, &default, "n", i64::MAX.to_string()).await.unwrap();
    assert!(refused(store.change(&default, increment("n", 1), ROOM, &once()).await).contains("64 bits"));
    assert_eq!(get(&store, &default, "n").await, Some(i64::MAX.to_string().into_bytes()));
}

#[tokio::test]
async fn a_space_has_so_many_keys_and_buckets() {
    let store = TestStore::new().await;
    let entries = |from: u64, to: u64| Change::Set((from..to).map(|n| (n.to_string(), Vec::new())).collect());
    store.change(&bucket("default"), entries(0, MAX_KEYS), ROOM, &once()).await.unwrap();
    let why = refused(store.change(&bucket("other"), entries(0, 1), ROOM, &once()).await);
    assert!(why.contains("another key") && why.contains("100000"), "{why}");
    // What is there may still be changed, and others have their own.
    set(&store, &bucket("default"), "7", "seven").await.unwrap();
    let neighbour = Bucket::new(space("acme", "Other"), String::new()).unwrap();
    set(&store, &neighbour, "7", "seven").await.unwrap();

    for n in 0..MAX_BUCKETS - 1 {
        set(&store, &Bucket::new(space("acme", "Other"), format!("bucket-{n}")).unwrap(), "a", "b").await.unwrap();
    }
    let one_more = Bucket::new(space("acme", "Other"), "one-more".into()).unwrap();
    let why = refused(set(&store, &one_more, "a", "b").await);
    assert!(why.contains("`one-more`") && why.contains("100"), "{why}");
    store.change(&neighbour, Change::Delete(vec!["7".into()]), ROOM, &once()).await.unwrap();
    set(&store, &one_more, "a", "b").await.unwrap();
}

#[tokio::test]
async fn over_the_quota_there_is_only_less() {
    let (store, default) = (TestStore::new().await, bucket("default"));
    set(&store, &default, "a", vec![1; 5000]).await.unwrap();
    // The operator has lowered it.
    let set_to = |bytes| Change::Set(vec![("a".into(), vec![1; bytes])]);
    let why = refused(store.change(&default, set_to(5001), room(1000), &once()).await);
    assert!(why.contains("of the 1000 B that `limits.keyvalue` in modules.toml allows"), "{why}");
    for (set_by, setting) in
        [(SetBy::Tenant, "`limits.keyvalue` of the tenant"), (SetBy::Server, "`keyvalue` of [server.ceilings]")]
    {
        let why = refused(store.change(&default, set_to(5001), Limit { set_by, ..room(1000) }, &once()).await);
        assert!(why.contains(&format!("of the 1000 B that {setting} in modules.toml allows")), "{why}");
    }
    store.change(&default, set_to(4000), room(1000), &once()).await.unwrap();
    store.change(&default, Change::Delete(vec!["a".into()]), room(1000), &once()).await.unwrap();
    assert!(store.buckets(&space("acme", "Echo")).await.unwrap().is_empty());
}

#[tokio::test]
async fn keys_are_any_text_and_come_in_order() {
    let (store, default) = (TestStore::new().await, bucket("default"));
    let mut keys = ["", "a/b", "../..", "null\0byte", "größer", "Z", "a", "🦀", "'; DROP TABLE entries; --"];
    for key in keys {
        set(&store, &default, key, key).await.unwrap();
    }
    keys.sort_unstable();
    let mut told: Vec<String> = Vec::new();
    loop {
        let page = store.keys(&default, told.last().cloned(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.iter().all(|info| info.size == info.key.len() as u64));
        told.extend(page.into_iter().map(|info| info.key));
    }
    assert_eq!(told, keys);
    for key in keys {
        assert_eq!(get(&store, &default, key).await.as_deref(), Some(key.as_bytes()));
    }
}

/// Whatever is done in whatever order, the store says what a map says, and counts its bytes right.
#[tokio::test]
async fn it_says_what_a_map_says() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = TestStore::new().await;
    let mut model: BTreeMap<(&str, String), Vec<u8>> = BTreeMap::new();
    for _ in 0..600 {
        let name = ["default", "b", "c"][random.usize(..3)];
        let mut key = || format!("key-{}", random.u8(..12));
        let (one, two) = (key(), key());
        let value = vec![b'0'; random.usize(..40)];
        match random.u8(..10) {
            0..=4 => {
                let entries = vec![(one.clone(), value.clone()), (two.clone(), b"x".to_vec())];
                store.change(&bucket(name), Change::Set(entries.clone()), ROOM, &once()).await.unwrap();
                model.extend(entries.into_iter().map(|(key, value)| ((name, key), value)));
            }
            5..=7 => {
                store
                    .change(&bucket(name), Change::Delete(vec![one.clone(), two.clone()]), ROOM, &once())
                    .await
                    .unwrap();
                model.remove(&(name, one));
                model.remove(&(name, two));
            }
            8 => {
                let expected = model.get(&(name, one.clone())).cloned();
                let seen = store.get(&bucket(name), vec![one.clone()]).await.unwrap().pop().flatten();
                assert_eq!(seen.as_ref().map(|entry| &entry.value.0), expected.as_ref());
                let expected = seen.map(|entry| entry.version);
                let swap = Change::Swap { key: one.clone(), expected, value: value.clone() };
                assert_eq!(store.change(&bucket(name), swap, ROOM, &once()).await.unwrap(), Changed::Done);
                model.insert((name, one), value);
            }
            _ if random.u8(..) < 30 => store = store.reopened().await,
            _ => {}
        }
    }
    let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for ((name, key), value) in &model {
        let (keys, bytes) = totals.entry(name).or_default();
        *keys += 1;
        *bytes += (key.len() + value.len()) as u64;
        assert_eq!(get(&store, &bucket(name), key).await.as_ref(), Some(value));
    }
    let expected =
        totals.iter().map(|(name, (keys, bytes))| BucketTotals { name: (*name).into(), keys: *keys, bytes: *bytes });
    let expected: Vec<_> = expected.collect();
    assert_eq!(store.buckets(&space("acme", "Echo")).await.unwrap(), expected);

    // The sum that the quota goes by is the same: one byte more than it is refused, that many are not.
    let bytes: u64 = totals.values().map(|(_, bytes)| bytes).sum();
    let one_more = Change::Set(vec![("n".into(), Vec::new())]);
    refused(store.change(&bucket("default"), one_more.clone(), room(bytes), &once()).await);
    store.change(&bucket("default"), one_more, room(bytes + 1), &once()).await.unwrap();
}
