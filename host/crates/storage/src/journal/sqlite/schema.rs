//! The tables of the journal, and their migrations.

use crate::sqlite::{DatabaseKind, MARK};

/// The journal's file. Its application id is `mdhj` in ASCII.
pub(crate) const JOURNAL: DatabaseKind = DatabaseKind {
    name: "journal",
    file: "journal.sqlite",
    application_id: 0x6d64_686a,
    migrations: &[V1, V2, MARK, V4, V5],
};

/// The first version. Foreign keys only document the tables; SQLite does not enforce them, because the writer maintains
/// them.
const V1: &str = "
-- A tenant's deliveries to a module.
CREATE TABLE lanes (
    id     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    module TEXT NOT NULL,
    UNIQUE (tenant, module)
) STRICT;

-- Events that have deliveries here. Times are milliseconds since 1970, but created_at, which is the platform's.
CREATE TABLE events (
    number         INTEGER PRIMARY KEY,
    source         TEXT NOT NULL,
    id             TEXT NOT NULL,
    name           TEXT NOT NULL,
    tenant         TEXT NOT NULL,
    user_id        TEXT,
    company_id     TEXT,
    created_at     INTEGER,
    received_at    INTEGER NOT NULL,
    payload_start  INTEGER NOT NULL,
    payload_length INTEGER NOT NULL,
    body           BLOB NOT NULL
) STRICT;

-- The events that were ever recorded, for as long as a redelivery is to be known. event is null once it is removed.
CREATE TABLE known_events (
    id     TEXT NOT NULL,
    source TEXT NOT NULL,
    at     INTEGER NOT NULL,
    event  INTEGER REFERENCES events (number),
    PRIMARY KEY (id, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_events_by_age ON known_events (at) WHERE event IS NULL;

-- seq is the order of arrival. One that waits with timed = 0 is due at once, and due_at is only its place in the queue;
-- with timed = 1 it is not due before due_at. behind: another delivery of its chat comes first.
CREATE TABLE deliveries (
    seq         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    event       INTEGER NOT NULL REFERENCES events (number),
    lane        INTEGER NOT NULL REFERENCES lanes (id),
    chat        TEXT,
    behind      INTEGER NOT NULL,
    state       TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    earlier     INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,
    timed       INTEGER NOT NULL,
    owner       TEXT,
    lease_until INTEGER,
    version     TEXT,
    reason      TEXT,
    changed_at  INTEGER NOT NULL,
    changes     INTEGER NOT NULL
) STRICT;
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_by_state ON deliveries (state, changed_at, lane);
CREATE INDEX deliveries_ready ON deliveries (lane, due_at) WHERE state = 'waiting' AND behind = 0 AND timed = 0;
CREATE INDEX deliveries_timed ON deliveries (lane, due_at) WHERE state = 'waiting' AND behind = 0 AND timed = 1;
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state = 'waiting' AND behind = 0 AND timed = 1;
CREATE INDEX deliveries_of_chat ON deliveries (lane, chat) WHERE chat IS NOT NULL AND state IN ('waiting', 'running');

-- Every change of a delivery's state but the first, which is its event's received_at.
CREATE TABLE changes (
    delivery INTEGER NOT NULL REFERENCES deliveries (seq),
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    state    TEXT NOT NULL,
    reason   TEXT,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;

-- The attempts that have ended; log is a JSON list of lines.
CREATE TABLE attempts (
    delivery INTEGER NOT NULL REFERENCES deliveries (seq),
    number   INTEGER NOT NULL,
    owner    TEXT NOT NULL,
    started  INTEGER NOT NULL,
    ended    INTEGER NOT NULL,
    version  TEXT,
    outcome  TEXT NOT NULL,
    log      TEXT NOT NULL,
    UNIQUE (delivery, number)
) STRICT;

-- A call's answer stands in answer, or in the large answer it refers to; in neither while the call is in flight.
CREATE TABLE calls (
    delivery  INTEGER NOT NULL REFERENCES deliveries (seq),
    number    INTEGER NOT NULL,
    import    TEXT NOT NULL,
    arguments BLOB NOT NULL,
    at        INTEGER NOT NULL,
    large     INTEGER REFERENCES large_answers (id),
    answer    BLOB,
    UNIQUE (delivery, number)
) STRICT;
CREATE INDEX calls_by_large_answer ON calls (large) WHERE large IS NOT NULL;

-- Large answers, each stored once by its SHA-256 for as long as a call refers to it.
CREATE TABLE large_answers (
    id     INTEGER PRIMARY KEY,
    hash   BLOB NOT NULL UNIQUE,
    answer BLOB NOT NULL
) STRICT;

-- Random bytes, drawn once: what is derived from them can be derived again.
CREATE TABLE salt (
    value BLOB NOT NULL
) STRICT;
INSERT INTO salt SELECT randomblob(32);
";

/// Adds the tenant to the key of an event, because two tenants behind one source may have events with the same id.
/// Events that were recorded before keep their old key, in the old table, because there may be millions of them.
const V2: &str = "
-- The events that were recorded before the tenant belonged to the key. Whose one is stands with the event while that is
-- there, and in tenant once it is removed; where neither says it, it is known for every tenant.
ALTER TABLE known_events RENAME TO known_before;
ALTER TABLE known_before ADD COLUMN tenant TEXT;
DROP INDEX known_events_by_age;
CREATE INDEX known_before_by_age ON known_before (at) WHERE event IS NULL;

-- The events that were recorded since, for as long as a redelivery is to be known. event is null once it is removed.
CREATE TABLE known_events (
    id     TEXT NOT NULL,
    source TEXT NOT NULL,
    tenant TEXT NOT NULL,
    at     INTEGER NOT NULL,
    event  INTEGER REFERENCES events (number),
    PRIMARY KEY (id, source, tenant)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_events_by_age ON known_events (at) WHERE event IS NULL;
";

/// Adds what each tenant uses, and the indexes by which a single tenant's records are removed. The constants are those of
/// the module `usage` when this version was released.
const V4: &str = "
-- The bytes of each tenant's records: of unfinished deliveries and their events, of ended ones, and of the ids of events.
CREATE TABLE tenant_usage (
    tenant     TEXT PRIMARY KEY,
    unfinished INTEGER NOT NULL,
    ended      INTEGER NOT NULL,
    ids        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO tenant_usage
SELECT tenant,
       coalesce(sum(bytes) FILTER (WHERE part = 'unfinished'), 0),
       coalesce(sum(bytes) FILTER (WHERE part = 'ended'), 0),
       coalesce(sum(bytes) FILTER (WHERE part = 'id'), 0)
FROM (
    SELECT l.tenant AS tenant, iif(d.state IN ('waiting', 'running'), 'unfinished', 'ended') AS part,
           512
           + coalesce((SELECT sum(64 + octet_length(c.import) + length(c.arguments)
                                  + coalesce(length(c.answer), length(a.answer), 0))
                       FROM calls c LEFT JOIN large_answers a ON a.id = c.large WHERE c.delivery = d.seq), 0)
           + coalesce((SELECT sum(256 + octet_length(outcome) + octet_length(log))
                       FROM attempts WHERE delivery = d.seq), 0) AS bytes
    FROM deliveries d JOIN lanes l ON l.id = d.lane
    UNION ALL
    SELECT e.tenant,
           iif(EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.number AND d.state IN ('waiting', 'running')),
               'unfinished', 'ended'),
           256 + length(e.body)
    FROM events e
    UNION ALL
    SELECT tenant, 'id', 128 + octet_length(id) FROM known_events
)
GROUP BY tenant;

CREATE INDEX deliveries_ended ON deliveries (lane, state, changed_at) WHERE state IN ('completed', 'dropped', 'dead');
DROP INDEX known_events_by_age;
CREATE INDEX known_events_by_tenant ON known_events (tenant, at) WHERE event IS NULL;
";

/// Lets a delivery that completes at its first attempt take two writes of one row: a row of its own for the attempt, for
/// each change, and for its event's list of deliveries is written only once there is more than one of them.
const V5: &str = "
-- single: the delivery is the only one of its event, whose number is its seq.
ALTER TABLE deliveries ADD COLUMN single INTEGER NOT NULL DEFAULT 0;

-- The attempt that ended at changed_at with the present state: when it was leased and when it began, its outcome, and its
-- log. Its number is attempt, and owner and version are its own. It moves to attempts when the state changes. So does a
-- change of the state: the last one, and the lease of this attempt, are in changes only if an earlier version wrote them.
ALTER TABLE deliveries ADD COLUMN leased_at INTEGER;
ALTER TABLE deliveries ADD COLUMN started INTEGER;
ALTER TABLE deliveries ADD COLUMN outcome TEXT;
ALTER TABLE deliveries ADD COLUMN log TEXT;

DROP INDEX deliveries_by_event;
CREATE INDEX deliveries_of_event ON deliveries (event) WHERE single = 0;
DROP INDEX deliveries_by_state;
CREATE INDEX deliveries_unfinished ON deliveries (state, lane) WHERE state IN ('waiting', 'running');
";
