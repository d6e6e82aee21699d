//! Several hosts that share one record in PostgreSQL.

use std::time::Duration;

use futures::future::join_all;
use modhost_storage::versions::{
    ContentHash, Fact, HeldBack, Keep, NoteError, Offer, Origin, Postgres, Progress, Tally, Versions,
};
use tempfile::TempDir;

use crate::postgres_server::PostgresServer;
use crate::support::{KEEP, by, component, deployed, echo, keep, note, open_in_postgres, serves, version};

/// Hosts that share a record.
struct Hosts {
    url: String,
    directory: TempDir,
    hosts: Vec<Postgres>,
}

impl Hosts {
    async fn new(count: usize) -> Option<Self> {
        let (url, directory) = (PostgresServer::shared()?.new_database(), TempDir::new().unwrap());
        let mut all = Self { url, directory, hosts: Vec::new() };
        all.hosts = join_all((0..count).map(|number| all.open(number))).await;
        Some(all)
    }

    async fn open(&self, number: usize) -> Postgres {
        let name = format!("host-{number}");
        let directory = self.directory.path().join(&name);
        std::fs::create_dir_all(&directory).unwrap();
        open_in_postgres(&self.url, &name, &directory, KEEP).await
    }

    async fn refresh(&self) {
        for host in &self.hosts {
            host.refresh().await.unwrap();
        }
    }

    /// What the registry of a host does when its file contains a version. Returns whether that offered it.
    async fn file_has(&self, host: usize, number: u8) -> bool {
        let host = &self.hosts[host];
        loop {
            host.refresh().await.unwrap();
            let state = host.module_state(&echo());
            if host.offer(&echo(), version(number)).await.unwrap() == Offer::Known {
                return false;
            }
            if state.held_back.is_some_and(|held_back| held_back.hash == version(number)) {
                return false;
            }
            match host.note(&echo(), state.epoch, deployed(number)).await {
                Ok(_) => return true,
                Err(NoteError::Conflict) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn serving(&self) -> ContentHash {
        self.refresh().await;
        let serving = self.hosts.iter().map(|host| host.module_state(&echo()).serving.unwrap().hash);
        let serving: Vec<_> = serving.collect();
        assert!(serving.iter().all(|hash| *hash == serving[0]), "{serving:?}");
        serving[0]
    }
}

fn tally(canary_runs: u64, canary_failed: u64, stable_runs: u64, stable_failed: u64) -> Tally {
    Tally { canary_runs, canary_failed, stable_runs, stable_failed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_host_learns_once_what_another_has_changed() {
    let Some(all) = Hosts::new(2).await else { return };
    let [a, b] = &all.hosts[..] else { unreachable!() };
    note(a, vec![serves(1), Fact::Paused(Some(by("ann")))]).await.unwrap();
    assert_eq!(b.module_state(&echo()).serving, None);
    assert_eq!(b.refresh().await.unwrap(), [echo()]);
    assert_eq!(b.module_state(&echo()), a.module_state(&echo()));
    assert!(b.refresh().await.unwrap().is_empty() && a.refresh().await.unwrap().is_empty());
    // A refusal changes nothing that others have to follow.
    note(a, vec![Fact::Refused { hash: version(2), reason: "it traps".into() }]).await.unwrap();
    assert!(b.refresh().await.unwrap().is_empty());
    assert_eq!(b.module_state(&echo()).epoch, a.module_state(&echo()).epoch);
    assert!(a.poll_every().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_conflict_brings_the_new_state_and_is_followed() {
    let Some(all) = Hosts::new(2).await else { return };
    let [a, b] = &all.hosts[..] else { unreachable!() };
    note(a, vec![serves(1)]).await.unwrap();
    assert_eq!(note(b, vec![serves(2)]).await, Err(NoteError::Conflict));
    assert_eq!(b.module_state(&echo()).serving.map(|entry| entry.hash), Some(version(1)));
    assert_eq!(b.refresh().await.unwrap(), [echo()], "a change that a conflict has shown must be followed, too");
    // A pause is no conflict, and is followed as well.
    note(a, vec![Fact::Paused(Some(by("ann")))]).await.unwrap();
    note(b, vec![serves(2)]).await.unwrap();
    assert_eq!(b.module_state(&echo()).paused, Some(by("ann")));
    assert_eq!(b.refresh().await.unwrap(), [echo()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_host_decides_and_the_others_follow() {
    let Some(all) = Hosts::new(3).await else { return };
    note(&all.hosts[0], vec![serves(0), Fact::CanaryStarted { hash: version(1) }]).await.unwrap();
    all.refresh().await;
    let promoted = || vec![Fact::CanaryEnded { reason: "it did well".into() }, serves(1)];
    let results = join_all(all.hosts.iter().map(|host| note(host, promoted()))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    assert_eq!(all.serving().await, version(1));
    assert_eq!(all.hosts[0].history(&echo()).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_deploy_swaps_once() {
    let Some(all) = Hosts::new(3).await else { return };
    let mut offers = Vec::new();
    for number in [1, 2] {
        for host in 0..3 {
            offers.push(all.file_has(host, number).await);
            assert_eq!(all.serving().await, version(number), "a host with an older file brought its version back");
            // The files of the others have not changed.
            for (other, older) in (host + 1..3).filter(|_| number == 2).map(|other| (other, 1)) {
                assert!(!all.file_has(other, older).await);
            }
        }
    }
    assert_eq!(offers, [true, false, false, true, false, false]);
    assert_eq!(all.hosts[0].history(&echo()).await.unwrap().len(), 2);

    // The next deploy overtakes one that has not reached all hosts.
    assert!(all.file_has(0, 3).await);
    assert!(all.file_has(0, 4).await);
    for host in [1, 2] {
        assert!(!all.file_has(host, 3).await && !all.file_has(host, 4).await);
    }
    assert_eq!(all.serving().await, version(4));

    // Deploying an old file goes back, once as well.
    assert!(all.file_has(1, 2).await);
    assert!(!all.file_has(0, 2).await && !all.file_has(2, 2).await);
    assert_eq!(all.serving().await, version(2));
    // And forward again.
    assert!(all.file_has(2, 4).await);
    assert!(!all.file_has(1, 4).await && !all.file_has(0, 4).await);
    assert_eq!(all.serving().await, version(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rollback_holds_on_all_hosts() {
    let Some(mut all) = Hosts::new(3).await else { return };
    for (host, number) in [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2)] {
        all.file_has(host, number).await;
    }
    let why = || "ann went back from it".to_owned();
    let held_back = Fact::HeldBack(Some(HeldBack { hash: version(2), why: why() }));
    let rollback = Fact::Serves { hash: version(1), origin: Origin::Rollback, by: Some("ann".into()) };
    note(&all.hosts[1], vec![held_back, rollback]).await.unwrap();
    all.refresh().await;
    // The deploy reaches the last host only now, one host starts again, and another has lost its data directory.
    assert!(!all.file_has(2, 2).await);
    all.hosts[0] = all.open(0).await;
    assert!(!all.file_has(0, 2).await);
    for number in [1, 2] {
        let fresh = all.open(usize::from(6 + number)).await;
        assert_eq!(fresh.offer(&echo(), version(number)).await.unwrap(), Offer::Known);
    }
    assert_eq!(all.serving().await, version(1));
    // A file that no host had before ends it.
    assert!(all.file_has(2, 3).await);
    assert_eq!(all.serving().await, version(3));
    assert!(!all.file_has(0, 3).await && !all.file_has(1, 3).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_stays_offered_until_its_fate_is_recorded() {
    let Some(all) = Hosts::new(2).await else { return };
    let [a, b] = &all.hosts[..] else { unreachable!() };
    all.file_has(0, 1).await;
    all.file_has(1, 1).await;
    // The host is killed while it compiles.
    assert_eq!(a.offer(&echo(), version(2)).await.unwrap(), Offer::New);
    let a = all.open(0).await;
    assert_eq!(a.offer(&echo(), version(2)).await.unwrap(), Offer::New);
    assert_eq!(b.offer(&echo(), version(2)).await.unwrap(), Offer::New);
    let facts = vec![Fact::Offered { hash: version(2) }, Fact::Refused { hash: version(2), reason: "it traps".into() }];
    a.refresh().await.unwrap();
    note(&a, facts).await.unwrap();
    for host in [&a, b] {
        assert_eq!(host.offer(&echo(), version(2)).await.unwrap(), Offer::Known, "no host needs to try it again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_version_is_new_while_none_serves() {
    let Some(all) = Hosts::new(2).await else { return };
    let refused =
        vec![Fact::Offered { hash: version(1) }, Fact::Refused { hash: version(1), reason: "it traps".into() }];
    note(&all.hosts[0], refused).await.unwrap();
    for host in &all.hosts {
        assert_eq!(host.offer(&echo(), version(1)).await.unwrap(), Offer::New);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_results_of_all_hosts_count() {
    let Some(mut all) = Hosts::new(3).await else { return };
    note(&all.hosts[0], vec![serves(1), Fact::CanaryStarted { hash: version(2) }]).await.unwrap();
    all.refresh().await;
    let trial = all.hosts[0].module_state(&echo()).canary.unwrap().id;
    let seconds = Duration::from_secs;
    let counts = all.hosts.iter().map(async |host| {
        for second in 1..=20 {
            host.count_trial(&echo(), trial, tally(1, 0, 2, 1), seconds(second)).await.unwrap();
        }
    });
    join_all(counts).await;
    let all_of_them = Progress { observed: seconds(20), tally: tally(60, 0, 120, 60) };
    assert_eq!(all.hosts[1].count_trial(&echo(), trial, Tally::default(), seconds(3)).await.unwrap(), all_of_them);
    // The next life of a host adds to what the one before has counted.
    all.hosts[2] = all.open(2).await;
    assert_eq!(all.hosts[2].module_state(&echo()).progress, all_of_them);
    let counted = all.hosts[2].count_trial(&echo(), trial, tally(1, 1, 0, 0), seconds(21)).await.unwrap();
    assert_eq!(counted, Progress { observed: seconds(21), tally: tally(61, 1, 120, 60) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_component_reaches_the_other_hosts_in_parts() {
    let Some(all) = Hosts::new(2).await else { return };
    let [a, b] = &all.hosts[..] else { unreachable!() };
    let bytes: Vec<u8> = (0..(5 << 19) + 17_u32).map(|number| (number % 251) as u8).collect();
    let hash = ContentHash::of(&bytes);
    assert_eq!(b.component(hash).await.unwrap(), None);
    // Two hosts have the same file.
    let (kept, also) = tokio::join!(a.keep(hash, bytes.clone().into()), b.keep(hash, bytes.clone().into()));
    kept.and(also).unwrap();
    note(a, vec![Fact::Serves { hash, origin: Origin::File, by: None }]).await.unwrap();
    let fresh = all.open(2).await;
    assert_eq!(fresh.component(hash).await.unwrap(), Some(bytes.clone()));
    let copy = all.directory.path().join("host-2/versions-cache").join(format!("{}.wasm", hash.to_hex()));
    assert_eq!(std::fs::read(copy).unwrap(), bytes, "the host must keep a copy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_damaged_component_in_the_database_is_removed_and_can_be_kept_again() {
    let Some(all) = Hosts::new(2).await else { return };
    let [a, b] = &all.hosts[..] else { unreachable!() };
    keep(a, 1).await;
    note(a, vec![serves(1)]).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&all.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("UPDATE component_parts SET bytes = '\\x00'").await.unwrap();
    assert_eq!(b.component(version(1)).await.unwrap(), None);
    keep(a, 1).await;
    assert_eq!(b.component(version(1)).await.unwrap(), Some(component(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_one_host_keeps_is_not_removed_by_another_before_it_is_recorded() {
    let Some(all) = Hosts::new(1).await else { return };
    let small = Keep { of_module: 1, bytes: 1 << 20 };
    let directory = all.directory.path().join("small");
    std::fs::create_dir_all(&directory).unwrap();
    let (a, b) = (&all.hosts[0], open_in_postgres(&all.url, "small", &directory, small).await);
    keep(a, 1).await;
    for number in 2..5 {
        keep(&b, number).await;
        note(&b, vec![serves(number)]).await.unwrap();
    }
    assert_eq!(b.component(version(1)).await.unwrap(), Some(component(1)));
    a.refresh().await.unwrap();
    note(a, vec![serves(1)]).await.unwrap();
    b.refresh().await.unwrap();
    for number in 5..7 {
        keep(&b, number).await;
        note(&b, vec![serves(number)]).await.unwrap();
    }
    assert_eq!(a.history(&echo()).await.unwrap().iter().filter(|entry| entry.has_component).count(), 2);
}
