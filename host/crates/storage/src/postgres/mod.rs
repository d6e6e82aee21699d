//! What the PostgreSQL engines share: settings, TLS, connections, migrations, and the meaning of errors.
//!
//! A [`Database`] is where several hosts keep their journal, key-value store and versions. Each store uses pools of
//! connections of its own, one for each role ([`Pool`]), so that a slow role delays no other, and brings a list of
//! migrations ([`Migrations`]).
//!
//! The engines work through a connection pooler in transaction mode, like pgbouncer: they keep no state in a session.
//! There are no prepared statements with names, no `LISTEN`, no `SET`, no advisory locks of a session. Each statement is sent
//! with its types and runs in one round trip; see [`Session::query`].

mod database;
mod failure;
mod migrations;
mod pool;
mod session;
mod settings;
mod tls;
mod tries;
mod values;

pub use database::{Database, Durability};
pub(crate) use failure::Failure;
pub(crate) use migrations::{Migration, Migrations};
pub(crate) use pool::{Pool, PooledSession};
pub(crate) use session::Session;
pub use settings::PostgresSettings;
pub(crate) use tokio_postgres::Row;
pub(crate) use tries::{Kind, Tries, read, repeatable, statement, transaction, tries};
pub(crate) use values::{Value, value, values};
