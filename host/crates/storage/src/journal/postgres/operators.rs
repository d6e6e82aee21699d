//! What operators do with deliveries: sending them again, and dropping them.

use super::Postgres;
use super::attempt_jobs::{LOCK_CHATS, LOCK_DELIVERIES, LOCK_EVENTS, RELEASE_CHATS, moved_usage};
use super::rows::{clean, now, tallied};
use crate::error::StorageError;
use crate::journal::usage::DELIVERY_BYTES;
use crate::postgres::{transaction, values};
use modhost_core::event::DeliveryId;

/// Locks the chat of delivery `$1`, which may have no unfinished deliveries.
const LOCK_CHAT: &str = "
    INSERT INTO chats AS c (lane, chat, unfinished)
    SELECT lane, chat, 0 FROM deliveries WHERE id = $1 AND chat IS NOT NULL
    ON CONFLICT (lane, chat) DO UPDATE SET unfinished = c.unfinished";

const RESEND: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT ",
    now!(),
    " AS now), moving AS MATERIALIZED (
        SELECT seq, event, lane, chat, state, false AS ends, changes + 1 AS change FROM deliveries
        WHERE id = $3 AND state IN ('completed', 'dead', 'dropped')
    ), forgotten AS (
        DELETE FROM calls USING moving WHERE $5 AND calls.delivery = moving.seq RETURNING moving.lane, calls.bytes
    ), updated AS (
        UPDATE deliveries d SET state = 'waiting', earlier = d.attempt, due_at = clock.now, timed = false, reason = $6,
            changed_at = clock.now, changes = m.change,
            behind = coalesce((SELECT unfinished > 0 FROM chats WHERE lane = m.lane AND chat = m.chat), false)
        FROM moving m, clock WHERE d.seq = m.seq
    ), queued AS (
        UPDATE chats c SET unfinished = c.unfinished + 1 FROM moving m WHERE c.lane = m.lane AND c.chat = m.chat
    ), changed AS (
        INSERT INTO changes (delivery, number, at, state, reason) SELECT seq, change, clock.now, 'waiting', $6 FROM moving, clock
    ), ",
    moved_usage!("$4"),
    ", moved AS (
        SELECT lane, 1 AS waiting, 0 AS running, -(state = 'completed')::integer AS completed, -(state = 'dead')::integer AS dead,
               -(state = 'dropped')::integer AS dropped
        FROM moving
    ), spent AS (
        SELECT lanes.tenant, s.unfinished, s.ended, 0 AS ids FROM (
            SELECT lane, bytes AS unfinished, -bytes AS ended FROM parts
            UNION ALL
            SELECT lane, -bytes, 0 FROM forgotten
        ) AS s JOIN lanes ON lanes.id = s.lane
    ), ",
    tallied!(),
    " SELECT 3, NULL::text, ARRAY[seq]::bigint[], NULL::text[], NULL::bytea FROM moving UNION ALL SELECT * FROM tallied"
);

const DROP: &str = concat!(
    "WITH clock AS MATERIALIZED (SELECT ",
    now!(),
    " AS now), moving AS MATERIALIZED (
        SELECT seq, event, lane, chat, true AS ends, changes + 1 AS change FROM deliveries
        WHERE id = $3 AND state = 'waiting'
    ), updated AS (
        UPDATE deliveries d SET state = 'dropped', reason = $5, changed_at = clock.now, changes = m.change, behind = false
        FROM moving m, clock WHERE d.seq = m.seq
    ), changed AS (
        INSERT INTO changes (delivery, number, at, state, reason) SELECT seq, change, clock.now, 'dropped', $5 FROM moving, clock
    ), ",
    moved_usage!("$4"),
    ", moved AS (
        SELECT lane, -1 AS waiting, 0 AS running, 0 AS completed, 0 AS dead, 1 AS dropped FROM moving
    ), spent AS (
        SELECT lanes.tenant, -parts.bytes AS unfinished, parts.bytes AS ended, 0 AS ids
        FROM parts JOIN lanes ON lanes.id = parts.lane
    ), ",
    tallied!(),
    " SELECT 3, NULL::text, ARRAY[seq]::bigint[], NULL::text[], NULL::bytea FROM moving UNION ALL SELECT * FROM tallied"
);

impl Postgres {
    /// Queues an ended delivery again, behind the unfinished deliveries of its chat.
    pub(super) async fn send_again(&self, delivery: &DeliveryId, fresh: bool) -> Result<bool, StorageError> {
        let (id, now, bytes) = (delivery.as_str(), self.clock.now(), DELIVERY_BYTES.cast_signed());
        let (ids, slot) = (vec![id], self.slots.operators);
        let reason = if fresh { "sent again, from the beginning" } else { "sent again" };
        let changed = transaction!(self.pools.operators, session => {
            session.execute(LOCK_CHAT, values![id]).await?;
            session.query(LOCK_EVENTS, values![ids]).await?;
            session.query(LOCK_DELIVERIES, values![ids]).await?;
            let rows = session.query(RESEND, values![now, slot, id, bytes, fresh, reason]).await?;
            session.query(RELEASE_CHATS, values![ids]).await?;
            Ok(rows)
        });
        Ok(!self.applied(changed).await?.is_empty())
    }

    /// Ends a waiting delivery.
    pub(super) async fn drop_delivery(&self, delivery: &DeliveryId, reason: &str) -> Result<bool, StorageError> {
        let (id, now, bytes) = (delivery.as_str(), self.clock.now(), DELIVERY_BYTES.cast_signed());
        let (ids, slot, reason) = (vec![id], self.slots.operators, clean(reason));
        let changed = transaction!(self.pools.operators, session => {
            session.query(LOCK_CHATS, values![ids]).await?;
            session.query(LOCK_EVENTS, values![ids]).await?;
            session.query(LOCK_DELIVERIES, values![ids]).await?;
            let rows = session.query(DROP, values![now, slot, id, bytes, reason]).await?;
            session.query(RELEASE_CHATS, values![ids]).await?;
            Ok(rows)
        });
        Ok(!self.applied(changed).await?.is_empty())
    }
}
