//! The tables of the journal in PostgreSQL, and their migrations.

use crate::postgres::{Migration, Migrations};

/// The name of the store, as used in messages.
pub(super) const STORE: &str = "journal";

/// The journal's tables.
pub(crate) const JOURNAL: Migrations =
    Migrations { store: STORE, steps: &[Migration { sql: V1, oldest_that_runs: 1 }] };

/// The first version. Times are milliseconds since 1970 by the server's clock, but `events.created_at`, which is the platform's,
/// and `calls.at`, which is the host's. Text that is compared has the collation "C", so that indexes don't depend on the
/// operating system.
const V1: &str = r#"
-- A tenant's deliveries to a module.
CREATE TABLE lanes (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    module text COLLATE "C" NOT NULL,
    UNIQUE (tenant, module)
);

CREATE SEQUENCE event_numbers;

-- Events that have deliveries here. siblings: the number of deliveries it was recorded with. bytes: its size in tenant_usage.
CREATE TABLE events (
    number         bigint PRIMARY KEY,
    source         text NOT NULL,
    id             text NOT NULL,
    name           text NOT NULL,
    tenant         text NOT NULL,
    user_id        text,
    company_id     text,
    created_at     bigint,
    received_at    bigint NOT NULL,
    payload_start  bigint NOT NULL,
    payload_length bigint NOT NULL,
    siblings       bigint NOT NULL,
    bytes          bigint NOT NULL,
    body           bytea NOT NULL
);

-- The events that were ever recorded, for as long as a redelivery is to be known. event is null once it is removed, or if it
-- had no deliveries. key: the first half of the SHA-256 of the id, then that of source and tenant. token: of the operation that
-- recorded it, which recognizes its own work by it after a broken connection.
CREATE TABLE known_events (
    key      bytea PRIMARY KEY,
    tenant   text COLLATE "C" NOT NULL,
    at       bigint NOT NULL,
    event    bigint,
    token    bigint NOT NULL,
    bytes    bigint NOT NULL
);
CREATE INDEX known_events_idle ON known_events (tenant, at) WHERE event IS NULL;

-- seq is the order of arrival. One that waits with timed = false is due at once, and due_at is only its place in the queue;
-- with timed = true it is not due before due_at. behind: another delivery of its chat comes first.
CREATE TABLE deliveries (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    event       bigint NOT NULL,
    lane        bigint NOT NULL,
    chat        text COLLATE "C",
    behind      boolean NOT NULL,
    state       text COLLATE "C" NOT NULL,
    attempt     integer NOT NULL,
    earlier     integer NOT NULL,
    due_at      bigint NOT NULL,
    timed       boolean NOT NULL,
    owner       text COLLATE "C",
    lease_until bigint,
    version     text,
    reason      text,
    changed_at  bigint NOT NULL,
    changes     integer NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_by_state ON deliveries (state, seq);
CREATE INDEX deliveries_by_lane ON deliveries (lane, state, seq);
CREATE INDEX deliveries_by_change ON deliveries (changed_at);
CREATE INDEX deliveries_ready ON deliveries (lane, due_at, seq) WHERE state = 'waiting' AND NOT behind AND NOT timed;
CREATE INDEX deliveries_timed ON deliveries (lane, due_at, seq) WHERE state = 'waiting' AND NOT behind AND timed;
CREATE INDEX deliveries_running ON deliveries (owner, seq) WHERE state = 'running';
CREATE INDEX deliveries_of_chat ON deliveries (lane, chat, seq) WHERE chat IS NOT NULL AND state IN ('waiting', 'running');
CREATE INDEX deliveries_ended ON deliveries (lane, state, changed_at, seq) WHERE state IN ('completed', 'dropped', 'dead');

-- The chats with unfinished deliveries. The row is the lock of a chat's order.
CREATE TABLE chats (
    lane       bigint NOT NULL,
    chat       text COLLATE "C" NOT NULL,
    unfinished bigint NOT NULL,
    PRIMARY KEY (lane, chat)
) WITH (fillfactor = 70);

-- Every change of a delivery's state but the first, which is its event's received_at.
CREATE TABLE changes (
    delivery bigint NOT NULL,
    number   integer NOT NULL,
    at       bigint NOT NULL,
    state    text NOT NULL,
    reason   text,
    PRIMARY KEY (delivery, number)
);

-- The attempts that have ended; log is a JSON list of lines.
CREATE TABLE attempts (
    delivery bigint NOT NULL,
    number   integer NOT NULL,
    owner    text NOT NULL,
    started  bigint NOT NULL,
    ended    bigint NOT NULL,
    version  text,
    outcome  text NOT NULL,
    log      text NOT NULL,
    bytes    bigint NOT NULL,
    PRIMARY KEY (delivery, number)
);

-- answer is null while the call is in flight.
CREATE TABLE calls (
    delivery  bigint NOT NULL,
    number    bigint NOT NULL,
    import    text NOT NULL,
    arguments bytea NOT NULL,
    at        bigint NOT NULL,
    answer    bytea,
    bytes     bigint NOT NULL,
    PRIMARY KEY (delivery, number)
) WITH (fillfactor = 80);

-- The number of deliveries of a lane in each state is the sum over its slots. Each connection that writes uses one slot, so
-- that hosts don't wait for each other. version: counts the changes of the row.
CREATE TABLE counts (
    lane      bigint NOT NULL,
    slot      integer NOT NULL,
    waiting   bigint NOT NULL,
    running   bigint NOT NULL,
    completed bigint NOT NULL,
    dead      bigint NOT NULL,
    dropped   bigint NOT NULL,
    version   bigint NOT NULL,
    PRIMARY KEY (lane, slot)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The bytes of each tenant's records, as sums over slots: of unfinished deliveries and their events, of ended ones, and of the
-- ids of events.
CREATE TABLE tenant_usage (
    tenant     text COLLATE "C" NOT NULL,
    slot       integer NOT NULL,
    unfinished bigint NOT NULL,
    ended      bigint NOT NULL,
    ids        bigint NOT NULL,
    version    bigint NOT NULL,
    PRIMARY KEY (tenant, slot)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The connections that write batches. Each transaction of one locks its row and checks the epoch, so that after a broken
-- connection the transaction that was under way is either committed or can't be any more.
CREATE TABLE writers (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    at    timestamptz NOT NULL DEFAULT now()
);

-- One row per life of a host. gone: it was seen to have stopped, and doesn't come back under this owner.
CREATE TABLE hosts (
    owner       text COLLATE "C" PRIMARY KEY,
    name        text COLLATE "C" NOT NULL,
    admin       text,
    version     text NOT NULL,
    settings    text NOT NULL,
    modules     text[] NOT NULL,
    joined_at   bigint NOT NULL,
    seen_at     bigint NOT NULL,
    lease_until bigint NOT NULL,
    gone        boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- What one host at a time does. epoch: counts the owners.
CREATE TABLE duties (
    duty        text COLLATE "C" PRIMARY KEY,
    owner       text COLLATE "C" NOT NULL,
    lease_until bigint NOT NULL,
    epoch       bigint NOT NULL
) WITH (fillfactor = 50);

-- Random bytes, drawn once: what is derived from them can be derived again.
CREATE TABLE salt (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    value bytea NOT NULL
);
INSERT INTO salt (value) VALUES (sha256((gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea));
"#;
