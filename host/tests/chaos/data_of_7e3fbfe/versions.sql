-- versions.sqlite as modhost 7e3fbfe left it when it was killed. Never made anew: it shows that old directories still open.
PRAGMA foreign_keys = OFF;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1835296886;
BEGIN TRANSACTION;
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
INSERT INTO "modules" VALUES('Slow',NULL,NULL,NULL,NULL,NULL,1796035973724,'kim');
CREATE TABLE trials (
    module        TEXT PRIMARY KEY,
    watched       INTEGER NOT NULL,
    runs          INTEGER NOT NULL,
    failed        INTEGER NOT NULL,
    stable_runs   INTEGER NOT NULL,
    stable_failed INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
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
INSERT INTO "versions" VALUES(1,'Test','bbdf6b77c53530d64777dc1d986b77fae495c82f413c47a8e9bfda00b90ae001','serving','file',NULL,1796035973682,1796035975573,'replaced by 6e43ff0ef40c');
INSERT INTO "versions" VALUES(2,'Slow','bbdf6b77c53530d64777dc1d986b77fae495c82f413c47a8e9bfda00b90ae001','serving','file',NULL,1796035973683,NULL,NULL);
INSERT INTO "versions" VALUES(3,'Test','6e43ff0ef40c082c070de14655cd8718844a3f670acc5fe5162ea0a311ead7ad','serving','file',NULL,1796035975573,NULL,NULL);
CREATE INDEX versions_of_module ON versions (module, id);
CREATE UNIQUE INDEX versions_open ON versions (module, role) WHERE ended_at IS NULL;
COMMIT;
PRAGMA user_version = 2;
