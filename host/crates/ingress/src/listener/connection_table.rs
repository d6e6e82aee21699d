//! The table of open connections, and the choice of the one to close when there are too many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use super::connection_activity::ConnectionActivity;
use modhost_core::sync::lock;

/// The connections of a listener.
#[derive(Default)]
pub(super) struct ConnectionTable {
    members: Mutex<Members>,
    closed: Notify,
}

#[derive(Default)]
struct Members {
    next: u64,
    all: HashMap<u64, (IpAddr, Arc<ConnectionActivity>)>,
    /// The number of connections per address group; never zero.
    per_group: HashMap<IpAddr, usize>,
}

/// The table entry of a connection; removed when dropped.
pub(super) struct ConnectionEntry {
    connections: Arc<ConnectionTable>,
    number: u64,
    /// The address of the client.
    pub address: IpAddr,
    /// The activity of the connection.
    pub activity: Arc<ConnectionActivity>,
}

impl ConnectionTable {
    /// Returns the number of connections.
    pub fn len(&self) -> usize {
        self.members().all.len()
    }

    /// Returns the number of connections of an address group.
    pub fn count_for(&self, group: IpAddr) -> usize {
        self.members().per_group.get(&group).copied().unwrap_or_default()
    }

    /// Adds a connection.
    pub fn add(self: &Arc<Self>, address: IpAddr, group: IpAddr) -> ConnectionEntry {
        let activity = ConnectionActivity::new();
        let mut members = self.members();
        let number = members.next;
        members.next += 1;
        members.all.insert(number, (group, activity.clone()));
        *members.per_group.entry(group).or_default() += 1;
        ConnectionEntry { connections: self.clone(), number, address, activity }
    }

    /// Asks one connection to close. Of the connections that keep the host waiting, it takes one whose address group
    /// has the most connections, and among those the one that has waited longest. So a client that fills the listener
    /// makes room for others, and slow clients for fast ones.
    pub fn close_one(&self) {
        let members = self.members();
        let waiting = members.all.values().filter_map(|(group, activity)| {
            let since = activity.waiting_for_client_since()?;
            Some((members.per_group.get(group).copied().unwrap_or_default(), since, activity))
        });
        let chosen = waiting.reduce(|a, b| if (b.0, a.1) > (a.0, b.1) { b } else { a });
        if let Some((_, _, activity)) = chosen {
            activity.request_close();
        }
    }

    /// Waits until a connection is closed after this call.
    pub fn closed(&self) -> impl Future<Output = ()> {
        self.closed.notified()
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        let mut members = self.connections.members();
        if let Some((group, _)) = members.all.remove(&self.number)
            && let Entry::Occupied(mut count) = members.per_group.entry(group)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        drop(members);
        self.connections.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn enter(connections: &Arc<ConnectionTable>, last: u8) -> ConnectionEntry {
        connections.add(address(last), address(last))
    }

    fn is_asked(place: &ConnectionEntry) -> bool {
        futures::FutureExt::now_or_never(place.activity.close_requested()).is_some()
    }

    #[test]
    fn closes_the_longest_waiting_connection_of_the_largest_group() {
        let connections = Arc::new(ConnectionTable::default());
        let alone = enter(&connections, 1);
        let first = enter(&connections, 2);
        let second = enter(&connections, 2);
        connections.close_one();
        assert_eq!([&alone, &first, &second].map(is_asked), [false, true, false]);
        drop(first);
        assert_eq!((connections.len(), connections.count_for(address(2))), (2, 1));
        connections.close_one();
        assert_eq!([&alone, &second].map(is_asked), [true, false], "equal groups: the longer wait decides");
    }

    #[test]
    fn connection_with_unanswered_request_is_not_closed() {
        let connections = Arc::new(ConnectionTable::default());
        let place = enter(&connections, 1);
        let flight = place.activity.start_request(false);
        flight.body_complete();
        connections.close_one();
        assert!(!is_asked(&place));
        drop(flight);
        connections.close_one();
        assert!(is_asked(&place));
        drop(place);
        assert_eq!((connections.len(), connections.count_for(address(1))), (0, 0));
    }
}
