//! The store's own tables.
use super::Dialect;
use crate::{Error, Value, session::Session};
use sha2::{Digest, Sha256};

/// (name, SQL); the number is the position, from 1. Never edit or remove one: add another.
const STEPS: &[(&str, &str)] = &[
    (
        "kinds, claims, feed, leases",
        "CREATE TABLE store_kind (
        name {text} NOT NULL PRIMARY KEY, version {int} NOT NULL, columns {text} NOT NULL){strict};
     CREATE TABLE store_claim (
        scope {text} NOT NULL, value {text} NOT NULL, kind {text} NOT NULL, id {text} NOT NULL,
        PRIMARY KEY (scope, value)){strict};
     CREATE INDEX store_claim_holder ON store_claim (kind, id);
     CREATE TABLE store_change (
        seq {int} NOT NULL PRIMARY KEY, kind {text} NOT NULL, id {text} NOT NULL, rev {int} NOT NULL,
        op {text} NOT NULL, at {int} NOT NULL){strict};
     CREATE TABLE store_pending (
        tx {text} NOT NULL, ord {int} NOT NULL, batch {text}, kind {text} NOT NULL, id {text} NOT NULL,
        rev {int} NOT NULL, op {text} NOT NULL, at {int} NOT NULL, PRIMARY KEY (tx, ord)){strict};
     CREATE TABLE store_feed (
        id {int} NOT NULL PRIMARY KEY, seq {int} NOT NULL, horizon {int} NOT NULL){strict};
     INSERT INTO store_feed (id, seq, horizon) VALUES (1, 0, 0);
     CREATE TABLE store_lease (
        name {text} NOT NULL PRIMARY KEY, holder {text} NOT NULL, epoch {int} NOT NULL,
        expires {int} NOT NULL){strict};",
    ),
    (
        "labels",
        "CREATE TABLE store_label (
        kind {text} NOT NULL, label {text} NOT NULL, id {text} NOT NULL, PRIMARY KEY (kind, label, id)){strict};
     CREATE INDEX store_label_holder ON store_label (kind, id);",
    ),
];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS store_migration (
    number {int} NOT NULL PRIMARY KEY, name {text} NOT NULL, checksum {text} NOT NULL, applied {int} NOT NULL){strict}";

pub(super) async fn migrate(session: &mut Session, now_us: i64) -> Result<(), Error> {
    let dialect = Dialect::of(session);
    session.script(&dialect.fill(TABLE)).await?;
    let applied = session.query("SELECT number, name, checksum FROM store_migration ORDER BY number", &[]).await?;
    if let Some(row) = applied.get(STEPS.len()) {
        let reason = format!("it has schema step {} ({}), {} are known", row.int(0), row.text(1), STEPS.len());
        return Err(Error::NewerStore { reason });
    }
    for (at, (name, sql)) in STEPS.iter().enumerate() {
        let checksum = hex::encode(Sha256::digest(sql.as_bytes()));
        if let Some(row) = applied.get(at) {
            if row.text(2) != checksum {
                return Err(Error::schema(format!("step {} was applied with other statements than today's", at + 1)));
            }
            continue;
        }
        session.script(&dialect.fill(sql)).await?;
        let params = [(at + 1).into(), (*name).into(), checksum.into(), Value::Int(now_us)];
        session
            .execute("INSERT INTO store_migration (number, name, checksum, applied) VALUES ($1, $2, $3, $4)", &params)
            .await?;
    }
    Ok(())
}
