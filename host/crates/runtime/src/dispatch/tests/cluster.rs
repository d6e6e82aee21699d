//! Several hosts on one journal: they share the work, one of them has each duty, and none acts on a lease that another
//! host could have taken over.

use tokio::sync::watch;

use super::journal::{Op, Point};
use super::*;
use crate::call_log::RELY_FOR;
use crate::dispatch::leases::{LEASE, SHARED_HEARTBEAT_EVERY};
use modhost_storage::journal::{Claim, NewDelivery};

/// How often the hosts look for deliveries of others.
const POLL: Duration = Duration::from_millis(250);

/// A journal that hosts share, and its clock.
struct Shared {
    clock: Arc<ManualClock>,
    memory: Arc<Memory>,
}

impl Shared {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)));
        let memory = Arc::new(Memory::shared(clock.clone(), [7; 32]));
        Self { clock, memory }
    }

    /// Starts a host with a connection of its own.
    async fn host(&self, name: &str) -> TestHost {
        self.host_with(host_info(name), Setup::default()).await
    }

    async fn host_with(&self, info: HostInfo, setup: Setup) -> TestHost {
        let journal = Arc::new(GatedJournal::shared(self.memory.clone()));
        let host = TestHost::in_cluster(setup, self.clock.clone(), journal.clone(), journal, info).await;
        host.dispatcher.run();
        host.settle().await;
        host
    }

    /// Records an event for a module, as a host without that module's settings would not.
    async fn record(&self, event: &Event, module: &str) -> DeliveryId {
        let id = DeliveryId::new(event, &module.into());
        let new = NewDelivery { id: id.clone(), module: module.into(), ordered_chat: None, lease: None };
        self.memory.record(Arc::new(event.clone()), vec![new]).await.unwrap();
        id
    }

    /// Moves the clock in steps that no timer of a host is longer than.
    async fn pass(&self, hosts: &[&TestHost], time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(POLL);
            self.clock.advance(step);
            for host in hosts {
                host.settle().await;
            }
            left -= step;
        }
    }
}

impl TestHost {
    /// Cuts the host off from the storage: what it asks from now on is never answered.
    fn cut_off(&self) {
        self.journal.decide_by(Some(Box::new(|_, _, _| {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            std::mem::forget(sender);
            super::journal::Pass::Wait(receiver)
        })));
    }

    /// Lets what the host asks from now on fail at once.
    fn fail_all(&self) {
        self.journal.decide_by(Some(Box::new(|_, _, _| super::journal::Pass::Fail)));
    }

    fn reconnect(&self) {
        self.journal.decide_by(None);
    }

    fn owner(&self) -> Arc<str> {
        self.dispatcher.owner()
    }
}

#[tokio::test]
async fn runs_deliveries_that_another_host_recorded() {
    let shared = Shared::new();
    let (one, other) = (shared.host("host-1").await, shared.host("host-2").await);
    one.modules.pause("Echo");
    let delivery = one.accepted(&event("evt_1", "Echo")).await;
    shared.pass(&[&one, &other], POLL).await;
    other.end(&delivery, answered()).await;
    let details = other.details(&delivery).await;
    assert_eq!((details.summary.state, &*details.attempts[0].owner), (State::Completed, &*other.owner()));
    assert!(one.modules.history().is_empty());
}

/// The storage answers nothing any more: neither the heartbeat nor any other operation.
#[tokio::test]
async fn a_host_that_is_cut_off_stops_before_another_takes_over() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let delivery = one.accepted(&question("evt_1", "Echo")).await;
    one.running(&delivery).await;
    let other = shared.host("host-2").await;
    let hosts = [&one, &other];
    shared.pass(&hosts, SHARED_HEARTBEAT_EVERY).await;
    let attempt = one.modules.attempt_of(&delivery).unwrap();
    one.cut_off();
    let mut stopped_after = None;
    let mut time = Duration::ZERO;
    while other.modules.running().is_empty() {
        assert!(time < LEASE + SHARED_HEARTBEAT_EVERY * 2, "not taken over");
        if stopped_after.is_none() && one.modules.running().is_empty() {
            stopped_after = Some(time);
            assert!(attempt.call_log.check_may_leave().is_err());
            assert_eq!(shared.memory.reclaim(None).await.unwrap(), 0, "nobody could take it over yet");
        }
        shared.pass(&hosts, POLL).await;
        time += POLL;
    }
    let stopped_after = stopped_after.expect("the host that is cut off stopped first");
    assert!(stopped_after >= RELY_FOR - SHARED_HEARTBEAT_EVERY && stopped_after < LEASE, "{stopped_after:?}");
    assert_eq!(one.platform.calls(), 0, "only the other host notifies the user");
    other.end(&delivery, failed(Retry::No)).await;
    assert_eq!(other.state(&delivery).await, State::Dead);
}

/// Whenever the connection breaks, the host stops before its lease can be reclaimed: the watchdog counts from when the
/// last confirmed heartbeat was sent, and heartbeats take their time, too.
#[tokio::test]
async fn stops_before_its_lease_can_be_reclaimed_whenever_it_is_cut_off() {
    for quarter in 0..44 {
        let shared = Shared::new();
        let one = shared.host("host-1").await;
        let delivery = one.accepted(&event("evt_1", "Echo")).await;
        one.running(&delivery).await;
        let held = one.journal.hold(Op::Heartbeat, Point::After);
        shared.pass(&[&one], POLL * quarter).await;
        drop(held);
        one.cut_off();
        let lease = one.dispatcher.0.membership.lease();
        let mut steps = 0;
        while shared.memory.reclaim(None).await.unwrap() == 0 {
            assert!(steps < 200);
            steps += 1;
            shared.pass(&[&one], POLL).await;
        }
        assert!(!lease.holds(), "cut off after {quarter} quarters of a second");
        assert!(one.modules.running().is_empty());
    }
}

/// The machine was suspended: no timer fires while its clock runs on.
#[tokio::test]
async fn calls_do_not_leave_a_machine_that_was_suspended() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let delivery = one.accepted(&question("evt_1", "Echo")).await;
    one.running(&delivery).await;
    let attempt = one.modules.attempt_of(&delivery).unwrap();
    attempt.call_log.check_may_leave().unwrap();
    shared.clock.advance(RELY_FOR);
    assert!(attempt.call_log.check_may_leave().is_err(), "before any task of the host runs again");
}

#[tokio::test]
async fn a_host_that_reconnects_begins_a_new_life() {
    let shared = Shared::new();
    let (one, other) = (shared.host("host-1").await, shared.host("host-2").await);
    other.modules.pause("Echo");
    let delivery = one.accepted(&event("evt_1", "Echo")).await;
    one.running(&delivery).await;
    let before = one.owner();
    one.fail_all();
    shared.pass(&[&one, &other], RELY_FOR + Duration::from_secs(1)).await;
    assert!(one.modules.running().is_empty());
    one.reconnect();
    shared.pass(&[&one, &other], Duration::from_secs(2)).await;
    assert_ne!(one.owner(), before);
    one.end(&delivery, answered()).await;
    let details = one.details(&delivery).await;
    assert_eq!((details.summary.state, details.attempts[0].number), (State::Completed, 2));
}

/// Another host marked this one as gone although its own clock disagrees.
#[tokio::test]
async fn a_host_that_was_marked_as_gone_begins_a_new_life() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let delivery = one.accepted(&event("evt_1", "Echo")).await;
    one.running(&delivery).await;
    let mut twin = host_info("host-1");
    twin.owner = "twin".into();
    assert_eq!(shared.memory.join(&twin, LEASE).await.unwrap(), [one.owner()]);
    assert!(shared.memory.leave("twin").await.is_ok());
    let before = one.owner();
    shared.pass(&[&one], SHARED_HEARTBEAT_EVERY).await;
    assert_ne!(one.owner(), before);
    one.end(&delivery, answered()).await;
    assert_eq!(one.details(&delivery).await.attempts[0].number, 2);
}

#[tokio::test]
async fn a_host_that_was_killed_and_restarted_takes_its_work_back_at_once() {
    let shared = Shared::new();
    let killed = shared.host("host-1").await;
    let delivery = killed.accepted(&event("evt_1", "Echo")).await;
    killed.running(&delivery).await;
    killed.cut_off();
    let again = shared.host("host-1").await;
    again.end(&delivery, answered()).await;
    assert_eq!(again.details(&delivery).await.attempts[0].number, 2);
    let hosts = shared.memory.hosts().await.unwrap();
    let alive: Vec<_> = hosts.iter().filter(|host| host.is_alive).map(|host| host.info.owner.clone()).collect();
    assert_eq!(alive, [again.owner()]);
}

#[tokio::test]
async fn a_claim_that_returns_after_the_lease_starts_nothing() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let held = one.journal.hold(Op::Claim, Point::After);
    let delivery = shared.record(&event("evt_1", "Echo"), "Echo").await;
    shared.pass(&[&one], POLL).await;
    assert_eq!(one.state(&delivery).await, State::Running);
    one.fail_all();
    shared.pass(&[&one], RELY_FOR + Duration::from_secs(1)).await;
    held.release();
    one.settle().await;
    assert!(one.modules.history().is_empty());
    one.reconnect();
    shared.pass(&[&one], Duration::from_secs(40)).await;
    one.end(&delivery, answered()).await;
    assert_eq!(one.state(&delivery).await, State::Completed);
}

#[tokio::test]
async fn gives_back_a_delivery_whose_claim_was_lost() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    one.journal.fail(Op::Claim, Point::After, None);
    let delivery = shared.record(&event("evt_1", "Echo"), "Echo").await;
    shared.pass(&[&one], POLL).await;
    one.journal.recover();
    assert_eq!(one.state(&delivery).await, State::Running);
    shared.pass(&[&one], SHARED_HEARTBEAT_EVERY * 2 + POLL).await;
    one.end(&delivery, answered()).await;
    assert_eq!(one.details(&delivery).await.attempts[0].number, 1, "an attempt that never began doesn't count");
}

/// The attempt has ended, and its outcome reaches the journal late: nothing is given back meanwhile.
#[tokio::test]
async fn gives_back_nothing_that_is_being_completed() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let delivery = one.accepted(&event("evt_1", "Echo")).await;
    let held = one.journal.hold(Op::Complete, Point::Before);
    one.end(&delivery, answered()).await;
    shared.pass(&[&one], SHARED_HEARTBEAT_EVERY * 4).await;
    assert_eq!(one.journal.started(Op::Unclaim, None), 0);
    held.release();
    one.settle().await;
    assert_eq!(one.state(&delivery).await, State::Completed);
    assert_eq!(one.modules.history().len(), 1);
}

/// An attempt whose outcome could not be recorded counts: its lease expires.
#[tokio::test]
async fn an_outcome_that_was_not_recorded_is_not_given_back() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let delivery = one.accepted(&event("evt_1", "Echo")).await;
    one.journal.fail(Op::Complete, Point::Before, None);
    one.end(&delivery, answered()).await;
    one.journal.recover();
    shared.pass(&[&one], LEASE + SHARED_HEARTBEAT_EVERY).await;
    one.end(&delivery, answered()).await;
    assert_eq!(one.details(&delivery).await.attempts[0].number, 2);
}

#[tokio::test]
async fn leaves_modules_that_it_lacks_to_other_hosts() {
    let shared = Shared::new();
    let with = |name: &str, modules: &[&str]| HostInfo {
        modules: modules.iter().map(|module| Name::from(*module)).collect(),
        settings: modules.join(" "),
        ..host_info(name)
    };
    let one = shared.host_with(with("host-1", &["Echo"]), Setup::default()).await;
    let both = Setup { modules: vec![module("Echo"), module("Other")], ..Setup::default() };
    let other = shared.host_with(with("host-2", &["Echo", "Other"]), both).await;
    other.modules.pause("Other");
    let hosts = [&one, &other];
    shared.pass(&hosts, SHARED_HEARTBEAT_EVERY).await;
    let delivery = shared.record(&event("evt_1", "Other"), "Other").await;
    shared.pass(&hosts, Duration::from_secs(10)).await;
    assert_eq!(one.state(&delivery).await, State::Waiting, "it waits for the host that has the module");
    // The module disappears there, too.
    other.set_routes(&Setup::default().tenants, vec![module("Echo")]);
    other.dispatcher.describe_host(|info| *info = with("host-2", &["Echo"]));
    shared.pass(&hosts, SHARED_HEARTBEAT_EVERY * 2).await;
    let details = one.details(&delivery).await;
    assert_eq!(details.summary.state, State::Dead);
    assert!(details.summary.reason.unwrap().contains("no longer in modules.toml"));
}

/// Hosts publish no tenants, so one with other settings may have the tenant.
#[tokio::test]
async fn leaves_tenants_that_it_lacks_to_hosts_with_other_settings() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    let mut info = host_info("host-2");
    info.settings = "other".to_owned();
    let other = shared.host_with(info, Setup::default()).await;
    let hosts = [&one, &other];
    shared.pass(&hosts, SHARED_HEARTBEAT_EVERY).await;
    let delivery = shared.record(&message("globex", "evt_1", "Echo", "chat_1"), "Echo").await;
    shared.pass(&hosts, Duration::from_secs(10)).await;
    assert_eq!(one.state(&delivery).await, State::Waiting);
    other.dispatcher.describe_host(|info| info.settings = "same".to_owned());
    shared.pass(&hosts, SHARED_HEARTBEAT_EVERY * 2).await;
    assert_eq!(one.state(&delivery).await, State::Dead);
}

#[tokio::test]
async fn one_host_at_a_time_has_a_duty_and_another_takes_it_over() {
    let shared = Shared::new();
    let (one, other) = (shared.host("host-1").await, shared.host("host-2").await);
    let hosts = [&one, &other];
    let first = one.dispatcher.want_duty("event socket unique");
    one.settle().await;
    let second = other.dispatcher.want_duty("event socket unique");
    other.settle().await;
    let has = |duty: &watch::Receiver<bool>| *duty.borrow();
    assert_eq!((has(&first), has(&second)), (true, false));
    shared.pass(&hosts, LEASE * 3).await;
    assert_eq!((has(&first), has(&second)), (true, false), "it is kept");
    one.cut_off();
    for _ in 0..200 {
        shared.pass(&hosts, POLL).await;
        assert!(!(has(&first) && has(&second)), "both have it");
    }
    assert_eq!((has(&first), has(&second)), (false, true));
}

#[tokio::test]
async fn gives_up_a_duty_that_it_does_not_want_any_more() {
    let shared = Shared::new();
    let (one, other) = (shared.host("host-1").await, shared.host("host-2").await);
    let first = one.dispatcher.want_duty("event socket unique");
    one.settle().await;
    let second = other.dispatcher.want_duty("event socket unique");
    drop(first);
    shared.pass(&[&one, &other], SHARED_HEARTBEAT_EVERY * 2).await;
    assert!(*second.borrow());
}

#[tokio::test]
async fn a_host_that_stops_leaves_its_duties_to_the_others() {
    let shared = Shared::new();
    let (one, other) = (shared.host("host-1").await, shared.host("host-2").await);
    let first = one.dispatcher.want_duty("event socket unique");
    one.settle().await;
    let second = other.dispatcher.want_duty("event socket unique");
    other.settle().await;
    assert!(*first.borrow());
    one.dispatcher.shutdown(Duration::from_secs(30)).await;
    assert!(!*first.borrow());
    assert_eq!(shared.memory.hosts().await.unwrap().len(), 1);
    shared.pass(&[&other], SHARED_HEARTBEAT_EVERY).await;
    assert!(*second.borrow());
}

#[tokio::test]
async fn keeps_the_order_of_a_chat_across_hosts() {
    let shared = Shared::new();
    let setup = || Setup { modules: vec![ordered("Echo")], ..Setup::default() };
    let one = shared.host_with(host_info("host-1"), setup()).await;
    let other = shared.host_with(host_info("host-2"), setup()).await;
    let hosts = [&one, &other];
    let [first, second] = ["evt_1", "evt_2"].map(|id| message("acme", id, "Echo", "chat_1"));
    let first = one.accepted(&first).await;
    one.running(&first).await;
    let second = other.accepted(&second).await;
    shared.pass(&hosts, Duration::from_secs(5)).await;
    assert_eq!(other.state(&second).await, State::Waiting);
    one.modules.pause("Echo");
    one.end(&first, answered()).await;
    shared.pass(&hosts, POLL).await;
    other.end(&second, answered()).await;
    assert_eq!(other.state(&second).await, State::Completed);
}

/// A delivery that stopped two other hosts runs alone on the next one.
#[tokio::test]
async fn counts_interruptions_on_other_hosts() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    one.modules.pause("Echo");
    let suspects = [one.accepted(&event("evt_1", "Echo")).await, one.accepted(&event("evt_2", "Echo")).await];
    for number in 0..2 {
        let owner: Arc<str> = format!("killed-{number}").into();
        let claim = Claim { tenant: "acme".into(), module: "Echo".into(), limit: 2, owner, lease: LEASE };
        assert_eq!(shared.memory.claim(claim.clone()).await.unwrap().len(), 2);
        shared.memory.reclaim(Some(&claim.owner)).await.unwrap();
    }
    one.modules.resume("Echo");
    one.dispatcher.rescan();
    for suspect in &suspects {
        one.running(suspect).await;
        assert_eq!(one.modules.running(), std::slice::from_ref(suspect));
        one.end(suspect, answered()).await;
    }
}

#[tokio::test]
async fn counts_live_hosts() {
    let shared = Shared::new();
    let one = shared.host("host-1").await;
    assert_eq!(one.dispatcher.live_hosts().alive, 1);
    let mut info = host_info("host-2");
    info.settings = "other".to_owned();
    let other = shared.host_with(info, Setup::default()).await;
    shared.pass(&[&one, &other], SHARED_HEARTBEAT_EVERY).await;
    let live = one.dispatcher.live_hosts();
    assert_eq!((live.alive, live.with_other_settings), (2, 1));
    other.cut_off();
    shared.pass(&[&one, &other], LEASE + SHARED_HEARTBEAT_EVERY).await;
    assert_eq!(one.dispatcher.live_hosts().alive, 1);
}
