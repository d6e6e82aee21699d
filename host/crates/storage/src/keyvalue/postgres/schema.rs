//! The tables of the key-value store in PostgreSQL.

use crate::postgres::{Migration, Migrations};

/// The tables of the store.
pub(crate) const STORE: Migrations =
    Migrations { store: "key-value store", steps: &[Migration { sql: V1, oldest_that_runs: 1 }] };

// Keys and names of buckets are bytes: they may contain a NUL, which `text` can't, and are ordered by their bytes.
// `convert_from(key, 'UTF8')` shows them.
const V1: &str = "
-- What a module keeps for a tenant. keys and bytes are those of all its buckets; bytes are those of keys and values. Its row is
-- the lock for changes of the space.
CREATE TABLE keyvalue_spaces (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE \"C\" NOT NULL,
    module text COLLATE \"C\" NOT NULL,
    keys   bigint NOT NULL,
    bytes  bigint NOT NULL,
    UNIQUE (tenant, module)
) WITH (fillfactor = 70);

-- The buckets that have keys.
CREATE TABLE keyvalue_buckets (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space bigint NOT NULL REFERENCES keyvalue_spaces (id),
    name  bytea NOT NULL,
    UNIQUE (space, name)
);

-- version is another for each value that is ever set, also under the same key.
CREATE SEQUENCE keyvalue_versions;
CREATE TABLE keyvalue_entries (
    bucket     bigint NOT NULL REFERENCES keyvalue_buckets (id),
    key        bytea NOT NULL,
    version    bigint NOT NULL,
    value      bytea NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, key)
);

-- Changes that were done and may be asked for again, by somebody who doesn't know that. answer is what was counted.
CREATE TABLE keyvalue_done (
    once   text COLLATE \"C\" PRIMARY KEY,
    at     timestamptz NOT NULL,
    answer bigint
);
CREATE INDEX keyvalue_done_by_age ON keyvalue_done (at);
";
