//! An existing Keystone's people, places and roles, out of a dump of its database.
//!
//! ```text
//!  dump -> rows -> records (same ids) -> store, in the order of who needs whom
//! ```
//! It may run again: what is there already is left alone, so a second dump adds what came since. Passwords
//! stay as Keystone hashed them until their users log in. Roles take over those of the same name, with all
//! their assignments; the administrator and his project, where this cloud made its own, stay and stand for
//! the imported ones. What is not taken is told.
mod dump;
mod people;
mod places;
mod roles;
mod services;

pub use dump::DumpError;

use crate::{Identity, directory::Area, tables::Extra};
use dump::{Dump, Row};
use pilvi_kit::Fault;
use pilvi_store::{Error, Record};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    io::BufRead,
};

/// Records that are written in one transaction.
const CHUNK: usize = 200;

/// What is taken, each with what it is called in the report.
const TABLES: [&str; 19] = [
    "project",
    "project_tag",
    "project_option",
    "user",
    "local_user",
    "password",
    "user_option",
    "group",
    "user_group_membership",
    "role",
    "role_option",
    "implied_role",
    "assignment",
    "system_assignment",
    "region",
    "service",
    "endpoint",
    "id_mapping",
    "federated_user",
];
/// Tables whose rows mean nothing elsewhere.
const SILENT: [&str; 6] =
    ["alembic_version", "migrate_version", "revocation_event", "token", "whitelisted_config", "nonlocal_user"];
/// Keystone's own root above all domains.
const ROOT: &str = "<<keystone.domain.root>>";

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error("the dump: {0}")]
    Row(String),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("this is no dump of a Keystone: it has no rows of users and projects")]
    Empty,
}

/// What became of it all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub added: BTreeMap<&'static str, usize>,
    pub known: BTreeMap<&'static str, usize>,
    /// (what, why) -> how many
    pub left: BTreeMap<(String, String), usize>,
}

impl Report {
    fn leave(&mut self, what: &str, why: impl Into<String>) {
        *self.left.entry((what.to_owned(), why.into())).or_default() += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: std::collections::BTreeSet<&str> = self.added.keys().chain(self.known.keys()).copied().collect();
        for kind in kinds {
            let count = |of: &BTreeMap<&'static str, usize>| of.get(kind).copied().unwrap_or_default();
            writeln!(f, "{kind}: {} added, {} there already", count(&self.added), count(&self.known))?;
        }
        for ((what, why), count) in &self.left {
            writeln!(f, "left: {count} {what}: {why}")?;
        }
        Ok(())
    }
}

/// One run: the rows, and ids that stand for others here.
struct Import<'i> {
    identity: &'i Identity,
    dump: Dump,
    /// imported id -> ours
    aliases: HashMap<String, String>,
    report: Report,
}

impl Identity {
    /// Takes all that is known from a dump of Keystone's database.
    pub async fn import_keystone(&self, dump: impl BufRead) -> Result<Report, ImportError> {
        let dump = dump::read(dump, &TABLES)?;
        if dump.rows("project").is_empty() || dump.rows("user").is_empty() {
            return Err(ImportError::Empty);
        }
        let mut import = Import { identity: self, dump, aliases: HashMap::new(), report: Report::default() };
        let done = import.run().await;
        for area in [Area::People, Area::Roles, Area::Catalog] {
            self.directory.changed(area);
        }
        done?;
        Ok(import.report)
    }
}

impl Import<'_> {
    async fn run(&mut self) -> Result<(), ImportError> {
        self.places().await?;
        self.roles().await?;
        self.people().await?;
        self.assignments().await?;
        self.services().await?;
        let others: Vec<(String, usize)> = self.dump.others.iter().map(|(t, c)| (t.clone(), *c)).collect();
        for (table, count) in others.into_iter().filter(|(t, _)| !SILENT.contains(&t.as_str())) {
            self.report.left.insert((format!("rows of {table}"), "not imported".into()), count);
        }
        Ok(())
    }

    /// The id that stands for an imported one here.
    fn here(&self, id: &str) -> String {
        self.aliases.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    /// Stores what is not there. A record that cannot be stored (its name is another's) is left, and told.
    async fn put<R: Record>(&mut self, kind: &'static str, records: Vec<R>) -> Result<(), ImportError> {
        for chunk in records.chunks(CHUNK) {
            match self.write(chunk.to_vec()).await {
                Ok(added) => self.count(kind, added, chunk.len() - added),
                Err(Error::Claimed { .. } | Error::Exists { .. }) => {
                    for record in chunk {
                        match self.write(vec![record.clone()]).await {
                            Ok(added) => self.count(kind, added, 1 - added),
                            Err(Error::Claimed { value, .. }) => {
                                self.report.leave(kind, format!("{value}: the name is taken by another id"));
                            }
                            Err(error) => return Err(Fault::from(error).into()),
                        }
                    }
                }
                Err(error) => return Err(Fault::from(error).into()),
            }
        }
        Ok(())
    }

    fn count(&mut self, kind: &'static str, added: usize, known: usize) {
        *self.report.added.entry(kind).or_default() += added;
        *self.report.known.entry(kind).or_default() += known;
    }

    /// How many of the records were not there.
    async fn write<R: Record>(&self, records: Vec<R>) -> Result<usize, Error> {
        self.identity
            .store
            .write(move |tx| {
                let records = records.clone();
                Box::pin(async move {
                    let mut added = 0;
                    for record in &records {
                        if tx.get::<R>(record.id()).await?.is_none() {
                            tx.insert(record).await?;
                            added += 1;
                        }
                    }
                    Ok::<usize, Error>(added)
                })
            })
            .await
    }
}

/// The JSON object in a column; nothing where there is none.
fn extra(row: &Row) -> Extra {
    match row.text("extra").and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        Some(Value::Object(map)) => map,
        _ => Extra::new(),
    }
}

fn row_error(what: String) -> ImportError {
    ImportError::Row(what)
}

/// Options of resources: id of the owner -> option.
fn options(rows: &[Row], owner: &str, names: &[(&str, &str)]) -> HashMap<String, Extra> {
    let mut found: HashMap<String, Extra> = HashMap::new();
    for row in rows {
        let name = row.text("option_id").and_then(|id| names.iter().find(|(known, _)| *known == id)).map(|(_, n)| *n);
        let value = row.text("option_value").and_then(|v| serde_json::from_str::<Value>(v).ok());
        if let (Some(id), Some(name), Some(value)) = (row.text(owner), name, value.filter(|v| !v.is_null())) {
            found.entry(id.to_owned()).or_default().insert(name.to_owned(), value);
        }
    }
    found
}
