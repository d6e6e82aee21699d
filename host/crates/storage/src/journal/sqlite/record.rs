//! Records events and their deliveries.

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::column::NameColumn;
use super::delivery_row::DeliveryRow;
use super::running::RunningDelivery;
use super::store::Store;
use crate::journal::usage::{DELIVERY_BYTES, Part, event_bytes, id_bytes, recorded_bytes};
use crate::journal::{Lease, NewDelivery, Recorded, State};
use modhost_core::clock::{from_millis, whole_millis};
use modhost_core::event::{Event, Header};

impl Store {
    /// Records an event with its deliveries, received at `at` (milliseconds since 1970), unless it is known. Of an
    /// event without deliveries, only the id is stored.
    pub(super) fn record(&mut self, event: &Event, deliveries: &[NewDelivery], at: i64) -> rusqlite::Result<Recorded> {
        if self.has_v1_keys && self.was_known_before(event)? {
            return Ok(Recorded::Duplicate);
        }
        let number = (!deliveries.is_empty()).then(|| self.next_seq());
        let sql = "INSERT INTO known_events (id, source, tenant, at, event) VALUES (?1, ?2, ?3, ?4, ?5) \
                   ON CONFLICT DO NOTHING";
        let values = params![event.id, event.source.as_str(), event.tenant.as_str(), at, number];
        if self.sql(sql)?.execute(values)? == 0 {
            return Ok(Recorded::Duplicate);
        }
        self.usage.add(&event.tenant, Part::Ids, id_bytes(&event.id).cast_signed());
        let mut leases = Vec::new();
        if let Some(number) = number {
            self.usage.add(&event.tenant, Part::Unfinished, recorded_bytes(event, deliveries.len()).cast_signed());
            self.write_event(number, event, at)?;
            let is_single = deliveries.len() == 1;
            for delivery in deliveries {
                leases.extend(self.write_delivery(number, is_single, event, delivery, at)?);
            }
        }
        Ok(Recorded::New { at: from_millis(at), leases })
    }

    /// Returns whether an earlier version recorded the event, when the tenant was not part of the key yet. The event
    /// may have had another id then.
    fn was_known_before(&self, event: &Event) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM known_before k LEFT JOIN events e ON e.number = k.event \
                   WHERE k.id IN (?1, ?2) AND k.source = ?3 AND coalesce(k.tenant, e.tenant, ?4) = ?4";
        let earlier_id = event.earlier_id().unwrap_or(&event.id);
        self.sql(sql)?.exists(params![event.id, earlier_id, event.source.as_str(), event.tenant.as_str()])
    }

    fn write_event(&self, number: i64, event: &Event, at: i64) -> rusqlite::Result<()> {
        let sql = "INSERT INTO events (number, source, id, name, tenant, user_id, company_id, created_at, received_at, \
                   payload_start, payload_length, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
        let payload = event.payload_range();
        let values = params![
            number,
            event.source.as_str(),
            event.id,
            event.name,
            event.tenant.as_str(),
            event.user_id,
            event.company_id,
            event.created_at.map(u64::cast_signed),
            at,
            payload.start as i64,
            payload.len() as i64,
            &event.raw()[..]
        ];
        self.sql(sql)?.execute(values).map(drop)
    }

    /// Writes a delivery that waits, or that is leased for its first attempt. Returns the lease.
    fn write_delivery(
        &mut self,
        number: i64,
        is_single: bool,
        event: &Event,
        new: &NewDelivery,
        at: i64,
    ) -> rusqlite::Result<Option<Lease>> {
        let lane = self.lane(&event.tenant, &new.module)?;
        let chat = new.ordered_chat.as_deref();
        let blocked = match chat {
            Some(chat) => self.chat_is_busy(lane, chat)?,
            None => false,
        };
        let lease = new.lease.as_ref().filter(|_| !blocked);
        let until = lease.map(|lease| at.saturating_add(whole_millis(lease.duration)));
        let row = DeliveryRow {
            seq: self.number_delivery(),
            id: new.id.clone(),
            event: number,
            is_single,
            lane,
            chat: new.ordered_chat.clone(),
            blocked,
            state: if lease.is_some() { State::Running } else { State::Waiting },
            attempt: u32::from(lease.is_some()),
            earlier_attempts: 0,
            due_at: at,
            has_due_time: false,
            owner: lease.map(|lease| lease.owner.to_string()),
            lease_until: until,
            version: None,
            changed_at: at,
            changes: i64::from(lease.is_some()),
            leased_at: None,
        };
        let sql = "INSERT INTO deliveries (seq, id, event, single, lane, chat, behind, state, attempt, earlier, due_at, \
                   timed, owner, lease_until, changed_at, changes) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, 0, ?11, ?12, ?10, ?13)";
        self.sql(sql)?.execute(params![
            row.seq,
            row.id.as_str(),
            row.event,
            row.is_single,
            row.lane,
            row.chat,
            row.blocked,
            row.state,
            row.attempt,
            row.due_at,
            row.owner,
            row.lease_until,
            row.changes
        ])?;
        self.count(lane, None, Some(row.state));
        let Some(lease) = lease else { return Ok(None) };
        let event_bytes = event_bytes(event.raw().len()).cast_signed();
        self.running.insert(RunningDelivery { row, bytes: Some(DELIVERY_BYTES.cast_signed()), event_bytes });
        let (delivery, tenant) = (new.id.clone(), event.tenant.clone());
        Ok(Some(Lease { delivery, tenant, owner: lease.owner.clone(), attempt: 1 }))
    }
}

/// Returns whether the journal contains events of the time when the tenant was not part of an event's key. A journal
/// created since then never does.
pub(super) fn has_v1_keys(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare("SELECT 1 FROM known_before LIMIT 1")?.exists([])
}

/// The columns of an event `e`, for [`StoredEvent::read`].
macro_rules! event_columns {
    () => {
        "e.received_at, e.source, e.id, e.name, e.tenant, e.user_id, e.company_id, e.created_at, e.payload_start, \
         e.payload_length, e.body"
    };
}
pub(super) use event_columns;

/// An event as stored. The conversion into an [`Event`] parses it, and therefore runs outside the writer thread.
pub(super) struct StoredEvent {
    /// The time it was recorded, in milliseconds since 1970.
    pub(super) received_at: i64,
    header: Header,
    payload_start: usize,
    payload_length: usize,
    body: Vec<u8>,
}

impl StoredEvent {
    /// Reads [`event_columns!`], which begin at column `first`.
    pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let (NameColumn(source), NameColumn(tenant)) = (row.get(first + 1)?, row.get(first + 4)?);
        Ok(Self {
            received_at: row.get(first)?,
            header: Header {
                id: row.get(first + 2)?,
                source,
                name: row.get(first + 3)?,
                tenant,
                user_id: row.get(first + 5)?,
                company_id: row.get(first + 6)?,
                created_at: row.get::<_, Option<i64>>(first + 7)?.map(i64::cast_unsigned),
            },
            payload_start: read_usize(row, first + 8)?,
            payload_length: read_usize(row, first + 9)?,
            body: row.get(first + 10)?,
        })
    }

    /// Returns the length of the body.
    pub(super) fn body_length(&self) -> usize {
        self.body.len()
    }

    /// Parses the event.
    pub(super) fn event(self) -> Event {
        let payload = self.payload_start..self.payload_start.saturating_add(self.payload_length);
        Event::new(self.header, Bytes::from(self.body), payload)
    }
}

/// Reads an offset or a length in the body.
fn read_usize(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    let number: i64 = row.get(column)?;
    usize::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}
