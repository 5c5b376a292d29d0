//! What a type must say of itself to be stored.
use crate::Value;
use serde::{Serialize, de::DeserializeOwned};
use std::ops::{Deref, DerefMut};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Int,
}

/// An indexed column beside the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub ty: ColumnType,
}

impl Column {
    pub const fn text(name: &'static str) -> Self {
        Column { name, ty: ColumnType::Text }
    }
    pub const fn int(name: &'static str) -> Self {
        Column { name, ty: ColumnType::Int }
    }
}

/// Something only one record of the whole store may hold: an address in a subnet, a name in a domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    pub scope: String,
    pub value: String,
}

impl Claim {
    pub fn new(scope: impl Into<String>, value: impl Into<String>) -> Self {
        Claim { scope: scope.into(), value: value.into() }
    }
}

/// A type with a table of its own.
///
/// `name`, `project`, `state`, `columns`, `claims` and `labels` are derived anew at each write. If what they say of an
/// unchanged document changes, raise [`VERSION`](Record::VERSION): then all rows are derived anew at open.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Name of the table: `[a-z][a-z0-9_]*`, at most 48 characters, not starting with `store_`.
    const KIND: &'static str;
    /// Of the document; raise it together with [`upgrade`](Record::upgrade).
    const VERSION: u32 = 1;
    /// Further indexed columns.
    const COLUMNS: &'static [Column] = &[];

    /// Indexes over several columns, for lists that filter by the first and sort by the last of them: see
    /// [`crate::Query`]. Each column has one of its own already, and `(project, name)` and `created` too.
    const INDEXES: &'static [&'static [&'static str]] = &[];

    /// Primary key.
    fn id(&self) -> &str;
    fn project(&self) -> Option<&str> {
        None
    }
    fn name(&self) -> Option<&str> {
        None
    }
    fn state(&self) -> Option<&str> {
        None
    }
    /// Values for `COLUMNS`, in their order.
    fn columns(&self) -> Vec<Value> {
        vec![]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![]
    }
    /// Set where [`labels`](Record::labels) may give any: the others are spared the look.
    const LABELLED: bool = false;
    /// Words that a list may ask for, any number of them: tags, `name=value` of free properties.
    fn labels(&self) -> Vec<String> {
        vec![]
    }
    /// Makes a document of version `version` one of `Self::VERSION`.
    fn upgrade(_version: u32, doc: serde_json::Value) -> Result<serde_json::Value, String> {
        Ok(doc)
    }
}

/// A record as read from the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<R> {
    pub record: R,
    /// Grows by one with each update; compared at each update.
    pub rev: i64,
    /// Microseconds since 1970.
    pub created_us: i64,
    /// Microseconds since 1970; equal to `created_us` until the first update.
    pub updated_us: i64,
}

impl<R> Deref for Stored<R> {
    type Target = R;
    fn deref(&self) -> &R {
        &self.record
    }
}

impl<R> DerefMut for Stored<R> {
    fn deref_mut(&mut self) -> &mut R {
        &mut self.record
    }
}
