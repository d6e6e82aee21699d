//! The tables of the key-value store.

use super::table::{Kind, Table, column, key, unchanged};

/// The tables, in the order in which they are copied.
pub(super) const TABLES: &[Table] = &[SPACES, BUCKETS, ENTRIES, DONE];

/// The numbers that come next. A version that was given to a value that is gone may be given again: nobody has kept it, as no
/// module is running.
pub(super) const DERIVE: &[&str] = &[
    "SELECT setval(pg_get_serial_sequence('keyvalue_spaces', 'id'), coalesce(max(id), 0) + 1, false) FROM keyvalue_spaces",
    "SELECT setval(pg_get_serial_sequence('keyvalue_buckets', 'id'), coalesce(max(id), 0) + 1, false) FROM keyvalue_buckets",
    "SELECT setval('keyvalue_versions', coalesce(max(version), 0) + 1, false) FROM keyvalue_entries",
];

const SPACES: Table = Table {
    name: "keyvalue_spaces",
    columns: &[
        key("id", Kind::Long),
        column("tenant", Kind::Text),
        column("module", Kind::Text),
        column("keys", Kind::Long),
        column("bytes", Kind::Long),
    ],
    select: "SELECT id, tenant, module, keys, bytes FROM spaces ORDER BY id",
    convert: unchanged,
};

const BUCKETS: Table = Table {
    name: "keyvalue_buckets",
    columns: &[key("id", Kind::Long), column("space", Kind::Long), column("name", Kind::Bytes)],
    select: "SELECT id, space, name FROM buckets ORDER BY id",
    convert: unchanged,
};

const ENTRIES: Table = Table {
    name: "keyvalue_entries",
    columns: &[
        key("bucket", Kind::Long),
        key("key", Kind::Bytes),
        column("version", Kind::Long),
        column("value", Kind::Bytes),
        column("changed_at", Kind::Time),
    ],
    select: "SELECT bucket, key, version, value, changed_at FROM entries ORDER BY version",
    convert: unchanged,
};

const DONE: Table = Table {
    name: "keyvalue_done",
    columns: &[key("once", Kind::Text), column("at", Kind::Time), column("answer", Kind::Long)],
    select: "SELECT once, at, answer FROM done ORDER BY once",
    convert: unchanged,
};
