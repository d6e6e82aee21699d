//! What an error of PostgreSQL means.

use std::error::Error as _;

use tokio_postgres::Error;

use super::settings::PostgresSettings;
use crate::error::StorageError;

/// Why a statement failed, by what can be done.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The connection broke, or there was none. If a change was under way, it is unknown whether it was committed.
    Disconnected(StorageError),
    /// The transaction was rolled back because of another one. A repetition may succeed.
    Conflict(StorageError),
    /// The server refused the statement, and the transaction was rolled back.
    Refused(StorageError),
}

impl Failure {
    /// Returns the error to report.
    pub(crate) fn into_error(self) -> StorageError {
        match self {
            Self::Disconnected(error) | Self::Conflict(error) | Self::Refused(error) => error,
        }
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> Self {
        failure.into_error()
    }
}

/// The meaning of an error of a store.
pub(super) fn explain(error: &Error, store: &'static str, settings: &PostgresSettings) -> Failure {
    let Some(from_server) = error.as_db_error() else {
        let (text, is_data) = describe(error);
        let detail = format!("{settings}: {text}");
        return match is_data {
            true => Failure::Refused(StorageError::broken(store, detail)),
            false => Failure::Disconnected(StorageError::unavailable(store, detail)),
        };
    };
    // The message and no more: detail and query may contain what is stored.
    let (code, text) = (from_server.code(), from_server.message());
    let unavailable = |remedy: &str| StorageError::unavailable(store, format!("{settings}: {text}{remedy}"));
    match code.code() {
        "40001" | "40P01" => Failure::Conflict(unavailable("")),
        "53100" => {
            Failure::Refused(StorageError::full(store, format!("{settings}: {text}; free disk space on the server")))
        }
        "53300" => Failure::Disconnected(unavailable("; raise max_connections, or put pgbouncer in front of it")),
        "28P01" | "28000" => {
            Failure::Disconnected(unavailable("; check user and password in the URL, and pg_hba.conf"))
        }
        "3D000" => Failure::Disconnected(unavailable("; create the database, or correct its name in the URL")),
        "25006" => Failure::Disconnected(unavailable("; the server is a standby")),
        "42501" => Failure::Refused(StorageError::broken(
            store,
            format!("{settings}: {text}; grant the user all privileges on the schema"),
        )),
        // Resources, operators, the system, connections, and what pgbouncer reports for its own (08P01, 53…).
        code if ["53", "57", "58", "08"].iter().any(|class| code.starts_with(class)) => {
            Failure::Disconnected(unavailable(""))
        }
        code => Failure::Refused(StorageError::broken(store, format!("{settings}: {text} ({code})"))),
    }
}

/// Describes an error that the server did not report, and returns whether a value could not be converted.
fn describe(error: &Error) -> (String, bool) {
    let mut text = error.to_string();
    let is_data =
        ["error serializing", "error deserializing", "invalid column", "query returned", "error encoding", "expected "]
            .iter()
            .any(|start| text.starts_with(start));
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    if text.contains("certificate") {
        text.push_str(
            "; the certificate is always verified if TLS is used: name the file of its CA with ?sslrootcert=, or use ?sslmode=disable \
             in a network that nobody else can reach",
        );
    }
    (text, is_data)
}
