-- A journal as the first version of the schema was written. Never made anew: it shows that old files still open.
PRAGMA foreign_keys = OFF;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = 1835296874;
BEGIN TRANSACTION;
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
INSERT INTO "attempts" VALUES(1,1,'host-1',1790000000015,1790000000020,'v1','completed','[{"at":12,"level":"info","context":"stdout","text":"hello"}]');
INSERT INTO "attempts" VALUES(2,1,'host-1',1790000000025,1790000000030,'v1','completed','[]');
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
INSERT INTO "calls" VALUES(1,0,'search.search',X'617267756D656E7473206F662030',1790000000000,NULL,X'616E73776572');
INSERT INTO "calls" VALUES(1,1,'search.search',X'617267756D656E7473206F662031',1790000000001,1,NULL);
CREATE TABLE changes (
    delivery INTEGER NOT NULL REFERENCES deliveries (seq),
    number   INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    state    TEXT NOT NULL,
    reason   TEXT,
    PRIMARY KEY (delivery, number)
) STRICT, WITHOUT ROWID;
INSERT INTO "changes" VALUES(1,1,1790000000010,'running',NULL);
INSERT INTO "changes" VALUES(1,2,1790000000020,'completed',NULL);
INSERT INTO "changes" VALUES(2,1,1790000000010,'running',NULL);
INSERT INTO "changes" VALUES(2,2,1790000000030,'dead','no more attempts');
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
INSERT INTO "deliveries" VALUES(1,'dlv_592ab3de7091a6710cbc024c',1,1,NULL,0,'completed',1,0,1790000000001,0,NULL,NULL,'v1',NULL,1790000000020,2);
INSERT INTO "deliveries" VALUES(2,'dlv_3ed8901359c4ba24430e219e',2,1,NULL,0,'dead',1,0,1790000000002,0,NULL,NULL,'v1','no more attempts',1790000000030,2);
INSERT INTO "deliveries" VALUES(3,'dlv_a3d03d9ee0c9b6567be59d48',3,1,'chat_1',0,'waiting',0,0,1790000000003,0,NULL,NULL,NULL,NULL,1790000000003,0);
INSERT INTO "deliveries" VALUES(4,'dlv_7a48f33cd678ef46c7182ced',4,1,'chat_1',1,'waiting',0,0,1790000000004,0,NULL,NULL,NULL,NULL,1790000000004,0);
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
INSERT INTO "events" VALUES(1,'unique','evt_1','test.happened','acme','user_1',NULL,1790000000,1790000000001,48,32,X'7B226964223A226576745F31222C226576656E74223A22746573742E68617070656E6564222C227061796C6F6164223A7B22776F7264223A226772C3B6C39F6572222C226F66223A226576745F31227D2C226578747261223A317D');
INSERT INTO "events" VALUES(2,'unique','evt_2','test.happened','acme','user_1',NULL,1790000000,1790000000002,48,32,X'7B226964223A226576745F32222C226576656E74223A22746573742E68617070656E6564222C227061796C6F6164223A7B22776F7264223A226772C3B6C39F6572222C226F66223A226576745F32227D2C226578747261223A317D');
INSERT INTO "events" VALUES(3,'unique','evt_3','test.happened','acme','user_1',NULL,1790000000,1790000000003,48,32,X'7B226964223A226576745F33222C226576656E74223A22746573742E68617070656E6564222C227061796C6F6164223A7B22776F7264223A226772C3B6C39F6572222C226F66223A226576745F33227D2C226578747261223A317D');
INSERT INTO "events" VALUES(4,'unique','evt_4','test.happened','acme','user_1',NULL,1790000000,1790000000004,48,32,X'7B226964223A226576745F34222C226576656E74223A22746573742E68617070656E6564222C227061796C6F6164223A7B22776F7264223A226772C3B6C39F6572222C226F66223A226576745F34227D2C226578747261223A317D');
CREATE TABLE known_events (
    id     TEXT NOT NULL,
    source TEXT NOT NULL,
    at     INTEGER NOT NULL,
    event  INTEGER REFERENCES events (number),
    PRIMARY KEY (id, source)
) STRICT, WITHOUT ROWID;
INSERT INTO "known_events" VALUES('evt_1','unique',1790000000001,1);
INSERT INTO "known_events" VALUES('evt_2','unique',1790000000002,2);
INSERT INTO "known_events" VALUES('evt_3','unique',1790000000003,3);
INSERT INTO "known_events" VALUES('evt_4','unique',1790000000004,4);
CREATE TABLE lanes (
    id     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    module TEXT NOT NULL,
    UNIQUE (tenant, module)
) STRICT;
INSERT INTO "lanes" VALUES(1,'acme','Echo');
CREATE TABLE large_answers (
    id     INTEGER PRIMARY KEY,
    hash   BLOB NOT NULL UNIQUE,
    answer BLOB NOT NULL
) STRICT;
INSERT INTO "large_answers" VALUES(1,X'307DACD492DC27B1E36EA55958CB30210EB2AB2E781736D4FD85969703342C2F',CAST(replace(hex(zeroblob(9000)), '00', char(1)) AS BLOB));
CREATE TABLE salt (
    value BLOB NOT NULL
) STRICT;
INSERT INTO "salt" VALUES(X'FBB7C390F3D63900B234EE54C169D7BF6E2ACA60E060C3B18168E28F2A0F3EB6');
CREATE INDEX known_events_by_age ON known_events (at) WHERE event IS NULL;
CREATE INDEX deliveries_by_event ON deliveries (event);
CREATE INDEX deliveries_by_state ON deliveries (state, changed_at, lane);
CREATE INDEX deliveries_ready ON deliveries (lane, due_at) WHERE state = 'waiting' AND behind = 0 AND timed = 0;
CREATE INDEX deliveries_timed ON deliveries (lane, due_at) WHERE state = 'waiting' AND behind = 0 AND timed = 1;
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state = 'waiting' AND behind = 0 AND timed = 1;
CREATE INDEX deliveries_of_chat ON deliveries (lane, chat) WHERE chat IS NOT NULL AND state IN ('waiting', 'running');
CREATE INDEX calls_by_large_answer ON calls (large) WHERE large IS NOT NULL;
COMMIT;
PRAGMA user_version = 1;
