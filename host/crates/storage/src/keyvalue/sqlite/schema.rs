//! The tables of the key-value store.

use crate::sqlite::{DatabaseKind, MARK};

/// The store's file. Its application id is `mdhk` in ASCII.
pub(crate) const STORE: DatabaseKind = DatabaseKind {
    name: "key-value store",
    file: "keyvalue.sqlite",
    application_id: 0x6d64_686b,
    migrations: &[V1, MARK],
};

const V1: &str = "
-- What a module keeps for a tenant. keys and bytes are those of all its buckets; bytes are those of keys and values.
CREATE TABLE spaces (
    id     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    module TEXT NOT NULL,
    keys   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    UNIQUE (tenant, module)
) STRICT;

-- The buckets that have keys.
CREATE TABLE buckets (
    id    INTEGER PRIMARY KEY,
    space INTEGER NOT NULL REFERENCES spaces (id),
    name  TEXT NOT NULL,
    UNIQUE (space, name)
) STRICT;

-- version is another for each value that is ever set, also under the same key. Times are milliseconds since 1970.
CREATE TABLE entries (
    version    INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket     INTEGER NOT NULL REFERENCES buckets (id),
    key        TEXT NOT NULL,
    value      BLOB NOT NULL,
    changed_at INTEGER NOT NULL,
    UNIQUE (bucket, key)
) STRICT;

-- Changes that were done and may be asked for again, by somebody who doesn't know that. answer is what was counted.
CREATE TABLE done (
    once   TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,
    answer INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX done_by_age ON done (at);
";
