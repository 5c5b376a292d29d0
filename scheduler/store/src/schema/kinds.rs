//! A table per kind.
//!
//! ```text
//!  not recorded        CREATE TABLE, indexes
//!  column added        ALTER TABLE ADD, index ─┐
//!  version raised      ────────────────────────┴─► every row derived anew from its document
//!  column gone         DROP index and column
//!  version lowered     refused
//! ```
use super::Dialect;
use crate::{
    Claim, Column, ColumnType, Error, Value,
    kind::{Derived, Kind},
    session::Session,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Rows derived anew at once.
const BATCH: usize = 500;
/// PostgreSQL cuts longer names.
const NAME_MAX: usize = 63;

/// Indexes by name.
pub(super) type Indexes = BTreeSet<String>;

fn type_name(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Text => "text",
        ColumnType::Int => "int",
    }
}

fn type_sql(dialect: Dialect, ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Text => dialect.text,
        ColumnType::Int => dialect.int,
    }
}

fn declared(columns: &[Column]) -> Vec<String> {
    columns.iter().map(|c| format!("{}:{}", c.name, type_name(c.ty))).collect()
}

fn index_name(kind: &Kind, columns: &str) -> String {
    let name = format!("ix_{}_{columns}", kind.spec.name);
    if name.len() <= NAME_MAX {
        return name;
    }
    let hash = hex::encode(&Sha256::digest(name.as_bytes())[..8]);
    format!("{}_{hash}", &name[..NAME_MAX - 17])
}

/// Names of the indexes that are there. `CREATE INDEX IF NOT EXISTS` would ask by itself, but only after it has locked
/// the table against writers, of which another scheduler may have many.
pub(super) async fn indexes(session: &mut Session) -> Result<Indexes, Error> {
    let sql = if session.is_sqlite() {
        "SELECT name FROM sqlite_master WHERE type = 'index'"
    } else {
        "SELECT CAST(indexname AS TEXT) FROM pg_indexes WHERE schemaname = current_schema()"
    };
    Ok(session.query(sql, &[]).await?.iter().map(|row| row.text(0).to_owned()).collect())
}

async fn add_index(session: &mut Session, kind: &Kind, columns: &[&str], there: &Indexes) -> Result<(), Error> {
    let nulls = Dialect::of(session).nulls;
    let name = index_name(kind, &columns.join("_"));
    if there.contains(&name) {
        return Ok(());
    }
    let keys: Vec<String> = columns.iter().map(|c| format!("\"{c}\"{nulls}")).collect();
    session.script(&format!("CREATE INDEX IF NOT EXISTS \"{name}\" ON {} ({})", kind.table, keys.join(", "))).await
}

/// Indexes that no column brings with it: made where a store of an older program lacks them.
async fn add_wide_indexes(session: &mut Session, kind: &Kind, there: &Indexes) -> Result<(), Error> {
    add_index(session, kind, &["created"], there).await?;
    for columns in kind.spec.indexes {
        add_index(session, kind, columns, there).await?;
    }
    Ok(())
}

pub(super) async fn migrate(session: &mut Session, kind: &Kind, there: &Indexes) -> Result<(), Error> {
    let rows =
        session.query("SELECT version, columns FROM store_kind WHERE name = $1", &[kind.spec.name.into()]).await?;
    let Some(row) = rows.first() else { return create(session, kind, there).await };
    let version = row.int(0);
    if version > i64::from(kind.spec.version) {
        let reason = format!("{} is there in version {version}, {} is known", kind.spec.name, kind.spec.version);
        return Err(Error::NewerStore { reason });
    }
    let before: Vec<&str> = row.text(1).split(',').filter(|c| !c.is_empty()).collect();
    let after = declared(kind.spec.columns);
    for gone in before.iter().filter(|c| !after.iter().any(|a| a == *c)) {
        let name = gone.split(':').next().unwrap_or(gone);
        drop_indexes(session, kind, name).await?;
        session.script(&format!("ALTER TABLE {} DROP COLUMN \"{name}\"", kind.table)).await?;
    }
    let mut anew = version < i64::from(kind.spec.version);
    for (column, text) in kind.spec.columns.iter().zip(&after) {
        if before.contains(&text.as_str()) {
            continue;
        }
        let ty = type_sql(Dialect::of(session), column.ty);
        session.script(&format!("ALTER TABLE {} ADD COLUMN \"{}\" {ty}", kind.table, column.name)).await?;
        add_index(session, kind, &[column.name], there).await?;
        anew = true;
    }
    add_wide_indexes(session, kind, there).await?;
    if anew {
        derive_anew(session, kind).await?;
    }
    if anew || before.len() != after.len() {
        let params = [kind.spec.version.into(), after.join(",").into(), kind.spec.name.into()];
        session.execute("UPDATE store_kind SET version = $1, columns = $2 WHERE name = $3", &params).await?;
    }
    Ok(())
}

/// The indexes that a column that goes is part of. SQLite drops no column that an index uses.
async fn drop_indexes(session: &mut Session, kind: &Kind, column: &str) -> Result<(), Error> {
    if !session.is_sqlite() {
        // PostgreSQL drops them with the column.
        return Ok(());
    }
    let sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = $1 AND instr(sql, $2) > 0";
    let params = [kind.spec.name.into(), format!("\"{column}\"").into()];
    for row in session.query(sql, &params).await? {
        session.script(&format!("DROP INDEX \"{}\"", row.text(0))).await?;
    }
    Ok(())
}

async fn create(session: &mut Session, kind: &Kind, there: &Indexes) -> Result<(), Error> {
    let dialect = Dialect::of(session);
    let mut columns = String::new();
    for column in kind.spec.columns {
        columns.push_str(&format!(", \"{}\" {}", column.name, type_sql(dialect, column.ty)));
    }
    let sql = format!(
        "CREATE TABLE {} (\"id\" {{text}} NOT NULL PRIMARY KEY, \"rev\" {{int}} NOT NULL, \"project\" {{text}}, \
         \"name\" {{text}}, \"state\" {{text}}, \"created\" {{int}} NOT NULL, \"updated\" {{int}} NOT NULL, \
         \"version\" {{int}} NOT NULL, \"doc\" {{text}} NOT NULL{columns}){{strict}}",
        kind.table
    );
    session.script(&dialect.fill(&sql)).await?;
    add_index(session, kind, &["project", "name"], there).await?;
    add_index(session, kind, &["name"], there).await?;
    add_index(session, kind, &["state"], there).await?;
    for column in kind.spec.columns {
        add_index(session, kind, &[column.name], there).await?;
    }
    add_wide_indexes(session, kind, there).await?;
    let params = [kind.spec.name.into(), kind.spec.version.into(), declared(kind.spec.columns).join(",").into()];
    session.execute("INSERT INTO store_kind (name, version, columns) VALUES ($1, $2, $3)", &params).await.map(drop)
}

/// Reads all documents, upgrades them, and writes what follows from them. `rev` stays: nothing changed that
/// a reader could see.
async fn derive_anew(session: &mut Session, kind: &Kind) -> Result<(), Error> {
    let page = format!(
        "SELECT \"id\", \"version\", \"doc\" FROM {} WHERE \"id\" > $1 ORDER BY \"id\" LIMIT {BATCH}",
        kind.table
    );
    let mut sets = String::new();
    for (at, column) in kind.spec.columns.iter().enumerate() {
        sets.push_str(&format!(", \"{}\" = ${}", column.name, at + 6));
    }
    let write = format!(
        "UPDATE {} SET \"version\" = $1, \"project\" = $2, \"name\" = $3, \"state\" = $4, \"doc\" = $5{sets} WHERE \"id\" = ${}",
        kind.table,
        kind.spec.columns.len() + 6
    );
    let mut last = String::new();
    let mut count = 0_usize;
    loop {
        let rows = session.query(&page, &[last.as_str().into()]).await?;
        let Some(end) = rows.last() else { break };
        last = end.text(0).to_owned();
        count += rows.len();
        for row in &rows {
            let version = u32::try_from(row.int(1)).unwrap_or(u32::MAX);
            let derived = (kind.spec.derive)(version, row.text(0), row.text(2))?;
            let claims = derived.claims.clone();
            replace_claims(session, kind, row.text(0), &claims).await?;
            replace_labels(session, kind, row.text(0), &derived.labels).await?;
            let mut params: Vec<Value> = vec![kind.spec.version.into()];
            push(&mut params, derived);
            params.push(row.text(0).into());
            session.execute(&write, &params).await?;
        }
    }
    tracing::info!(kind = kind.spec.name, version = kind.spec.version, rows = count, "rows derived anew");
    Ok(())
}

fn push(params: &mut Vec<Value>, derived: Derived) {
    crate::tx::push_row(params, derived);
}

async fn replace_labels(session: &mut Session, kind: &Kind, id: &str, labels: &BTreeSet<String>) -> Result<(), Error> {
    let key = [kind.spec.name.into(), id.into()];
    session.execute("DELETE FROM store_label WHERE kind = $1 AND id = $2", &key).await?;
    for label in labels {
        let params = [kind.spec.name.into(), label.as_str().into(), id.into()];
        session.execute("INSERT INTO store_label (kind, label, id) VALUES ($1, $2, $3)", &params).await?;
    }
    Ok(())
}

async fn replace_claims(session: &mut Session, kind: &Kind, id: &str, claims: &BTreeSet<Claim>) -> Result<(), Error> {
    let key = [kind.spec.name.into(), id.into()];
    session.execute("DELETE FROM store_claim WHERE kind = $1 AND id = $2", &key).await?;
    for claim in claims {
        let params = [claim.scope.as_str().into(), claim.value.as_str().into(), kind.spec.name.into(), id.into()];
        let sql = "INSERT INTO store_claim (scope, value, kind, id) VALUES ($1, $2, $3, $4) ON CONFLICT (scope, value) DO NOTHING";
        if session.execute(sql, &params).await? == 0 {
            return Err(Error::Claimed { scope: claim.scope.clone(), value: claim.value.clone() });
        }
    }
    Ok(())
}
