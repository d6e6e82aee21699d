//! Who sent forged requests, and how many: who does it again and again is no longer listened to for a while.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::client;
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// How many senders can be remembered: a power of two.
const SETS: usize = 512;

/// Among so many the one with the least on its account is forgotten.
const WAYS: usize = 8;

const MINUTE: Duration = Duration::from_secs(60);

/// Forgeries by the address they came from and the source they were for, in a table that doesn't grow.
///
/// Each address has an account for each source. A forgery goes onto it, and a minute takes `limit` of them off again;
/// while there are `limit` or more, requests need not be looked at. Where more senders come than there is room for, those
/// with the least on their accounts are forgotten: that costs the host some verifying, and never holds off anyone for
/// what another did. Which senders share a place in the table can't be foreseen.
pub struct SignatureFailureLimiter {
    limit: AtomicU32,
    hasher: RandomState,
    sets: Box<[Mutex<Set>]>,
}

type Set = [Option<Account>; WAYS];

struct Account {
    address: IpAddr,
    source: Name,
    /// Forgeries, less those the time has taken off.
    forgeries: f64,
    /// When that was so.
    at: Instant,
}

impl SignatureFailureLimiter {
    /// Nobody did anything yet; who sends so many forged requests a minute to a source is held off.
    pub fn new(limit: u32) -> Self {
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        Self { limit: AtomicU32::new(limit), hasher: RandomState::new(), sets }
    }

    /// Goes by another limit from now on.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Notes a forgery; answers with whether it is the one that fills the account.
    pub fn note(&self, address: IpAddr, source: &Name) -> bool {
        self.note_at(address, source, Instant::now())
    }

    /// How long requests of an address to a source need not be looked at; none: look at them.
    pub fn too_many(&self, address: IpAddr, source: &Name) -> Option<Duration> {
        self.too_many_at(address, source, Instant::now())
    }

    fn note_at(&self, address: IpAddr, source: &Name, now: Instant) -> bool {
        let (limit, address) = (self.limit(), client::group(address));
        let mut set = lock(self.set(address, source));
        let known = set.iter().position(|account| account.as_ref().is_some_and(|it| it.is_of(address, source)));
        if let Some(account) = known.and_then(|place| set[place].as_mut()) {
            let before = account.left(limit, now);
            // More than this is on nobody's account, so that it takes no longer than a minute to be clear of it.
            (account.forgeries, account.at) = ((before + 1.0).min(limit), now);
            return before <= limit - 1.0 && account.forgeries > limit - 1.0;
        }
        let left = |account: &Option<Account>| account.as_ref().map_or(-1.0, |account| account.left(limit, now));
        if let Some(place) = set.iter_mut().min_by(|a, b| left(a).total_cmp(&left(b))) {
            *place = Some(Account { address, source: source.clone(), forgeries: 1.0, at: now });
        }
        limit <= 1.0
    }

    fn too_many_at(&self, address: IpAddr, source: &Name, now: Instant) -> Option<Duration> {
        let (limit, address) = (self.limit(), client::group(address));
        let set = lock(self.set(address, source));
        let account = set.iter().flatten().find(|account| account.is_of(address, source))?;
        // One more may come when there is room for it on the account.
        let beyond = account.left(limit, now) - (limit - 1.0);
        (beyond > 0.0).then(|| MINUTE.mul_f64(beyond / limit))
    }

    fn limit(&self) -> f64 {
        f64::from(self.limit.load(Ordering::Relaxed).max(1))
    }

    fn set(&self, address: IpAddr, source: &Name) -> &Mutex<Set> {
        let hash = self.hasher.hash_one((address, source));
        &self.sets[hash as usize % SETS]
    }
}

impl Account {
    fn is_of(&self, address: IpAddr, source: &Name) -> bool {
        self.address == address && self.source == *source
    }

    /// What is on it now.
    fn left(&self, limit: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64() / MINUTE.as_secs_f64();
        (self.forgeries - passed * limit).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn who_forges_again_and_again_is_held_off_for_a_while() {
        let (signature_failures, start, source) =
            (SignatureFailureLimiter::new(4), Instant::now(), Name::from("unique"));
        let at = |seconds| start + Duration::from_secs(seconds);
        let filled: Vec<_> = (0..5).map(|_| signature_failures.note_at(address(1), &source, start)).collect();
        assert_eq!(filled, [false, false, false, true, false]);
        let wait = signature_failures.too_many_at(address(1), &source, start).unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(15), "{wait:?}");
        assert_eq!(
            signature_failures.too_many_at(address(1), &source, at(16)),
            None,
            "one is taken off, one more may come"
        );
        assert!(signature_failures.note_at(address(1), &source, at(16)));
        assert!(signature_failures.too_many_at(address(1), &source, at(16)).is_some());
        assert_eq!(signature_failures.too_many_at(address(1), &source, at(100)), None);
    }

    #[test]
    fn nobody_is_held_off_for_another() {
        let (signature_failures, now) = (SignatureFailureLimiter::new(2), Instant::now());
        let (source, other) = (Name::from("unique"), Name::from("github"));
        for _ in 0..100 {
            signature_failures.note_at(address(1), &source, now);
        }
        assert!(signature_failures.too_many_at(address(1), &source, now).is_some());
        assert_eq!(signature_failures.too_many_at(address(1), &other, now), None, "its other traffic goes on");
        for neighbour in (0..10_000).filter(|it| *it != 1) {
            assert_eq!(signature_failures.too_many_at(address(neighbour), &source, now), None);
        }
    }

    #[test]
    fn a_crowd_pushes_out_those_who_did_least() {
        let (signature_failures, now, source) = (SignatureFailureLimiter::new(3), Instant::now(), Name::from("unique"));
        for _ in 0..3 {
            signature_failures.note_at(address(7), &source, now);
        }
        for other in 100..100_000 {
            signature_failures.note_at(address(other), &source, now);
        }
        assert!(signature_failures.too_many_at(address(7), &source, now).is_some());
    }

    #[test]
    fn a_lower_limit_holds_at_once() {
        let (signature_failures, now, source) =
            (SignatureFailureLimiter::new(100), Instant::now(), Name::from("unique"));
        for _ in 0..10 {
            signature_failures.note_at(address(1), &source, now);
        }
        assert_eq!(signature_failures.too_many_at(address(1), &source, now), None);
        signature_failures.set_limit(10);
        assert!(signature_failures.too_many_at(address(1), &source, now).is_some());
    }
}
