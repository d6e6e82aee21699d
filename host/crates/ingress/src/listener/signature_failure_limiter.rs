//! Counts invalid signatures per client and source, so that a busy host can reject clients that send many of them
//! without verifying their requests.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::client;
use modhost_core::event::Name;
use modhost_core::sync::lock;

/// Number of sets of the table, which is set-associative like a CPU cache; a power of two.
const SETS: usize = 512;

/// Entries per set. A new client replaces the entry with the lowest count in its set.
const WAYS: usize = 8;

const MINUTE: Duration = Duration::from_secs(60);

/// How long a valid signature protects its address. A platform sends the events of all customers from the same
/// addresses, and others can send invalid ones from there, too.
const PROVEN_FOR: Duration = Duration::from_secs(60 * 60);

/// Invalid signatures by client address and source, in a table of fixed size.
///
/// Each pair of address and source has an account, a leaky bucket: an invalid signature adds one, and one minute
/// removes `limit`. At `limit`, further requests may be rejected unverified, unless the address has sent a valid
/// signature recently. If the table has no room for a new account, it evicts the account with the lowest count, and
/// those of proven addresses last. That costs the host some verifications, but never rejects one client for what
/// another did. The hash is randomly seeded, so clients can't choose whose accounts share a set with theirs.
pub struct SignatureFailureLimiter {
    limit: AtomicU32,
    hasher: RandomState,
    sets: Box<[Mutex<Set>]>,
}

type Set = [Option<Account>; WAYS];

struct Account {
    address: IpAddr,
    source: Name,
    /// The number of invalid signatures, less those that have leaked.
    forgeries: f64,
    /// The time at which `forgeries` was correct.
    at: Instant,
    /// The time of the last valid signature.
    proven_at: Option<Instant>,
}

impl SignatureFailureLimiter {
    /// Creates an empty table; `limit` is the number of invalid signatures per minute.
    pub fn new(limit: u32) -> Self {
        let sets = (0..SETS).map(|_| Mutex::default()).collect();
        Self { limit: AtomicU32::new(limit), hasher: RandomState::new(), sets }
    }

    /// Sets the limit.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Records an invalid signature; returns whether it is the one that fills the account.
    pub fn record(&self, address: IpAddr, source: &Name) -> bool {
        self.record_at(address, source, Instant::now())
    }

    /// Records a valid signature.
    pub fn record_valid(&self, address: IpAddr, source: &Name) {
        self.record_valid_at(address, source, Instant::now());
    }

    /// Whether an address has sent as many invalid signatures to a source as the limit allows.
    pub fn is_at_limit(&self, address: IpAddr, source: &Name) -> bool {
        let (limit, address, now) = (self.limit(), client::group(address), Instant::now());
        let set = lock(self.set(address, source));
        set.iter().flatten().any(|account| account.is_of(address, source) && account.left(limit, now) > limit - 1.0)
    }

    /// Returns for how long requests of an address to a source may be rejected unverified; `None`: verify them.
    pub fn retry_after(&self, address: IpAddr, source: &Name) -> Option<Duration> {
        self.retry_after_at(address, source, Instant::now())
    }

    fn record_at(&self, address: IpAddr, source: &Name, now: Instant) -> bool {
        let (limit, address) = (self.limit(), client::group(address));
        let mut set = lock(self.set(address, source));
        let known = set.iter().position(|account| account.as_ref().is_some_and(|it| it.is_of(address, source)));
        if let Some(account) = known.and_then(|place| set[place].as_mut()) {
            let before = account.left(limit, now);
            // The count is capped at `limit`, so that an account is empty after at most a minute.
            (account.forgeries, account.at) = ((before + 1.0).min(limit), now);
            return before <= limit - 1.0 && account.forgeries > limit - 1.0;
        }
        self.insert(&mut set, Account { address, source: source.clone(), forgeries: 1.0, at: now, proven_at: None });
        limit <= 1.0
    }

    fn record_valid_at(&self, address: IpAddr, source: &Name, now: Instant) {
        let address = client::group(address);
        let mut set = lock(self.set(address, source));
        match set.iter_mut().flatten().find(|account| account.is_of(address, source)) {
            Some(account) => account.proven_at = Some(now),
            None => {
                let proven_at = Some(now);
                self.insert(&mut set, Account { address, source: source.clone(), forgeries: 0.0, at: now, proven_at });
            }
        }
    }

    /// Adds an account, in the place of the least important one if the set is full.
    fn insert(&self, set: &mut Set, new: Account) {
        let (limit, now) = (self.limit(), new.at);
        let importance = |place: &Option<Account>| {
            place.as_ref().map_or((false, -1.0), |account| (account.is_proven(now), account.left(limit, now)))
        };
        let least = set.iter_mut().min_by(|a, b| {
            let (a, b) = (importance(a), importance(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        if let Some(place) = least {
            *place = Some(new);
        }
    }

    fn retry_after_at(&self, address: IpAddr, source: &Name, now: Instant) -> Option<Duration> {
        let (limit, address) = (self.limit(), client::group(address));
        let set = lock(self.set(address, source));
        let account = set.iter().flatten().find(|account| account.is_of(address, source))?;
        if account.is_proven(now) {
            return None;
        }
        // A request is accepted again as soon as the account has room for one.
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

    /// Whether the address has sent a valid signature recently.
    fn is_proven(&self, now: Instant) -> bool {
        self.proven_at.is_some_and(|at| now.saturating_duration_since(at) < PROVEN_FOR)
    }

    /// Returns the count at `now`.
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
    fn rejects_a_client_at_the_limit_for_a_while() {
        let (signature_failures, start, source) =
            (SignatureFailureLimiter::new(4), Instant::now(), Name::from("unique"));
        let at = |seconds| start + Duration::from_secs(seconds);
        let filled: Vec<_> = (0..5).map(|_| signature_failures.record_at(address(1), &source, start)).collect();
        assert_eq!(filled, [false, false, false, true, false]);
        let wait = signature_failures.retry_after_at(address(1), &source, start).unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(15), "{wait:?}");
        assert_eq!(
            signature_failures.retry_after_at(address(1), &source, at(16)),
            None,
            "one has leaked, so one request is accepted"
        );
        assert!(signature_failures.record_at(address(1), &source, at(16)));
        assert!(signature_failures.retry_after_at(address(1), &source, at(16)).is_some());
        assert_eq!(signature_failures.retry_after_at(address(1), &source, at(100)), None);
    }

    #[test]
    fn verifies_an_address_with_recent_valid_signatures() {
        let (failures, start, source) = (SignatureFailureLimiter::new(4), Instant::now(), Name::from("unique"));
        for _ in 0..100 {
            failures.record_at(address(1), &source, start);
        }
        assert!(failures.retry_after_at(address(1), &source, start).is_some());
        failures.record_valid_at(address(1), &source, start);
        assert_eq!(failures.retry_after_at(address(1), &source, start), None);
        // The accounts of new addresses replace those of unproven addresses first.
        for other in 100..100_000 {
            failures.record_at(address(other), &source, start);
        }
        for _ in 0..100 {
            failures.record_at(address(1), &source, start);
        }
        assert_eq!(failures.retry_after_at(address(1), &source, start), None);
        let later = start + PROVEN_FOR;
        for _ in 0..100 {
            failures.record_at(address(1), &source, later);
        }
        assert!(failures.retry_after_at(address(1), &source, later).is_some());
    }

    #[test]
    fn limits_each_client_and_source_separately() {
        let (signature_failures, now) = (SignatureFailureLimiter::new(2), Instant::now());
        let (source, other) = (Name::from("unique"), Name::from("github"));
        for _ in 0..100 {
            signature_failures.record_at(address(1), &source, now);
        }
        assert!(signature_failures.retry_after_at(address(1), &source, now).is_some());
        assert_eq!(
            signature_failures.retry_after_at(address(1), &other, now),
            None,
            "requests to other sources are accepted"
        );
        for neighbour in (0..10_000).filter(|it| *it != 1) {
            assert_eq!(signature_failures.retry_after_at(address(neighbour), &source, now), None);
        }
    }

    #[test]
    fn evicts_the_accounts_with_the_lowest_count() {
        let (signature_failures, now, source) = (SignatureFailureLimiter::new(3), Instant::now(), Name::from("unique"));
        for _ in 0..3 {
            signature_failures.record_at(address(7), &source, now);
        }
        for other in 100..100_000 {
            signature_failures.record_at(address(other), &source, now);
        }
        assert!(signature_failures.retry_after_at(address(7), &source, now).is_some());
    }

    #[test]
    fn lower_limit_applies_immediately() {
        let (signature_failures, now, source) =
            (SignatureFailureLimiter::new(100), Instant::now(), Name::from("unique"));
        for _ in 0..10 {
            signature_failures.record_at(address(1), &source, now);
        }
        assert_eq!(signature_failures.retry_after_at(address(1), &source, now), None);
        signature_failures.set_limit(10);
        assert!(signature_failures.retry_after_at(address(1), &source, now).is_some());
    }
}
