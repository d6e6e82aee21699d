//! The hosts that share the database, and their duties.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{POLL_EVERY, Postgres};
use crate::cluster::{Cluster, HostInfo, HostStatus, Result};
use crate::postgres::{Failure, Row, Session, read, repeatable, transaction, values};
use modhost_core::clock::{from_millis, whole_millis};
use modhost_core::event::Name;

use super::rows::now;

/// How long a host that is gone is listed, in milliseconds.
const LISTED_FOR: i64 = 60 * 60 * 1000;

/// How long the row of a host that is gone is kept, in milliseconds.
const KEPT_FOR: i64 = 24 * 60 * 60 * 1000;

const JOIN: &str = concat!(
    "INSERT INTO hosts AS h (owner, name, admin, version, settings, modules, joined_at, seen_at, lease_until)
    SELECT $2, $3, $4, $5, $6, $7, now, now, now + $8 FROM (SELECT ",
    now!(),
    " AS now) AS clock
    ON CONFLICT (owner) DO UPDATE SET name = excluded.name, admin = excluded.admin, version = excluded.version,
        settings = excluded.settings, modules = excluded.modules, seen_at = excluded.seen_at,
        lease_until = excluded.lease_until
    WHERE NOT h.gone"
);

/// Marks the earlier lives of a host as gone, and returns those that still have deliveries, also if they were marked before: the
/// host may have stopped before it reclaimed them.
const EARLIER_LIVES: &str = "
    WITH marked AS (UPDATE hosts SET gone = true WHERE name = $2 AND owner <> $1 AND NOT gone RETURNING owner)
    SELECT owner FROM marked
    UNION
    SELECT h.owner FROM hosts h WHERE h.name = $2 AND h.owner <> $1
        AND EXISTS (SELECT 1 FROM deliveries d WHERE d.state = 'running' AND d.owner = h.owner)
    ORDER BY owner";

const FORGET: &str = concat!("DELETE FROM hosts WHERE gone AND seen_at < ", now!(), " - $2");

const BEAT: &str =
    concat!("UPDATE hosts SET seen_at = ", now!(), ", lease_until = ", now!(), " + $3 WHERE owner = $2 AND NOT gone");

const HOSTS: &str = concat!(
    "SELECT owner, name, admin, version, settings, modules, joined_at, seen_at, NOT gone AND lease_until > ",
    now!(),
    " FROM hosts WHERE (NOT gone AND lease_until > ",
    now!(),
    ") OR seen_at > ",
    now!(),
    " - $2 ORDER BY name, joined_at"
);

const HOLD_DUTY: &str = concat!(
    "INSERT INTO duties AS d (duty, owner, lease_until, epoch) SELECT $2, $3, ",
    now!(),
    " + $4, 1
    ON CONFLICT (duty) DO UPDATE SET owner = excluded.owner, lease_until = excluded.lease_until,
        epoch = d.epoch + (d.owner <> excluded.owner)::integer
    WHERE d.owner = excluded.owner OR d.lease_until <= ",
    now!(),
    " OR NOT EXISTS (SELECT 1 FROM hosts h WHERE h.owner = d.owner AND NOT h.gone AND h.lease_until > ",
    now!(),
    ")"
);

fn status(session: &Session, row: &Row) -> std::result::Result<HostStatus, Failure> {
    let modules: Vec<String> = session.get(row, 5)?;
    Ok(HostStatus {
        info: HostInfo {
            owner: Arc::from(session.get::<String>(row, 0)?),
            name: session.get(row, 1)?,
            admin: session.get(row, 2)?,
            version: session.get(row, 3)?,
            settings: session.get(row, 4)?,
            modules: modules.into_iter().map(Name::from).collect::<BTreeSet<Name>>(),
        },
        joined_at: from_millis(session.get(row, 6)?),
        seen_at: from_millis(session.get(row, 7)?),
        is_alive: session.get(row, 8)?,
    })
}

#[async_trait]
impl Cluster for Postgres {
    async fn join(&self, host: &HostInfo, lease: Duration) -> Result<Vec<Arc<str>>> {
        let (now, lease) = (self.clock.now(), whole_millis(lease));
        let modules: Vec<&str> = host.modules.iter().map(Name::as_str).collect();
        transaction!(self.pools.beat, session => {
            let HostInfo { owner, name, admin, version, settings, modules: _ } = host;
            let owner = &**owner;
            let joined = session.execute(JOIN, values![now, owner, name, admin, version, settings, modules, lease]).await?;
            if joined == 0 {
                // It learns from its next heartbeat that it is gone, and must not end the life that came after it.
                return Ok(Vec::new());
            }
            session.execute(FORGET, values![now, KEPT_FOR]).await?;
            let rows = session.query(EARLIER_LIVES, values![owner, name]).await?;
            rows.iter().map(|row| Ok(Arc::from(session.get::<String>(row, 0)?))).collect()
        })
    }

    async fn beat(&self, owner: &str, lease: Duration) -> Result<bool> {
        let (now, lease) = (self.clock.now(), whole_millis(lease));
        let beaten = repeatable!(self.pools.beat, session => session.execute(BEAT, values![now, owner, lease]).await);
        Ok(beaten? > 0)
    }

    async fn leave(&self, owner: &str) -> Result<()> {
        transaction!(self.pools.beat, session => {
            session.execute("DELETE FROM duties WHERE owner = $1", values![owner]).await?;
            session.execute("DELETE FROM hosts WHERE owner = $1", values![owner]).await?;
            Ok(())
        })
    }

    async fn hosts(&self) -> Result<Vec<HostStatus>> {
        let now = self.clock.now();
        read!(self.pools.read, session => {
            let rows = session.query(HOSTS, values![now, LISTED_FOR]).await?;
            rows.iter().map(|row| status(session, row)).collect()
        })
    }

    async fn hold_duty(&self, duty: &str, owner: &str, lease: Duration) -> Result<bool> {
        let (now, lease) = (self.clock.now(), whole_millis(lease));
        let held =
            repeatable!(self.pools.beat, session => session.execute(HOLD_DUTY, values![now, duty, owner, lease]).await);
        Ok(held? > 0)
    }

    fn poll_every(&self) -> Option<Duration> {
        Some(POLL_EVERY)
    }
}
