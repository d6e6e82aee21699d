//! Changes: idempotent, atomic, limited, and correct under concurrency.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use modhost_core::limits::{Limit, LimitSource};
use modhost_storage::keyvalue::{Bucket, BucketTotals, Change, Changed, MAX_BUCKETS, MAX_KEYS, Version};

use crate::support::{Engine, TestStore, UNLIMITED, bucket, get, on_every_engine, once, quota, refused, set, space};

on_every_engine! {
    applies_a_change_once_per_idempotency_key,
    repeated_set_does_not_restore_an_old_value,
    refused_change_can_be_retried,
    concurrent_increments_lose_no_update,
    exactly_one_of_concurrent_swaps_succeeds,
    swap_fails_after_the_value_was_deleted_and_set_again,
    increments_only_whole_numbers,
    limits_the_keys_and_buckets_of_a_space,
    allows_only_shrinking_changes_above_the_quota,
    lists_keys_of_any_text_in_byte_order,
    matches_a_map_under_random_operations,
}

fn increment(key: &str, delta: i64) -> Change {
    Change::Increment { key: key.into(), delta }
}

async fn version(store: &TestStore, key: &str) -> Option<Version> {
    store.get(&bucket("default"), vec![key.into()]).await.unwrap().pop().flatten().map(|entry| entry.version)
}

async fn applies_a_change_once_per_idempotency_key(engine: Engine) {
    let (mut store, default) = (TestStore::new(engine).await, bucket("default"));
    let count = increment("hits", 1);
    assert_eq!(store.change(&default, count.clone(), UNLIMITED, "once").await.unwrap(), Changed::Counted(1));
    store.change(&default, count.clone(), UNLIMITED, "another").await.unwrap();
    // A repeated change returns its first answer, also after a restart.
    for _ in 0..2 {
        assert_eq!(store.change(&default, count.clone(), UNLIMITED, "once").await.unwrap(), Changed::Counted(1));
        store = store.reopened().await;
    }
    assert_eq!(get(&*store, &default, "hits").await, Some(b"2".to_vec()));

    // Once the key is reported as answered, it is forgotten with the next commit.
    store.forget_key("once");
    store.change(&default, count.clone(), UNLIMITED, "a third").await.unwrap();
    assert_eq!(store.change(&default, count, UNLIMITED, "once").await.unwrap(), Changed::Counted(4));
}

async fn repeated_set_does_not_restore_an_old_value(engine: Engine) {
    let (store, default) = (TestStore::new(engine).await, bucket("default"));
    let old = Change::Set(vec![("a".into(), b"old".to_vec())]);
    store.change(&default, old.clone(), UNLIMITED, "once").await.unwrap();
    set(&*store, &default, "a", "new").await.unwrap();
    store.change(&default, old, UNLIMITED, "once").await.unwrap();
    assert_eq!(get(&*store, &default, "a").await, Some(b"new".to_vec()));
}

async fn refused_change_can_be_retried(engine: Engine) {
    let (store, default) = (TestStore::new(engine).await, bucket("default"));
    let change = Change::Set(vec![("a".into(), vec![1; 1000])]);
    let why = refused(store.change(&default, change.clone(), quota(1000), "once").await);
    assert!(why.contains("1001 B more") && why.contains("`limits.keyvalue`"), "{why}");
    assert_eq!(store.change(&default, change, quota(1001), "once").await.unwrap(), Changed::Done);
}

async fn concurrent_increments_lose_no_update(engine: Engine) {
    let store = Arc::new(TestStore::new(engine).await);
    let tasks = (0..40).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                // A refused change does not affect the others in its transaction.
                if task % 8 == 0 {
                    let huge = Change::Set(vec![("small".into(), b"1".to_vec()), ("huge".into(), vec![0; 100])]);
                    refused(store.change(&bucket("default"), huge, quota(50), &once()).await);
                } else {
                    store.change(&bucket("default"), increment("hits", 1), UNLIMITED, &once()).await.unwrap();
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    assert_eq!(get(&**store, &bucket("default"), "hits").await, Some(b"875".to_vec()));
    assert_eq!(get(&**store, &bucket("default"), "small").await, None, "a refused change was applied in part");
}

async fn exactly_one_of_concurrent_swaps_succeeds(engine: Engine) {
    let store = Arc::new(TestStore::new(engine).await);
    let default = bucket("default");
    for round in 0..20_u8 {
        let expected = version(&store, "a").await;
        let swaps = (0..8).map(|_| {
            let (store, default) = (store.clone(), default.clone());
            let change = Change::Swap { key: "a".into(), expected, value: vec![round] };
            tokio::spawn(async move { store.change(&default, change, UNLIMITED, &once()).await.unwrap() })
        });
        let results: Vec<Changed> = join_all(swaps).await.into_iter().map(|result| result.unwrap()).collect();
        assert_eq!(results.iter().filter(|result| **result == Changed::Done).count(), 1, "{results:?}");
        let now = version(&store, "a").await;
        let stale = results.iter().filter_map(|result| match result {
            Changed::Stale(entry) => entry.as_ref().map(|entry| entry.version),
            _ => None,
        });
        assert!(stale.into_iter().all(|seen| Some(seen) == now), "a failed swap must return the current entry");
    }
}

async fn swap_fails_after_the_value_was_deleted_and_set_again(engine: Engine) {
    let (store, default) = (TestStore::new(engine).await, bucket("default"));
    set(&*store, &default, "a", "same").await.unwrap();
    let expected = version(&store, "a").await;
    store.change(&default, Change::Delete(vec!["a".into()]), UNLIMITED, &once()).await.unwrap();
    let store = store.reopened().await;
    set(&*store, &default, "a", "same").await.unwrap();
    let swap = Change::Swap { key: "a".into(), expected, value: b"other".to_vec() };
    assert!(matches!(store.change(&default, swap, UNLIMITED, &once()).await.unwrap(), Changed::Stale(Some(_))));
}

async fn increments_only_whole_numbers(engine: Engine) {
    let (store, default) = (TestStore::new(engine).await, bucket("default"));
    assert_eq!(store.change(&default, increment("n", -5), UNLIMITED, &once()).await.unwrap(), Changed::Counted(-5));
    for text in ["many", "1.5", "", "9223372036854775808", " 1"] {
        set(&*store, &default, "n", text).await.unwrap();
        assert!(
            refused(store.change(&default, increment("n", 1), UNLIMITED, &once()).await).contains("not a whole number")
        );
    }
    set(&*store, &default, "n", i64::MAX.to_string()).await.unwrap();
    assert!(refused(store.change(&default, increment("n", 1), UNLIMITED, &once()).await).contains("64 bits"));
    assert_eq!(get(&*store, &default, "n").await, Some(i64::MAX.to_string().into_bytes()));
}

async fn limits_the_keys_and_buckets_of_a_space(engine: Engine) {
    let store = TestStore::new(engine).await;
    let entries = |from: u64, to: u64| Change::Set((from..to).map(|n| (n.to_string(), Vec::new())).collect());
    store.change(&bucket("default"), entries(0, MAX_KEYS), UNLIMITED, &once()).await.unwrap();
    let why = refused(store.change(&bucket("other"), entries(0, 1), UNLIMITED, &once()).await);
    assert!(why.contains("another key") && why.contains("100000"), "{why}");
    // Existing keys can still be changed, and other modules have their own limits.
    set(&*store, &bucket("default"), "7", "seven").await.unwrap();
    let other_module = Bucket::new(space("acme", "Other"), String::new()).unwrap();
    set(&*store, &other_module, "7", "seven").await.unwrap();

    for n in 0..MAX_BUCKETS - 1 {
        set(&*store, &Bucket::new(space("acme", "Other"), format!("bucket-{n}")).unwrap(), "a", "b").await.unwrap();
    }
    let one_more = Bucket::new(space("acme", "Other"), "one-more".into()).unwrap();
    let why = refused(set(&*store, &one_more, "a", "b").await);
    assert!(why.contains("`one-more`") && why.contains("100"), "{why}");
    store.change(&other_module, Change::Delete(vec!["7".into()]), UNLIMITED, &once()).await.unwrap();
    set(&*store, &one_more, "a", "b").await.unwrap();
}

async fn allows_only_shrinking_changes_above_the_quota(engine: Engine) {
    let (store, default) = (TestStore::new(engine).await, bucket("default"));
    set(&*store, &default, "a", vec![1; 5000]).await.unwrap();
    // The operator lowers the quota below the current size.
    let set_to = |bytes| Change::Set(vec![("a".into(), vec![1; bytes])]);
    let why = refused(store.change(&default, set_to(5001), quota(1000), &once()).await);
    assert!(why.contains("of the 1000 B that `limits.keyvalue` in modules.toml allows"), "{why}");
    for (set_by, setting) in [
        (LimitSource::Tenant, "`limits.keyvalue` of the tenant"),
        (LimitSource::Server, "`keyvalue` of [server.ceilings]"),
    ] {
        let why = refused(store.change(&default, set_to(5001), Limit { set_by, ..quota(1000) }, &once()).await);
        assert!(why.contains(&format!("of the 1000 B that {setting} in modules.toml allows")), "{why}");
    }
    store.change(&default, set_to(4000), quota(1000), &once()).await.unwrap();
    store.change(&default, Change::Delete(vec!["a".into()]), quota(1000), &once()).await.unwrap();
    assert!(store.buckets(&space("acme", "Echo")).await.unwrap().is_empty());
}

async fn lists_keys_of_any_text_in_byte_order(engine: Engine) {
    let (store, default) = (TestStore::new(engine).await, bucket("default"));
    let mut keys = ["", "a/b", "../..", "null\0byte", "größer", "Z", "a", "🦀", "'; DROP TABLE entries; --"];
    for key in keys {
        set(&*store, &default, key, key).await.unwrap();
    }
    keys.sort_unstable();
    let mut listed: Vec<String> = Vec::new();
    loop {
        let page = store.keys(&default, listed.last().cloned(), 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.iter().all(|info| info.size == info.key.len() as u64));
        listed.extend(page.into_iter().map(|info| info.key));
    }
    assert_eq!(listed, keys);
    for key in keys {
        assert_eq!(get(&*store, &default, key).await.as_deref(), Some(key.as_bytes()));
    }
}

/// After random operations, the store has the same content as a map, and the correct totals.
async fn matches_a_map_under_random_operations(engine: Engine) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = TestStore::new(engine).await;
    let mut model: BTreeMap<(&str, String), Vec<u8>> = BTreeMap::new();
    for _ in 0..600 {
        let name = ["default", "b", "c"][random.usize(..3)];
        let mut key = || format!("key-{}", random.u8(..12));
        let (one, two) = (key(), key());
        let value = vec![b'0'; random.usize(..40)];
        match random.u8(..10) {
            0..=4 => {
                let entries = vec![(one.clone(), value.clone()), (two.clone(), b"x".to_vec())];
                store.change(&bucket(name), Change::Set(entries.clone()), UNLIMITED, &once()).await.unwrap();
                model.extend(entries.into_iter().map(|(key, value)| ((name, key), value)));
            }
            5..=7 => {
                store
                    .change(&bucket(name), Change::Delete(vec![one.clone(), two.clone()]), UNLIMITED, &once())
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
                assert_eq!(store.change(&bucket(name), swap, UNLIMITED, &once()).await.unwrap(), Changed::Done);
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
        assert_eq!(get(&*store, &bucket(name), key).await.as_ref(), Some(value));
    }
    let expected =
        totals.iter().map(|(name, (keys, bytes))| BucketTotals { name: (*name).into(), keys: *keys, bytes: *bytes });
    let expected: Vec<_> = expected.collect();
    assert_eq!(store.buckets(&space("acme", "Echo")).await.unwrap(), expected);

    // The quota is checked against the same total: a key of one byte fits only if the quota is one byte larger.
    let bytes: u64 = totals.values().map(|(_, bytes)| bytes).sum();
    let one_more = Change::Set(vec![("n".into(), Vec::new())]);
    refused(store.change(&bucket("default"), one_more.clone(), quota(bytes), &once()).await);
    store.change(&bucket("default"), one_more, quota(bytes + 1), &once()).await.unwrap();
}
