//! The tables of the record of versions in PostgreSQL.

use crate::postgres::{Migration, Migrations};

/// The tables of the record.
pub(crate) const VERSIONS: Migrations =
    Migrations { store: "record of versions", steps: &[Migration { sql: V1, oldest_that_runs: 1 }] };

const V1: &str = "
-- Numbers the changes of all modules. Each change locks this row first, so that changes are committed in the order of their
-- numbers, and a host that has seen one number misses none below it.
CREATE TABLE version_clock (
    is_single boolean PRIMARY KEY DEFAULT true CHECK (is_single),
    number    bigint NOT NULL
);
INSERT INTO version_clock (number) VALUES (0);

-- What people said about a module. Hashes are SHA-256 in hexadecimal, of a component's bytes. changed is the number of its last
-- change, epoch that of the last one that decisions about versions depend on.
CREATE TABLE version_modules (
    module        text COLLATE \"C\" PRIMARY KEY,
    epoch         bigint NOT NULL,
    changed       bigint NOT NULL,
    pinned        text COLLATE \"C\",
    pinned_at     timestamptz,
    pinned_by     text,
    held_back     text COLLATE \"C\",
    held_back_why text,
    paused_at     timestamptz,
    paused_by     text
);
CREATE INDEX version_modules_by_change ON version_modules (changed);

-- What happened to versions, in order. role is serving, canary or refused; origin is file, rollback, pin or canary. Of
-- each module at most one serves and one is a canary that has not ended.
CREATE TABLE version_history (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    module   text COLLATE \"C\" NOT NULL,
    hash     text COLLATE \"C\" NOT NULL,
    role     text NOT NULL,
    origin   text NOT NULL,
    asked_by text,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    reason   text
);
CREATE INDEX version_history_of_module ON version_history (module, id);
CREATE UNIQUE INDEX version_history_open ON version_history (module, role) WHERE ended_at IS NULL;

-- What each host has seen of the trial of a canary, an entry of the history. A host that starts again is another owner.
-- observed is how long the trial has gone on, in milliseconds; runs and failed count deliveries, those of the version that
-- serves as stable.
CREATE TABLE version_trials (
    trial         bigint NOT NULL,
    owner         text COLLATE \"C\" NOT NULL,
    observed      bigint NOT NULL,
    runs          bigint NOT NULL,
    failed        bigint NOT NULL,
    stable_runs   bigint NOT NULL,
    stable_failed bigint NOT NULL,
    PRIMARY KEY (trial, owner)
);

-- The versions that files of hosts have offered, and the number of the change with which one did so last.
CREATE TABLE version_offers (
    module  text COLLATE \"C\" NOT NULL,
    hash    text COLLATE \"C\" NOT NULL,
    offered bigint NOT NULL,
    PRIMARY KEY (module, hash)
);

-- The version in the file of each host, and when it was offered. The file of a host goes forward along the offers, and only
-- what was not offered since its last version is new.
CREATE TABLE version_files (
    module  text COLLATE \"C\" NOT NULL,
    host    text COLLATE \"C\" NOT NULL,
    hash    text COLLATE \"C\" NOT NULL,
    offered bigint NOT NULL,
    PRIMARY KEY (module, host)
);

-- The kept components, complete. unrecorded_since is set from when one is kept until a version in the history has it.
CREATE TABLE components (
    hash             text COLLATE \"C\" PRIMARY KEY,
    size             bigint NOT NULL,
    parts            integer NOT NULL,
    unrecorded_since timestamptz
);

-- Their bytes, in parts. Those of a component that is not complete have no row above.
CREATE TABLE component_parts (
    hash    text COLLATE \"C\" NOT NULL,
    part    integer NOT NULL,
    bytes   bytea NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hash, part)
);
ALTER TABLE component_parts ALTER COLUMN bytes SET STORAGE EXTERNAL;
";
