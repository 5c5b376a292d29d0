//! What can go wrong in the store. No variant carries a value of a record beyond ids and claims, so errors
//! may be logged.
use thiserror::Error as ThisError;

#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    #[error("{kind} {id} exists already")]
    Exists { kind: &'static str, id: String },
    /// Another record holds this claim.
    #[error("{value:?} is taken in {scope:?}")]
    Claimed { scope: String, value: String },
    /// The record was changed or deleted since it was read.
    #[error("{kind} {id} was changed by another transaction")]
    Conflict { kind: &'static str, id: String },
    /// The lease has passed to another holder.
    #[error("lease {lease} is held by another")]
    Fenced { lease: String },
    /// The marker of a page is not (or no longer) a record.
    #[error("marker {marker:?} is not a {kind}")]
    BadMarker { kind: &'static str, marker: String },
    #[error("{kind} has no column {column:?}")]
    UnknownColumn { kind: &'static str, column: String },
    /// The kind was not given to `Store::open`.
    #[error("the store was opened without the kind {kind}")]
    UnknownKind { kind: String },
    /// A query that compares a column with a value of another type, or names too many values.
    #[error("bad query: {reason}")]
    BadQuery { reason: String },
    /// A record that cannot be stored: text with a NUL or of excessive length in an indexed column, an empty id.
    #[error("{kind} cannot be stored: {reason}")]
    Invalid { kind: &'static str, reason: String },
    /// A stored document that its type cannot read.
    #[error("document {kind} {id}: {reason}")]
    Document { kind: &'static str, id: String, reason: String },
    /// The reader is older than the oldest change that is kept: list everything anew, go on from `head`.
    #[error("changes up to {horizon} are no longer kept")]
    FeedTruncated { horizon: i64 },
    #[error("the store was written by a newer version: {reason}")]
    NewerStore { reason: String },
    #[error("schema: {reason}")]
    Schema { reason: String },
    #[error("store URL: {reason}")]
    Url { reason: String },
    /// A transaction awaited something other than its `Tx`.
    #[error("a transaction may await nothing but its own Tx")]
    ForeignAwait,
    /// A transaction panicked; nothing of it was kept.
    #[error("a transaction panicked: {reason}")]
    Panicked { reason: String },
    /// The transaction lost against concurrent ones as often as is allowed.
    #[error("gave up after {attempts} attempts that concurrent transactions made void")]
    Contention { attempts: u32 },
    /// The transaction had to be run again (PostgreSQL 40001, 40P01); the store does so itself.
    #[error("concurrent transactions made this one void")]
    Serialization,
    /// The connection broke during COMMIT: the transaction may or may not have happened.
    #[error("the outcome of a commit is unknown: {reason}")]
    OutcomeUnknown { reason: String },
    /// Another process has the file for itself.
    #[error("another scheduler uses the store {path}: a SQLite file serves one scheduler")]
    InUse { path: String },
    #[error("the store is closed")]
    Closed,
    #[error("not possible with this engine: {reason}")]
    Unsupported { reason: &'static str },
    /// Whatever the database says that is none of the above.
    #[error("database: {reason}")]
    Engine { reason: String },
}

impl Error {
    /// Why a thread's work came to no end: it panicked, or the program ends and the work never began.
    pub(crate) fn of_task(error: tokio::task::JoinError) -> Self {
        if error.is_panic() { Error::Panicked { reason: error.to_string() } } else { Error::Closed }
    }

    pub(crate) fn engine(error: impl std::fmt::Display) -> Self {
        Error::Engine { reason: error.to_string() }
    }
    pub(crate) fn schema(reason: impl Into<String>) -> Self {
        Error::Schema { reason: reason.into() }
    }
    pub(crate) fn query(reason: impl Into<String>) -> Self {
        Error::BadQuery { reason: reason.into() }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Error::engine(error)
    }
}
