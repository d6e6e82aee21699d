//! The tables of the record of versions.

use crate::sqlite::{DatabaseKind, MARK};

/// The record's file. Its application id is `mdhv` in ASCII.
pub(crate) const VERSIONS: DatabaseKind = DatabaseKind {
    name: "record of versions",
    file: "versions.sqlite",
    application_id: 0x6d64_6876,
    migrations: &[V1, V2, MARK],
};

const V1: &str = "
-- What people said about a module. Hashes are SHA-256 in hexadecimal, of a component's bytes; times are milliseconds since
-- 1970.
CREATE TABLE modules (
    module        TEXT PRIMARY KEY,
    pinned        TEXT,
    pinned_at     INTEGER,
    pinned_by     TEXT,
    held_back     TEXT,
    held_back_why TEXT,
    paused_at     INTEGER,
    paused_by     TEXT
) STRICT, WITHOUT ROWID;

-- What happened to versions, in order. role is serving, canary or refused; origin is file, rollback, pin or canary. Of
-- each module at most one serves and one is a canary that has not ended.
CREATE TABLE versions (
    id       INTEGER PRIMARY KEY,
    module   TEXT NOT NULL,
    hash     TEXT NOT NULL,
    role     TEXT NOT NULL,
    origin   TEXT NOT NULL,
    asked_by TEXT,
    began_at INTEGER NOT NULL,
    ended_at INTEGER,
    reason   TEXT
) STRICT;
CREATE INDEX versions_of_module ON versions (module, id);
CREATE UNIQUE INDEX versions_open ON versions (module, role) WHERE ended_at IS NULL;
";

const V2: &str = "
-- How far the trial of the module's canary has come, so that the next host goes on with it. watched is how long it has gone
-- on while a host ran, in milliseconds; runs and failed count deliveries, those of the version that serves as stable.
CREATE TABLE trials (
    module        TEXT PRIMARY KEY,
    watched       INTEGER NOT NULL,
    runs          INTEGER NOT NULL,
    failed        INTEGER NOT NULL,
    stable_runs   INTEGER NOT NULL,
    stable_failed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";
