//! Kills the host at random moments under continuous load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::audit::{Expected, RepeatedCalls, Surplus, answered};
use super::faulty_platform::{FaultyPlatform, Question};
use super::harness::PATIENCE;
use super::host::{Config, Host, TENANT};

/// The number of kills, unless `MODHOST_CHAOS_ROUNDS` is set.
const ROUNDS: u32 = 6;

/// After this many kills all deliveries complete and the results are compared.
const AUDIT_EVERY: u32 = 20;

/// The maximum time between start and kill.
const MAX_LIFE: Duration = Duration::from_millis(1500);

/// The number of clients that post events.
const CLIENTS: u64 = 4;

/// The number of concurrent deliveries, each of which may have a call in flight when the host is killed.
pub const CONCURRENCY: usize = 16;

/// The modules, the messages for them, and the expected parts of an answer.
const TALK: [(&str, &str, Expected); 3] = [
    ("Assistant", "How many days of parental leave do I have?", Expected { steps: 2, new_messages: 0 }),
    ("Test", "create A note", Expected { steps: 0, new_messages: 1 }),
    ("Test", "complete-into-reply travel expenses", Expected { steps: 0, new_messages: 0 }),
];

/// An event that was posted to a host.
pub struct PostedEvent {
    pub question: Question,
    pub expected: Expected,
    pub acknowledged: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated() {
    let rounds = rounds().unwrap_or(ROUNDS);
    let mut random = random(rounds);

    // Every kill uses up an attempt of the running deliveries; with few attempts, some would be dead after hours.
    let often = "retry = { attempts = 1000 }";
    let config = Config::new()
        .server(&format!("concurrency = {CONCURRENCY}"))
        .module("Assistant", "assistant", often)
        .module("Test", "test_guest", often);
    let faulty_platform = Arc::new(FaultyPlatform::start(&["Assistant", "Test"]).await);
    let hosts: Arc<[Host]> = Arc::new([config.lay_out(&faulty_platform)]);
    let host = &hosts[0];
    let mut life = 0;
    while life < rounds {
        let kills = AUDIT_EVERY.min(rounds - life);
        let posted_events = kill_again_and_again(&faulty_platform, &hosts, &mut random, kills).await;
        life += kills;
        host.start().await;
        come_to_rest(host).await;
        // The life after the last kill is one more.
        compare(&faulty_platform, host, &posted_events, kills, life + life.div_ceil(AUDIT_EVERY)).await;
        host.kill();
        faulty_platform.forget();
    }
}

/// The number of kills to make, if `MODHOST_CHAOS_ROUNDS` sets it.
pub fn rounds() -> Option<u32> {
    number("MODHOST_CHAOS_ROUNDS").map(|rounds| rounds.try_into().unwrap())
}

/// A generator with the seed of `MODHOST_CHAOS_SEED`, or a random one, which it prints.
pub fn random(rounds: u32) -> fastrand::Rng {
    let seed = number("MODHOST_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {rounds} rounds");
    fastrand::Rng::with_seed(seed)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Clients that post events to hosts, each to any of them.
pub struct Clients {
    enough: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Vec<PostedEvent>>>,
}

impl Clients {
    /// Starts posting.
    pub fn start(faulty_platform: &Arc<FaultyPlatform>, hosts: &Arc<[Host]>, random: &mut fastrand::Rng) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let tasks = (0..CLIENTS).map(|_| {
            let (faulty_platform, hosts, enough) = (faulty_platform.clone(), hosts.clone(), enough.clone());
            tokio::spawn(client(faulty_platform, hosts, enough, random.fork()))
        });
        Self { tasks: tasks.collect(), enough }
    }

    /// Stops posting; returns the posted events.
    pub async fn stop(self) -> Vec<PostedEvent> {
        self.enough.store(true, Ordering::Relaxed);
        let mut posted_events = Vec::new();
        for client in self.tasks {
            posted_events.extend(client.await.unwrap());
        }
        posted_events
    }
}

/// Starts and kills the host this many times while clients post; returns the posted events.
async fn kill_again_and_again(
    faulty_platform: &Arc<FaultyPlatform>,
    hosts: &Arc<[Host]>,
    random: &mut fastrand::Rng,
    kills: u32,
) -> Vec<PostedEvent> {
    let clients = Clients::start(faulty_platform, hosts, random);
    let host = &hosts[0];
    for _ in 0..kills {
        host.spawn();
        // Sometimes the host is killed before it accepts an event.
        if random.u8(..) > 50 {
            host.listening().await;
        }
        tokio::time::sleep(MAX_LIFE.mul_f64(random.f64())).await;
        host.kill();
    }
    clients.stop().await
}

/// Posts events until `enough` is set. Posts each event until it is acknowledged, except for some that it abandons.
async fn client(
    faulty_platform: Arc<FaultyPlatform>,
    hosts: Arc<[Host]>,
    enough: Arc<AtomicBool>,
    mut random: fastrand::Rng,
) -> Vec<PostedEvent> {
    let mut posted_events = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let (module, text, expected) = TALK[random.usize(..TALK.len())];
        let question = faulty_platform.ask(module, text, None).await;
        let mut acknowledged = post_event(any(&hosts, &mut random), &question).await;
        while !acknowledged && !enough.load(Ordering::Relaxed) && random.u8(..) > 10 {
            tokio::time::sleep(Duration::from_millis(random.u64(5..30))).await;
            acknowledged = post_event(any(&hosts, &mut random), &question).await;
        }
        if acknowledged && random.u8(..) < 50 {
            // A redelivery, as by a platform whose connection broke before the response.
            post_event(any(&hosts, &mut random), &question).await;
        }
        posted_events.push(PostedEvent { question, expected, acknowledged });
        tokio::time::sleep(Duration::from_millis(random.u64(10..60))).await;
    }
    posted_events
}

fn any<'a>(hosts: &'a [Host], random: &mut fastrand::Rng) -> &'a Host {
    &hosts[random.usize(..hosts.len())]
}

/// Posts an event; returns whether it was acknowledged.
async fn post_event(host: &Host, question: &Question) -> bool {
    let Some(posted) = host.post_to(TENANT, &question.event).await else { return false };
    assert!(posted.is_acknowledged() || posted.status == 503, "{posted:?}");
    posted.is_acknowledged()
}

/// Waits until no delivery waits or runs, for as long as there is progress.
pub async fn come_to_rest(host: &Host) {
    let (mut known, mut since) = (None, Instant::now());
    loop {
        let deliveries = host.totals().await["deliveries"].clone();
        if deliveries["waiting"] == 0 && deliveries["running"] == 0 {
            return;
        }
        if known.replace(deliveries.clone()).as_ref() != Some(&deliveries) {
            since = Instant::now();
        }
        assert!(since.elapsed() < PATIENCE, "no progress: {deliveries}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Compares the acknowledged events with their deliveries, and the calls with the state of the platform.
async fn compare(
    faulty_platform: &FaultyPlatform,
    host: &Host,
    posted_events: &[PostedEvent],
    kills: u32,
    last_life: u32,
) {
    let (surplus, acknowledged) = check_answers(faulty_platform, host, posted_events).await;
    let seen = faulty_platform.seen();
    let repeated = RepeatedCalls::among(&seen, last_life);
    let again = usize::try_from(host.totals().await["calls_made_again"].as_u64().unwrap()).unwrap();
    println!(
        "{} events, {acknowledged} acknowledged, {} calls, {kills} kills; {} calls made twice, in flight each: {repeated:?}; \
         {again} made again by the last life",
        posted_events.len(),
        seen.len(),
        repeated.effects(),
    );
    let in_flight = usize::try_from(kills).unwrap() * CONCURRENCY;
    assert!(repeated.effects() <= in_flight, "{repeated:?}");
    assert_eq!(surplus, Surplus { steps: repeated.steps, messages: repeated.messages }, "{repeated:?}");
    // The host counts every call without a recorded answer, including those that had not left the host.
    assert!((repeated.in_last_life..=in_flight).contains(&again), "{again} counted: {repeated:?}");
}

/// Checks that every acknowledged event has one delivery, which is completed and answered. Returns what the platform has
/// more than the answers, and the number of acknowledged events.
pub async fn check_answers(
    faulty_platform: &FaultyPlatform,
    host: &Host,
    posted_events: &[PostedEvent],
) -> (Surplus, usize) {
    let mut surplus = Surplus::default();
    let mut acknowledged = 0;
    for PostedEvent { question, expected, acknowledged: was_acknowledged } in posted_events {
        let deliveries = host.deliveries_of(question.id()).await;
        acknowledged += usize::from(*was_acknowledged);
        match deliveries.as_slice() {
            [] => {
                assert!(!was_acknowledged, "the acknowledged {question:?} is lost");
                assert_eq!(faulty_platform.messages(&question.chat).await.len(), 2, "{question:?}");
                continue;
            }
            [delivery] => assert_eq!(delivery["state"], "completed", "{delivery}"),
            extra => panic!("one event, several deliveries: {extra:?}"),
        }
        let extra = answered(faulty_platform, question, *expected).await;
        surplus.steps += extra.steps;
        surplus.messages += extra.messages;
    }
    assert!(acknowledged > 0, "no event was acknowledged, so the test proves nothing");
    (surplus, acknowledged)
}
