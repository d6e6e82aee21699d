//! The membership of an engine that keeps everything in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{HostInfo, HostStatus};

/// How long a host that is gone stays in the list.
const KEEP_GONE: Duration = Duration::from_secs(3600);

/// The hosts and their duties. Callers pass the time of the engine's clock.
#[derive(Default)]
pub(crate) struct Members {
    hosts: BTreeMap<Arc<str>, Member>,
    /// The owner of each duty, and the end of its lease.
    duties: HashMap<String, (Arc<str>, SystemTime)>,
}

struct Member {
    info: HostInfo,
    joined_at: SystemTime,
    seen_at: SystemTime,
    /// The end of the lease.
    until: SystemTime,
    is_gone: bool,
}

impl Members {
    /// Adds or updates a host. Returns its earlier lives.
    pub(crate) fn join(&mut self, info: &HostInfo, now: SystemTime, lease: Duration) -> Vec<Arc<str>> {
        self.hosts.retain(|_, member| !member.is_gone || member.seen_at + KEEP_GONE > now);
        if self.is_gone(&info.owner) {
            // It learns so from its next heartbeat, and must not end the life that came after it.
            return Vec::new();
        }
        let mut earlier = Vec::new();
        for (owner, member) in &mut self.hosts {
            if member.info.name == info.name && *owner != info.owner {
                member.is_gone = true;
                earlier.push(owner.clone());
            }
        }
        let new = Member { info: info.clone(), joined_at: now, seen_at: now, until: now, is_gone: false };
        let member = self.hosts.entry(info.owner.clone()).or_insert(new);
        member.info = info.clone();
        member.seen_at = now;
        member.until = now + lease;
        earlier
    }

    /// Extends the lease of a host. Returns whether it still lived.
    pub(crate) fn beat(&mut self, owner: &str, now: SystemTime, lease: Duration) -> bool {
        let member = self.hosts.get_mut(owner).filter(|member| !member.is_gone);
        member.map(|member| (member.seen_at, member.until) = (now, now + lease)).is_some()
    }

    /// Removes a host and gives up its duties.
    pub(crate) fn leave(&mut self, owner: &str) {
        self.hosts.remove(owner);
        self.duties.retain(|_, (holder, _)| **holder != *owner);
    }

    /// Returns the hosts, ordered by name.
    pub(crate) fn list(&self, now: SystemTime) -> Vec<HostStatus> {
        let status = |member: &Member| HostStatus {
            info: member.info.clone(),
            joined_at: member.joined_at,
            seen_at: member.seen_at,
            is_alive: member.is_alive(now),
        };
        let mut hosts: Vec<HostStatus> = self.hosts.values().map(status).collect();
        hosts.sort_by(|one, other| (&one.info.name, one.joined_at).cmp(&(&other.info.name, other.joined_at)));
        hosts
    }

    /// Takes, keeps or, with a lease of zero, gives up a duty. Returns whether the owner has it.
    pub(crate) fn hold_duty(&mut self, duty: &str, owner: &str, now: SystemTime, lease: Duration) -> bool {
        let Some((owner, _)) = self.hosts.get_key_value(owner).filter(|(_, member)| member.is_alive(now)) else {
            return false;
        };
        let is_held = self.duties.get(duty).is_some_and(|(holder, until)| {
            holder != owner && *until > now && self.hosts.get(holder).is_some_and(|member| member.is_alive(now))
        });
        if !is_held {
            self.duties.insert(duty.to_owned(), (owner.clone(), now + lease));
        }
        !is_held
    }

    /// Marks the hosts whose lease has expired as gone.
    pub(crate) fn expire(&mut self, now: SystemTime) {
        for member in self.hosts.values_mut() {
            member.is_gone |= member.until <= now;
        }
    }

    /// Returns whether a host was marked as gone. An owner that never joined is not.
    pub(crate) fn is_gone(&self, owner: &str) -> bool {
        self.hosts.get(owner).is_some_and(|member| member.is_gone)
    }
}

impl Member {
    fn is_alive(&self, now: SystemTime) -> bool {
        !self.is_gone && self.until > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn host(name: &str, owner: &str) -> HostInfo {
        HostInfo {
            owner: owner.into(),
            name: name.into(),
            admin: None,
            version: "1".into(),
            settings: String::new(),
            modules: Default::default(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn earlier_lives_of_a_host_are_gone_and_stay_gone() {
        let mut members = Members::default();
        assert!(members.join(&host("a", "a-1"), at(0), LEASE).is_empty());
        assert!(members.join(&host("b", "b-1"), at(0), LEASE).is_empty());
        assert!(members.join(&host("a", "a-1"), at(1), LEASE).is_empty(), "an update");
        assert_eq!(members.join(&host("a", "a-2"), at(2), LEASE), ["a-1".into()]);
        assert!(!members.beat("a-1", at(3), LEASE));
        members.join(&host("a", "a-1"), at(3), LEASE);
        assert!(!members.beat("a-1", at(3), LEASE));
        assert!(members.beat("a-2", at(3), LEASE) && members.beat("b-1", at(3), LEASE));
        let alive: Vec<bool> = members.list(at(3)).iter().map(|host| host.is_alive).collect();
        assert_eq!(alive, [false, true, true]);
        members.expire(at(33));
        assert!(!members.beat("b-1", at(33), LEASE), "its lease had expired and was marked");
    }

    #[test]
    fn one_host_at_a_time_has_a_duty() {
        let mut members = Members::default();
        members.join(&host("a", "a-1"), at(0), LEASE);
        members.join(&host("b", "b-1"), at(0), LEASE);
        assert!(members.hold_duty("purge", "a-1", at(0), LEASE));
        assert!(!members.hold_duty("purge", "b-1", at(1), LEASE));
        assert!(members.hold_duty("purge", "a-1", at(1), Duration::ZERO), "given up");
        assert!(members.hold_duty("purge", "b-1", at(1), LEASE));
        members.leave("b-1");
        assert!(members.hold_duty("purge", "a-1", at(2), LEASE));
        assert!(!members.hold_duty("purge", "unknown", at(2), LEASE));
        members.join(&host("b", "b-2"), at(29), LEASE);
        assert!(members.hold_duty("purge", "b-2", at(31), LEASE), "the lease of a-1 has expired");
    }
}
