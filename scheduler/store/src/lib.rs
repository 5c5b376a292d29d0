//! The store: typed records in an embedded SQLite file, or in PostgreSQL when a URL names one.
//!
//! ```text
//!  Store::write(closure) ──► queue ──► writer thread: BEGIN · savepoint per closure · COMMIT ──► answers
//!        │                                (SQLite: one fsync for the whole batch)
//!        └────────────────────────────► SERIALIZABLE transaction, re-run on conflict (PostgreSQL)
//!
//!  record ──► table of its kind (id, rev, project, name, state, created, updated, version, columns…, doc)
//!         ──► store_claim (scope, value): unique in the whole store
//!         ──► store_label (kind, label, id): words that a record has any number of (tags)
//!         ──► store_change (seq): what changed, in commit order; Store::watch wakes the readers
//! ```
//!
//! A record is a Rust struct kept as a versioned JSON document. What lists filter and sort by is declared
//! ([`Record::COLUMNS`]) and becomes an indexed column beside the document; what must be unique is a
//! [`Claim`]. A new field therefore needs no migration, a new column is filled from the documents when the
//! store is opened. Every change is a compare-and-set on `rev`.
//!
//! Why rusqlite and tokio-postgres, and not one crate for both: group commit needs a thread that owns the
//! connection and decides when to COMMIT, at about 10 us a statement; an async driver spends more than that
//! on the hop between its threads. The SQL is small, portable (TEXT and BIGINT only; no JSON operators,
//! arrays, LISTEN or advisory locks, so that engines that speak PostgreSQL's wire protocol will do), and all of
//! it goes through two calls (`session.rs`).
//!
//! ```no_run
//! # use pilvi_store::*; use serde::{Serialize, Deserialize};
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Port { id: String, network: String, address: String }
//! impl Record for Port {
//!     const KIND: &'static str = "port";
//!     const COLUMNS: &'static [Column] = &[Column::text("network")];
//!     fn id(&self) -> &str { &self.id }
//!     fn columns(&self) -> Vec<Value> { vec![self.network.as_str().into()] }
//!     fn claims(&self) -> Vec<Claim> { vec![Claim::new(format!("address:{}", self.network), &self.address)] }
//! }
//! # async fn f(port: Port) -> Result<(), Error> {
//! let store = Store::open("sqlite:/var/lib/pilvi/store.db", vec![KindSpec::of::<Port>()]).await?;
//! let stored = store.write(move |tx| { let port = port.clone(); Box::pin(async move { tx.insert(&port).await }) }).await?;
//! let ports = store.list::<Port>(Query::all().eq("network", "n1").sort("id", Dir::Asc).limit(100)).await?;
//! # Ok(()) }
//! ```
mod error;
mod feed;
mod follow;
mod fresh;
mod kind;
mod lease;
mod postgres;
mod query;
mod read;
mod record;
mod schema;
mod select;
mod session;
mod sole;
mod sqlite;
mod stats;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tx;
mod value;
mod work;

pub use error::Error;
pub use feed::{Change, Op};
pub use follow::Followed;
pub use fresh::{Listen, Told};
pub use kind::KindSpec;
pub use lease::{Guard, Holding, Lease, under};
pub use query::{Dir, Query};
pub use read::Group;
pub use record::{Claim, Column, ColumnType, Record, Stored};
pub use sole::Sole;
pub use sqlite::wait_for_clients;
pub use stats::Stats;
pub use store::{Author, Store};
pub use tx::Tx;
pub use value::Value;
