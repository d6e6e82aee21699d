//! Tests of several hosts that share one record of versions in PostgreSQL: whatever happens to a version is decided once, and
//! every host follows. Each host is a registry with a file and a data directory of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use modhost_core::clock::SystemClock;
use modhost_core::event::{DeliveryId, Name};
use modhost_core::limits::Limits;
use modhost_core::secret::Secret;
use modhost_runtime::engine::{CanaryPolicy, Engine, Registry, Spec, Status, SwapPolicy};
use modhost_storage::journal::Memory;
use modhost_storage::postgres::Database;
use modhost_storage::versions::{ContentHash, Entry, Keep, Origin, Postgres, PostgresHost, Role, Versions};
use tempfile::TempDir;

use super::harness::{small, until};
use super::postgres_server::PostgresServer;

/// Hosts that share a database.
struct Cluster {
    url: String,
    folder: TempDir,
    swap: SwapPolicy,
    hosts: Vec<Arc<Host>>,
}

struct Host {
    registry: Registry,
    versions: Arc<dyn Versions>,
    file: PathBuf,
}

fn test() -> Name {
    Name::from("Test")
}

fn hash(text: &str) -> ContentHash {
    ContentHash::of(&small(text))
}

impl Cluster {
    /// Starts hosts whose files contain a version.
    async fn new(count: usize, swap: SwapPolicy, text: &str) -> Option<Self> {
        let url = PostgresServer::shared()?.new_database();
        let mut cluster = Self { url, folder: TempDir::new().unwrap(), swap, hosts: Vec::new() };
        for number in 0..count {
            cluster.write(number, text);
            let host = cluster.start(number).await;
            cluster.hosts.push(host);
        }
        Some(cluster)
    }

    fn directory(&self, number: usize) -> PathBuf {
        let directory = self.folder.path().join(format!("host-{number}"));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn write(&self, number: usize, text: &str) {
        std::fs::write(self.directory(number).join("module.wasm"), small(text)).unwrap();
    }

    /// Starts a life of a host, and waits until it serves a version.
    async fn start(&self, number: usize) -> Arc<Host> {
        static LIVES: AtomicU32 = AtomicU32::new(0);
        let directory = self.directory(number);
        let file = directory.join("module.wasm");
        let host = PostgresHost {
            name: format!("host-{number}"),
            owner: format!("life-{}", LIVES.fetch_add(1, Ordering::Relaxed)).into(),
            directory,
        };
        let database = Database::new(&Secret::new(&self.url)).unwrap();
        let keep = Keep { of_module: 10, bytes: 1 << 20 };
        let versions: Arc<dyn Versions> = Arc::new(Postgres::open(&database, host, keep).await.unwrap());
        let journal = Arc::new(Memory::new(Arc::new(SystemClock), [0; 32]));
        let registry = Registry::new(Engine::new(4).unwrap(), versions.clone(), journal);
        let host = Host { registry, versions, file };
        host.registry.set(vec![self.spec(&host)], || ());
        host.registry.wait_until_loaded().await;
        Arc::new(host)
    }

    /// Replaces the file of a host.
    fn deploy(&self, number: usize, text: &str) {
        self.write(number, text);
        let host = &self.hosts[number];
        host.registry.refresh(&BTreeSet::from([host.file.clone()]));
    }

    /// Waits until each host is in a state.
    async fn all(&self, what: &str, is: impl Fn(&Status) -> bool) {
        until(what, async || {
            for host in &self.hosts {
                host.registry.refresh_from_record().await.unwrap();
            }
            self.hosts.iter().all(|host| is(&host.status())).then_some(())
        })
        .await;
    }

    /// Waits until each host serves a version, and only that.
    async fn all_serve(&self, text: &str) {
        self.all(&format!("{text} on all hosts"), |status| {
            status.version == Some(hash(text)) && status.canary.is_none()
        })
        .await;
    }

    /// Lets each host do what there is to do, and checks that all serve a version afterwards.
    async fn all_stay(&self, text: &str) {
        for host in &self.hosts {
            host.registry.refresh_from_record().await.unwrap();
            // Its file is read again after this, and its reload is done.
            let spec = Spec { tenants: vec!["acme".into()], ..self.spec(host) };
            host.registry.set(vec![spec], || ());
            host.registry.set(vec![self.spec(host)], || ());
        }
        self.all_serve(text).await;
        assert_eq!(self.served().await.last().map(|(served, _)| *served), Some(hash(text)));
    }

    fn spec(&self, host: &Host) -> Spec {
        Spec {
            name: test(),
            tenants: Vec::new(),
            component: host.file.clone(),
            limits: Limits::default(),
            grants: Default::default(),
            swap: self.swap,
        }
    }

    async fn history(&self) -> Vec<Entry> {
        self.hosts[0].versions.history(&test()).await.unwrap()
    }

    /// Returns what served, oldest first.
    async fn served(&self) -> Vec<(ContentHash, Origin)> {
        let mut history = self.history().await;
        history.retain(|entry| entry.role == Role::Serving);
        history.iter().rev().map(|entry| (entry.hash, entry.origin)).collect()
    }
}

impl Host {
    fn status(&self) -> Status {
        self.registry.status_of(&test()).unwrap()
    }

    /// Runs deliveries, of which each host gets those with its own numbers, and counts their results.
    fn run(&self, numbers: std::ops::Range<u32>, well: impl Fn(ContentHash) -> bool) {
        for number in numbers {
            let delivery = DeliveryId::from_text(format!("dlv_{number}"));
            let chosen = self.registry.choose(&test(), &delivery, SystemTime::now()).unwrap();
            chosen.ended(well(chosen.version.hash()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_deploy_swaps_once() {
    let Some(cluster) = Cluster::new(3, SwapPolicy::default(), "one").await else { return };
    cluster.all_serve("one").await;
    for number in 0..3 {
        cluster.deploy(number, "two");
        // The files of the hosts after it still contain the version before.
        cluster.all_serve("two").await;
        cluster.all_stay("two").await;
    }
    assert_eq!(cluster.served().await, [(hash("one"), Origin::File), (hash("two"), Origin::File)]);
    // Deploying the file before goes back, once.
    for number in [2, 0, 1] {
        cluster.deploy(number, "one");
        cluster.all_serve("one").await;
        cluster.all_stay("one").await;
    }
    assert_eq!(cluster.served().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_that_starts_serves_what_the_others_do() {
    let Some(mut cluster) = Cluster::new(2, SwapPolicy::default(), "one").await else { return };
    cluster.deploy(0, "two");
    cluster.all_serve("two").await;
    // A restart with the file of the version before, and a new host with it.
    cluster.hosts[1] = cluster.start(1).await;
    cluster.write(2, "one");
    let third = cluster.start(2).await;
    cluster.hosts.push(third);
    for host in &cluster.hosts {
        assert_eq!(host.status().version, Some(hash("two")));
    }
    // A restart with a file that is new.
    cluster.write(1, "three");
    cluster.hosts[1] = cluster.start(1).await;
    cluster.all_serve("three").await;
    cluster.all_stay("three").await;
    let served: Vec<_> = cluster.served().await.into_iter().map(|(hash, _)| hash).collect();
    assert_eq!(served, ["one", "two", "three"].map(hash));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_holds_on_all_hosts() {
    let Some(mut cluster) = Cluster::new(3, SwapPolicy::default(), "one").await else { return };
    for number in [0, 1] {
        cluster.deploy(number, "two");
        cluster.all_serve("two").await;
    }
    // The deploy has not reached the last host.
    cluster.hosts[1].registry.rollback(&test(), "ann").await.unwrap();
    cluster.all_serve("one").await;
    cluster
        .all("a version that is held back", |status| status.held_back.as_ref().is_some_and(|it| it.hash == hash("two")))
        .await;
    cluster.deploy(2, "two");
    cluster.all_stay("one").await;
    cluster.hosts[0] = cluster.start(0).await;
    cluster.all_stay("one").await;
    // An operator of any host ends it.
    cluster.hosts[2].registry.unpin(&test(), "bob").await.unwrap();
    cluster.all_serve("two").await;
    cluster.all("no version that is held back", |status| status.held_back.is_none()).await;
    let served = cluster.served().await;
    assert_eq!(
        served,
        [
            (hash("one"), Origin::File),
            (hash("two"), Origin::File),
            (hash("one"), Origin::Rollback),
            (hash("two"), Origin::File)
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_operations_on_several_hosts_are_decided_one_after_the_other() {
    let Some(cluster) = Cluster::new(2, SwapPolicy::default(), "one").await else { return };
    for text in ["two", "three"] {
        cluster.deploy(0, text);
        cluster.all_serve(text).await;
    }
    // Two rollbacks go back two versions, whichever hosts they are requested on.
    let [a, b] = &cluster.hosts[..] else { unreachable!() };
    let module = test();
    let (one, other) = tokio::join!(a.registry.rollback(&module, "ann"), b.registry.rollback(&module, "bob"));
    one.unwrap();
    other.unwrap();
    cluster.all_serve("one").await;
    assert_eq!(cluster.served().await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pin_and_pause_apply_to_all_hosts() {
    let Some(mut cluster) = Cluster::new(2, SwapPolicy::default(), "one").await else { return };
    cluster.deploy(0, "two");
    cluster.all_serve("two").await;
    cluster.hosts[0].registry.pin(&test(), &hash("one").to_hex()[..12], "ann").await.unwrap();
    cluster.hosts[1].registry.pause(&test(), "bob").await.unwrap();
    cluster.all_serve("one").await;
    cluster.all("a pause", |status| status.paused.as_ref().is_some_and(|it| it.by == "bob")).await;
    assert!(cluster.hosts.iter().all(|host| host.registry.is_blocked(&test())));
    cluster.deploy(1, "three");
    cluster.all_stay("one").await;
    cluster.hosts[1] = cluster.start(1).await;
    assert_eq!(cluster.hosts[1].status().version, Some(hash("one")));
    assert!(cluster.hosts[1].registry.is_blocked(&test()));

    cluster.hosts[1].registry.resume(&test(), "bob").await.unwrap();
    cluster.hosts[0].registry.unpin(&test(), "ann").await.unwrap();
    cluster.all("no pause", |status| status.paused.is_none()).await;
    assert!(cluster.hosts.iter().all(|host| !host.registry.is_blocked(&test())));
    // The file of the other host has changed meanwhile.
    cluster.all_serve("three").await;
}

fn canary(min_deliveries: u32) -> SwapPolicy {
    // Its time is over at once: the evidence decides.
    SwapPolicy { replay: 0, canary: Some(CanaryPolicy { percent: 50, period: Duration::ZERO, min_deliveries }) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_is_promoted_on_the_results_of_all_hosts() {
    let Some(cluster) = Cluster::new(3, canary(20), "one").await else { return };
    cluster.deploy(1, "two");
    cluster
        .all("a canary on all hosts", |status| status.canary.as_ref().is_some_and(|it| it.version == hash("two")))
        .await;
    // Each delivery gets the same version on every host.
    for number in 0..40 {
        let delivery = DeliveryId::from_text(format!("dlv_{number}"));
        let now = SystemTime::now();
        let chosen = cluster.hosts.iter().map(|host| host.registry.choose(&test(), &delivery, now).unwrap());
        let chosen: BTreeSet<_> = chosen.map(|chosen| chosen.version.hash()).collect();
        assert_eq!(chosen.len(), 1);
    }
    // No host alone has enough results.
    for (number, host) in (0..).zip(&cluster.hosts) {
        host.run(number * 30..(number + 1) * 30, |_| true);
    }
    cluster.all_serve("two").await;
    cluster.all_stay("two").await;
    assert_eq!(cluster.served().await, [(hash("one"), Origin::File), (hash("two"), Origin::Canary)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_that_fails_on_another_host_is_rolled_back_everywhere() {
    let Some(mut cluster) = Cluster::new(2, canary(1000), "one").await else { return };
    cluster.deploy(0, "two");
    cluster.all("a canary on all hosts", |status| status.canary.is_some()).await;
    cluster.hosts[1].run(0..100, |version| version == hash("one"));
    cluster.all_serve("one").await;
    cluster.all("the reason", |status| status.held_back.as_ref().is_some_and(|it| it.is_failed_trial())).await;
    cluster.deploy(1, "two");
    cluster.all_stay("one").await;
    cluster.hosts[0] = cluster.start(0).await;
    cluster.all_stay("one").await;
    let trials = cluster.history().await.into_iter().filter(|entry| entry.role == Role::Canary).count();
    assert_eq!(trials, 1, "no host may try it again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_is_ended_by_an_operator_of_another_host() {
    let Some(mut cluster) = Cluster::new(2, canary(1000), "one").await else { return };
    cluster.deploy(0, "two");
    cluster.all("a canary on all hosts", |status| status.canary.is_some()).await;
    // A host that starts takes part.
    cluster.hosts[1] = cluster.start(1).await;
    cluster.all("a canary on all hosts", |status| status.canary.is_some()).await;
    cluster.hosts[1].registry.abort(&test(), "ann").await.unwrap();
    cluster.all_serve("one").await;
    cluster.hosts[1].registry.promote(&test(), "ann").await.unwrap_err();

    cluster.deploy(1, "three");
    cluster
        .all("a canary on all hosts", |status| status.canary.as_ref().is_some_and(|it| it.version == hash("three")))
        .await;
    cluster.hosts[0].registry.promote(&test(), "bob").await.unwrap();
    cluster.all_serve("three").await;
    cluster.all_stay("three").await;
    assert_eq!(cluster.served().await, [(hash("one"), Origin::File), (hash("three"), Origin::Canary)]);
}
