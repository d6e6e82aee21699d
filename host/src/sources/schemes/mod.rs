//! How a source tells a real event from a forged one: one file a signature scheme.

pub mod unique;

/// Why a request is taken for a forgery. The text goes to the sender and to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgery {
    /// A header the scheme needs is not there.
    #[error("missing header {0}")]
    MissingHeader(&'static str),
    /// A header can't be read.
    #[error("header {0} is not {1}")]
    BadHeader(&'static str, &'static str),
    /// No secret makes this signature of this body.
    #[error("invalid signature")]
    WrongSignature,
    /// The signature is older than the source allows.
    #[error("timestamp outside the tolerance of {0} seconds")]
    Stale(u64),
}
