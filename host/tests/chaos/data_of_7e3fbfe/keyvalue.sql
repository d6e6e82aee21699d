-- keyvalue.sqlite as modhost 7e3fbfe left it when it was killed. Never made anew: it shows that old directories still open.
PRAGMA foreign_keys = OFF;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1835296875;
BEGIN TRANSACTION;
CREATE TABLE buckets (
    id    INTEGER PRIMARY KEY,
    space INTEGER NOT NULL REFERENCES spaces (id),
    name  TEXT NOT NULL,
    UNIQUE (space, name)
) STRICT;
INSERT INTO "buckets" VALUES(1,1,'default');
CREATE TABLE done (
    once   TEXT PRIMARY KEY,
    at     INTEGER NOT NULL,
    answer INTEGER
) STRICT, WITHOUT ROWID;
INSERT INTO "done" VALUES('dlv_06fea317758fb8ee21c34192-0-8a5e54d4853819e3-1796035973762',1796035973769,NULL);
CREATE TABLE entries (
    version    INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket     INTEGER NOT NULL REFERENCES buckets (id),
    key        TEXT NOT NULL,
    value      BLOB NOT NULL,
    changed_at INTEGER NOT NULL,
    UNIQUE (bucket, key)
) STRICT;
INSERT INTO "entries" VALUES(1,1,'color',X'626C7565',1796035973769);
CREATE TABLE spaces (
    id     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    module TEXT NOT NULL,
    keys   INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    UNIQUE (tenant, module)
) STRICT;
INSERT INTO "spaces" VALUES(1,'shop-a','Test',1,9);
CREATE INDEX done_by_age ON done (at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('entries',1);
COMMIT;
PRAGMA user_version = 1;
