//! A kind as the store knows it: its table, its statements, and how rows are derived from documents.
use crate::{Claim, Column, ColumnType, Error, Record, Stored, Value, value::Row};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Bytes of one indexed text at most: PostgreSQL's indexes take 2,704 for a whole entry.
const TEXT_MAX: usize = 2000;
/// Bytes of two texts in one index at most.
const PAIR_MAX: usize = 2600;
/// Bytes of a label at most: it shares an index with the kind and the id.
const LABEL_MAX: usize = 512;
/// Labels of one record at most.
const LABELS_MAX: usize = 1024;
/// Bytes of a document at most.
const DOC_MAX: usize = 64 << 20;

/// Columns every table has.
pub(crate) const BUILT_IN: &[(&str, ColumnType)] = &[
    ("id", ColumnType::Text),
    ("project", ColumnType::Text),
    ("name", ColumnType::Text),
    ("state", ColumnType::Text),
    ("created", ColumnType::Int),
    ("updated", ColumnType::Int),
];

/// What a row holds beside id and times.
#[derive(Debug, Clone)]
pub(crate) struct Derived {
    pub project: Value,
    pub name: Value,
    pub state: Value,
    pub doc: String,
    pub columns: Vec<Value>,
    pub claims: BTreeSet<Claim>,
    pub labels: BTreeSet<String>,
}

/// A record's type without the type: what `Store::open` must know of a kind.
#[derive(Debug, Clone, Copy)]
pub struct KindSpec {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) columns: &'static [Column],
    pub(crate) labelled: bool,
    pub(crate) indexes: &'static [&'static [&'static str]],
    /// (version of the document, id, document) -> row as of today.
    pub(crate) derive: fn(u32, &str, &str) -> Result<Derived, Error>,
}

impl KindSpec {
    pub fn of<R: Record>() -> Self {
        KindSpec {
            name: R::KIND,
            version: R::VERSION,
            columns: R::COLUMNS,
            labelled: R::LABELLED,
            indexes: R::INDEXES,
            derive: |version, id, doc| derive(&decode_doc::<R>(version, id, doc)?),
        }
    }
}

/// One kind of an open store, with its statements made once.
#[derive(Debug)]
pub(crate) struct Kind {
    pub spec: KindSpec,
    /// `"name"`
    pub table: String,
    pub get: String,
    /// id, now, version, project, name, state, doc, columns…
    pub insert: String,
    /// now, version, project, name, state, doc, columns…, id, rev, created
    pub update: String,
    pub delete: String,
    pub delete_rev: String,
}

/// What each query selects, in this order: see [`decode`].
pub(crate) const SELECTED: &str = "\"id\", \"rev\", \"created\", \"updated\", \"version\", \"doc\"";

impl Kind {
    pub fn new(spec: KindSpec) -> Result<Self, Error> {
        check_names(&spec)?;
        let table = format!("\"{}\"", spec.name);
        let mut names = String::new();
        let mut holes = String::new();
        let mut sets = String::new();
        for (at, column) in spec.columns.iter().enumerate() {
            names.push_str(&format!(", \"{}\"", column.name));
            holes.push_str(&format!(", ${}", at + 8));
            sets.push_str(&format!(", \"{}\" = ${}", column.name, at + 7));
        }
        let n = spec.columns.len() + 7;
        Ok(Kind {
            get: format!("SELECT {SELECTED} FROM {table} WHERE \"id\" = $1"),
            insert: format!(
                "INSERT INTO {table} (\"id\", \"rev\", \"created\", \"updated\", \"version\", \"project\", \"name\", \"state\", \
                 \"doc\"{names}) VALUES ($1, 1, $2, $2, $3, $4, $5, $6, $7{holes}) ON CONFLICT (\"id\") DO NOTHING"
            ),
            update: format!(
                "UPDATE {table} SET \"rev\" = \"rev\" + 1, \"updated\" = $1, \"version\" = $2, \"project\" = $3, \
                 \"name\" = $4, \"state\" = $5, \"doc\" = $6{sets} \
                 WHERE \"id\" = ${n} AND \"rev\" = ${} AND \"created\" = ${}",
                n + 1,
                n + 2
            ),
            delete: format!("DELETE FROM {table} WHERE \"id\" = $1 RETURNING \"rev\""),
            delete_rev: format!("DELETE FROM {table} WHERE \"id\" = $1 AND \"rev\" = $2 RETURNING \"rev\""),
            table,
            spec,
        })
    }

    pub fn column_type(&self, name: &str) -> Result<ColumnType, Error> {
        let built_in = BUILT_IN.iter().find(|(n, _)| *n == name).map(|(_, ty)| *ty);
        built_in
            .or_else(|| self.spec.columns.iter().find(|c| c.name == name).map(|c| c.ty))
            .ok_or_else(|| Error::UnknownColumn { kind: self.spec.name, column: name.to_owned() })
    }
}

fn is_identifier(name: &str) -> bool {
    name.len() <= 48
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn check_names(spec: &KindSpec) -> Result<(), Error> {
    let foreign = ["store_", "sqlite_", "pg_"].iter().any(|p| spec.name.starts_with(p));
    if !is_identifier(spec.name) || foreign {
        return Err(Error::schema(format!("{:?} cannot name a kind", spec.name)));
    }
    for (at, column) in spec.columns.iter().enumerate() {
        let taken = BUILT_IN.iter().any(|(n, _)| *n == column.name)
            || ["rev", "version", "doc"].contains(&column.name)
            || spec.columns[..at].iter().any(|c| c.name == column.name);
        if !is_identifier(column.name) || taken {
            return Err(Error::schema(format!(
                "{}: {:?} cannot name a column, or does so twice",
                spec.name, column.name
            )));
        }
    }
    let known = |name: &str| BUILT_IN.iter().any(|(n, _)| *n == name) || spec.columns.iter().any(|c| c.name == name);
    match spec.indexes.iter().find(|columns| columns.len() < 2 || !columns.iter().all(|c| known(c))) {
        Some(bad) => Err(Error::schema(format!("{}: {bad:?} is no index of several columns", spec.name))),
        None => Ok(()),
    }
}

/// The kinds of an open store.
#[derive(Debug, Default)]
pub(crate) struct Kinds(HashMap<&'static str, Arc<Kind>>);

impl Kinds {
    pub fn new(specs: &[KindSpec]) -> Result<Self, Error> {
        let mut kinds = HashMap::new();
        for spec in specs {
            if kinds.insert(spec.name, Arc::new(Kind::new(*spec)?)).is_some() {
                return Err(Error::schema(format!("the kind {} is declared twice", spec.name)));
            }
        }
        Ok(Kinds(kinds))
    }
    pub fn of<R: Record>(&self) -> Result<Arc<Kind>, Error> {
        self.0.get(R::KIND).cloned().ok_or_else(|| Error::UnknownKind { kind: R::KIND.to_owned() })
    }
    /// By name, so that every process migrates in the same order.
    pub fn sorted(&self) -> Vec<Arc<Kind>> {
        let mut kinds: Vec<_> = self.0.values().cloned().collect();
        kinds.sort_by_key(|k| k.spec.name);
        kinds
    }
}

fn check_text(kind: &'static str, what: &str, value: &Value, max: usize) -> Result<usize, Error> {
    let length = value.as_text().map_or(0, str::len);
    if value.has_nul() || length > max {
        let reason = format!("{what} has a NUL character, or more than {max} bytes");
        return Err(Error::Invalid { kind, reason });
    }
    Ok(length)
}

/// What `record` puts into its row.
pub(crate) fn derive<R: Record>(record: &R) -> Result<Derived, Error> {
    let invalid = |reason: String| Error::Invalid { kind: R::KIND, reason };
    let derived = Derived {
        project: Value::text(record.project()),
        name: Value::text(record.name()),
        state: Value::text(record.state()),
        doc: serde_json::to_string(record).map_err(|e| invalid(e.to_string()))?,
        columns: record.columns(),
        claims: record.claims().into_iter().collect(),
        labels: if R::LABELLED { record.labels().into_iter().collect() } else { BTreeSet::new() },
    };
    check(R::KIND, R::COLUMNS, record.id(), derived)
}

/// What every database can store.
fn check(kind: &'static str, columns: &[Column], id: &str, derived: Derived) -> Result<Derived, Error> {
    let invalid = |reason: String| Error::Invalid { kind, reason };
    if derived.doc.len() > DOC_MAX {
        return Err(invalid(format!("its document has more than {DOC_MAX} bytes")));
    }
    if check_text(kind, "id", &Value::text(Some(id)), TEXT_MAX)? == 0 {
        return Err(invalid("its id is empty".into()));
    }
    let pair =
        check_text(kind, "project", &derived.project, TEXT_MAX)? + check_text(kind, "name", &derived.name, TEXT_MAX)?;
    check_text(kind, "state", &derived.state, TEXT_MAX)?;
    if pair > PAIR_MAX {
        return Err(invalid(format!("project and name have more than {PAIR_MAX} bytes together")));
    }
    if derived.columns.len() != columns.len() {
        return Err(invalid(format!("it has {} column values for {} columns", derived.columns.len(), columns.len())));
    }
    for (column, value) in columns.iter().zip(&derived.columns) {
        if !fits(column.ty, value) {
            return Err(invalid(format!("the value of {} is not of its column's type", column.name)));
        }
        check_text(kind, column.name, value, TEXT_MAX)?;
    }
    for claim in &derived.claims {
        if claim.scope.len() + claim.value.len() > PAIR_MAX || claim.scope.contains('\0') || claim.value.contains('\0')
        {
            return Err(invalid(format!("a claim has a NUL character, or more than {PAIR_MAX} bytes")));
        }
    }
    if derived.labels.len() > LABELS_MAX {
        return Err(invalid(format!("it has more than {LABELS_MAX} labels")));
    }
    if derived.labels.iter().any(|label| label.len() > LABEL_MAX || label.contains('\0')) {
        return Err(invalid(format!("a label has a NUL character, or more than {LABEL_MAX} bytes")));
    }
    Ok(derived)
}

pub(crate) fn fits(ty: ColumnType, value: &Value) -> bool {
    matches!((ty, value), (_, Value::Null) | (ColumnType::Text, Value::Text(_)) | (ColumnType::Int, Value::Int(_)))
}

fn decode_doc<R: Record>(version: u32, id: &str, doc: &str) -> Result<R, Error> {
    let broken = |reason: String| Error::Document { kind: R::KIND, id: id.to_owned(), reason };
    if version == R::VERSION {
        return serde_json::from_str(doc).map_err(|e| broken(e.to_string()));
    }
    if version > R::VERSION {
        let reason = format!("{} {id} has a document of version {version}, {} is known", R::KIND, R::VERSION);
        return Err(Error::NewerStore { reason });
    }
    let old = serde_json::from_str(doc).map_err(|e| broken(e.to_string()))?;
    // Through text: a second reader of each type of record would be much code for what happens once.
    let new = R::upgrade(version, old).map_err(broken)?.to_string();
    serde_json::from_str(&new).map_err(|e| broken(e.to_string()))
}

/// Reads a row of [`SELECTED`].
pub(crate) fn decode<R: Record>(row: &Row) -> Result<Stored<R>, Error> {
    let version = u32::try_from(row.int(4)).unwrap_or(u32::MAX);
    let record = decode_doc::<R>(version, row.text(0), row.text(5))?;
    Ok(Stored { record, rev: row.int(1), created_us: row.int(2), updated_us: row.int(3) })
}
