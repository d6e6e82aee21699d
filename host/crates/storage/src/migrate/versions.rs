//! The tables of the record of versions.

use super::table::{Kind, Table, column, key, unchanged};

/// The tables, in the order in which they are copied.
pub(super) const TABLES: &[Table] = &[MODULES, HISTORY, TRIALS, OFFERS];

/// The numbers that come next.
pub(super) const DERIVE: &[&str] = &[
    "SELECT setval(pg_get_serial_sequence('version_history', 'id'), coalesce(max(id), 0) + 1, false) FROM version_history",
    "UPDATE version_clock SET number = greatest((SELECT coalesce(max(changed), 0) FROM version_modules),
                                                (SELECT coalesce(max(offered), 0) FROM version_offers))",
    "UPDATE components c SET unrecorded_since = NULL WHERE EXISTS (SELECT FROM version_history h WHERE h.hash = c.hash)",
];

/// Each module is one change.
const MODULES: Table = Table {
    name: "version_modules",
    columns: &[
        key("module", Kind::Text),
        column("epoch", Kind::Long),
        column("changed", Kind::Long),
        column("pinned", Kind::Text),
        column("pinned_at", Kind::Time),
        column("pinned_by", Kind::Text),
        column("held_back", Kind::Text),
        column("held_back_why", Kind::Text),
        column("paused_at", Kind::Time),
        column("paused_by", Kind::Text),
    ],
    select: "SELECT n.module, row_number() OVER by_name, row_number() OVER by_name, pinned, pinned_at, pinned_by, held_back, \
                    held_back_why, paused_at, paused_by \
             FROM (SELECT module FROM modules UNION SELECT module FROM versions) n LEFT JOIN modules m ON m.module = n.module \
             WINDOW by_name AS (ORDER BY n.module) ORDER BY n.module",
    convert: unchanged,
};

const HISTORY: Table = Table {
    name: "version_history",
    columns: &[
        key("id", Kind::Long),
        column("module", Kind::Text),
        column("hash", Kind::Text),
        column("role", Kind::Text),
        column("origin", Kind::Text),
        column("asked_by", Kind::Text),
        column("began_at", Kind::Time),
        column("ended_at", Kind::Time),
        column("reason", Kind::Text),
    ],
    select: "SELECT id, module, hash, role, origin, asked_by, began_at, ended_at, reason FROM versions ORDER BY id",
    convert: unchanged,
};

/// What the host has seen of a trial counts like what a host sees that is gone.
const TRIALS: Table = Table {
    name: "version_trials",
    columns: &[
        key("trial", Kind::Long),
        key("owner", Kind::Text),
        column("observed", Kind::Long),
        column("runs", Kind::Long),
        column("failed", Kind::Long),
        column("stable_runs", Kind::Long),
        column("stable_failed", Kind::Long),
    ],
    select: "SELECT v.id, 'sqlite', t.watched, t.runs, t.failed, t.stable_runs, t.stable_failed \
             FROM trials t JOIN versions v ON v.module = t.module AND v.role = 'canary' AND v.ended_at IS NULL ORDER BY v.id",
    convert: unchanged,
};

/// The versions that the file had, in the order in which it had them last: a host whose file has one of them offers nothing
/// new.
const OFFERS: Table = Table {
    name: "version_offers",
    columns: &[key("module", Kind::Text), key("hash", Kind::Text), column("offered", Kind::Long)],
    select: "SELECT module, hash, max(id) FROM versions WHERE origin = 'file' GROUP BY module, hash ORDER BY module, hash",
    convert: unchanged,
};
