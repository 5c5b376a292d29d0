//! One connection of either engine behind two calls: rows of a statement, and number of rows it changed.
//!
//! With SQLite every future here is ready at once; that is what lets transactions run on the writer thread.
use crate::{
    Error, Value,
    postgres::Client,
    stats::{Counters, add},
    value::Row,
};
use futures::future::BoxFuture;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

/// Bytes of a slow statement that are logged. Values are never part of it: they are parameters.
const SHOWN: usize = 400;

pub(crate) enum Engine {
    Sqlite(rusqlite::Connection),
    Postgres(Client),
}

pub(crate) struct Session {
    pub engine: Engine,
    pub counters: Arc<Counters>,
    /// The first failure of a statement since this was last cleared: what follows must not be committed.
    pub failed: Option<Error>,
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(n) => ValueRef::Integer(*n),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Session {
    pub fn new(engine: Engine, counters: Arc<Counters>) -> Self {
        Session { engine, counters, failed: None }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.engine, Engine::Sqlite(_))
    }

    pub fn query<'a>(&'a mut self, sql: &'a str, params: &'a [Value]) -> BoxFuture<'a, Result<Vec<Row>, Error>> {
        Box::pin(async move {
            let started = Instant::now();
            let result = match &mut self.engine {
                Engine::Sqlite(conn) => sqlite_query(conn, sql, params),
                Engine::Postgres(client) => client.query(sql, params).await,
            };
            self.note(sql, started, result, |rows| rows.len() as u64)
        })
    }

    pub fn execute<'a>(&'a mut self, sql: &'a str, params: &'a [Value]) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(async move {
            let started = Instant::now();
            let result = match &mut self.engine {
                Engine::Sqlite(conn) => sqlite_execute(conn, sql, params),
                Engine::Postgres(client) => client.execute(sql, params).await,
            };
            self.note(sql, started, result, |rows| *rows)
        })
    }

    /// Several statements without parameters, not prepared.
    pub fn script<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let started = Instant::now();
            let result = match &mut self.engine {
                Engine::Sqlite(conn) => conn.execute_batch(sql).map_err(Error::from),
                Engine::Postgres(client) => client.script(sql).await,
            };
            self.note(sql, started, result, |()| 0)
        })
    }

    /// Counts and logs a slow statement, and remembers the first failure. `rows`: read or changed.
    fn note<T>(
        &mut self,
        sql: &str,
        started: Instant,
        result: Result<T, Error>,
        rows: impl Fn(&T) -> u64,
    ) -> Result<T, Error> {
        let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if took_us > self.counters.slow_us.load(Ordering::Relaxed) {
            add(&self.counters.slow_statements, 1);
            let shown = (0..=SHOWN.min(sql.len())).rev().find_map(|at| sql.get(..at)).unwrap_or_default();
            let rows = result.as_ref().map_or(0, rows);
            tracing::warn!(target: "slow", took_ms = took_us / 1000, rows, failed = result.is_err(), sql = shown, "slow statement");
        }
        if let Err(error) = &result
            && self.failed.is_none()
        {
            self.failed = Some(error.clone());
        }
        result
    }
}

fn sqlite_query(conn: &rusqlite::Connection, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
    let mut statement = conn.prepare_cached(sql)?;
    for (at, value) in params.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, value)?;
    }
    let width = statement.column_count();
    let mut found = Vec::new();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(width);
        for at in 0..width {
            values.push(match row.get_ref(at)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(n) => Value::Int(n),
                ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
                other => return Err(Error::engine(format!("a column of type {}", other.data_type()))),
            });
        }
        found.push(Row(values));
    }
    Ok(found)
}

fn sqlite_execute(conn: &rusqlite::Connection, sql: &str, params: &[Value]) -> Result<u64, Error> {
    let mut statement = conn.prepare_cached(sql)?;
    for (at, value) in params.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, value)?;
    }
    Ok(statement.raw_execute()? as u64)
}
