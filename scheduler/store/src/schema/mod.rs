//! Brings the tables to what this program expects, in one transaction, under a lock: two processes that open
//! at once do it one after the other.
//!
//! ```text
//!  core.rs   the store's own tables: numbered steps, each applied once and never edited (checksums)
//!  kinds.rs  a table per kind: what is declared is compared with what was declared last time
//! ```
//!
//! A store that holds steps or kinds newer than this program is refused: an old program would drop what it
//! does not know.
mod core;
mod kinds;

use crate::{Error, kind::Kinds, session::Session};

/// What differs between the engines' dialects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// Text that compares by bytes.
    text: &'static str,
    int: &'static str,
    /// After a CREATE TABLE: types are enforced.
    strict: &'static str,
    /// In an index: NULL comes first.
    nulls: &'static str,
}

const SQLITE: Dialect = Dialect { text: "TEXT", int: "INTEGER", strict: " STRICT", nulls: "" };
const POSTGRES: Dialect = Dialect { text: "TEXT COLLATE \"C\"", int: "BIGINT", strict: "", nulls: " NULLS FIRST" };

impl Dialect {
    fn of(session: &Session) -> Self {
        if session.is_sqlite() { SQLITE } else { POSTGRES }
    }
    /// Fills `{text}`, `{int}`, `{strict}` in.
    fn fill(&self, sql: &str) -> String {
        sql.replace("{text}", self.text).replace("{int}", self.int).replace("{strict}", self.strict)
    }
}

/// The caller has begun a transaction that excludes other migrations, and commits it.
pub(crate) async fn migrate(session: &mut Session, kinds: &Kinds, now_us: i64) -> Result<(), Error> {
    core::migrate(session, now_us).await?;
    let there = kinds::indexes(session).await?;
    for kind in kinds.sorted() {
        kinds::migrate(session, &kind, &there).await?;
    }
    Ok(())
}
