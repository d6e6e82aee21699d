//! How times and states stand in the tables: times as milliseconds since 1970, states as their words.

use std::time::{Duration, SystemTime};

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

use crate::journal::State;
use modhost_core::event::Name;

/// A time in milliseconds since 1970, rounded down; what lies before counts as 1970.
pub(super) fn millis(time: SystemTime) -> i64 {
    whole_millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// A time in milliseconds since 1970, rounded up: something due then is never done too early.
pub(super) fn millis_up(time: SystemTime) -> i64 {
    millis(time.checked_add(Duration::from_nanos(999_999)).unwrap_or(time))
}

/// A length of time in milliseconds, rounded down.
pub(super) fn whole_millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

/// The time that was written down as milliseconds.
pub(super) fn time(millis: i64) -> SystemTime {
    let since_1970 = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since_1970).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl ToSql for State {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.word().into())
    }
}

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(|unknown: String| FromSqlError::Other(unknown.into()))
    }
}

/// A name out of a column.
pub(super) struct NameColumn(pub(super) Name);

impl FromSql for NameColumn {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str().map(|name| Self(name.into()))
    }
}
