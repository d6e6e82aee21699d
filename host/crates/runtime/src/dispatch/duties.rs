//! Duties: what one host of the cluster at a time does, such as keeping an event socket open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::leases::{LEASE, SHARED_HEARTBEAT_EVERY};
use super::{Inner, lock};
use crate::call_log::RELY_FOR;

/// The duties that this host wants, and which of them it has.
#[derive(Default)]
pub(super) struct Duties(Mutex<BTreeMap<String, Duty>>);

struct Duty {
    /// Whether this host has it. Nobody receives it any more once the duty isn't wanted.
    has: watch::Sender<bool>,
    /// Until when the host has it, by [`Clock::since_boot`](modhost_core::clock::Clock::since_boot).
    until: Duration,
}

impl Inner {
    /// Asks for a duty for as long as the receiver exists. The receiver tells whether this host has it.
    pub(super) fn want_duty(&self, duty: &str) -> watch::Receiver<bool> {
        // Without other hosts there is nobody to share it with.
        if !self.membership.is_shared() {
            return watch::Sender::new(true).subscribe();
        }
        let mut duties = lock(&self.duties.0);
        let known = duties.entry(duty.to_owned());
        let receiver =
            known.or_insert_with(|| Duty { has: watch::Sender::new(false), until: Duration::ZERO }).has.subscribe();
        drop(duties);
        self.duty_wanted.notify_one();
        receiver
    }
}

impl Duties {
    /// Gives up the duties whose lease was not extended in time.
    pub(super) fn expire(&self, now: Duration) {
        for duty in lock(&self.0).values_mut().filter(|duty| duty.until <= now) {
            duty.set(false);
        }
    }

    /// Gives up all duties, because the host has lost its lease.
    pub(super) fn give_up_all(&self) {
        for duty in lock(&self.0).values_mut() {
            duty.until = Duration::ZERO;
            duty.set(false);
        }
    }

    /// Returns the duties that are wanted, and those that are not wanted any more.
    fn wanted(&self) -> (Vec<String>, Vec<String>) {
        let mut duties = lock(&self.0);
        let (wanted, unwanted) = duties.iter().map(|(name, duty)| (name.clone(), duty)).fold(
            (Vec::new(), Vec::new()),
            |(mut wanted, mut unwanted), (name, duty)| {
                if duty.has.is_closed() {
                    unwanted.push(name)
                } else {
                    wanted.push(name)
                }
                (wanted, unwanted)
            },
        );
        duties.retain(|name, _| !unwanted.contains(name));
        (wanted, unwanted)
    }

    fn held(&self, name: &str, until: Duration) {
        if let Some(duty) = lock(&self.0).get_mut(name) {
            duty.until = until;
            duty.set(!until.is_zero());
        }
    }
}

impl Duty {
    fn set(&self, has: bool) {
        self.has.send_if_modified(|had| std::mem::replace(had, has) != has);
    }
}

/// Takes and keeps the wanted duties until the host closes, then gives them up for the next host.
pub(super) async fn run(inner: Arc<Inner>) {
    if !inner.membership.is_shared() {
        return;
    }
    let keeping = async {
        loop {
            keep(&inner).await;
            tokio::select! {
                () = inner.duty_wanted.notified() => {}
                () = inner.clock.sleep(SHARED_HEARTBEAT_EVERY) => {}
            }
        }
    };
    inner.closing.run_until_cancelled(keeping).await;
    let (wanted, unwanted) = inner.duties.wanted();
    inner.duties.give_up_all();
    give_up(&inner, wanted.into_iter().chain(unwanted)).await;
}

async fn keep(inner: &Inner) {
    let (wanted, unwanted) = inner.duties.wanted();
    give_up(inner, unwanted).await;
    for duty in wanted {
        let lease = inner.membership.lease();
        if !lease.holds() {
            return;
        }
        let sent = inner.clock.since_boot();
        let holding = lease.ended().run_until_cancelled(inner.membership.hold_duty(&duty, lease.owner(), LEASE));
        match holding.await {
            Some(Ok(true)) if lease.holds() => inner.duties.held(&duty, sent + RELY_FOR),
            Some(Ok(_)) => inner.duties.held(&duty, Duration::ZERO),
            // It is given up when its time is over.
            Some(Err(error)) => tracing::warn!(duty, %error, "cannot extend the lease of a duty"),
            None => return,
        }
    }
}

async fn give_up(inner: &Inner, duties: impl IntoIterator<Item = String>) {
    let owner = inner.membership.owner();
    for duty in duties {
        if let Err(error) = inner.membership.hold_duty(&duty, &owner, Duration::ZERO).await {
            // The others would fail as well, and a host that stops doesn't wait for each.
            return tracing::debug!(duty, %error, "cannot give up a duty; its lease expires");
        }
    }
}
