//! A connection with its prepared statements, and a bounded pool of them.
use super::tls;
use crate::{Error, Value, value::Row};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    error::Error as StdError,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    Config, NoTls, Statement,
    config::SslMode,
    error::SqlState,
    types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections of one process at most.
const CONNECTIONS: usize = 16;
/// Statements kept prepared per connection.
const STATEMENTS: usize = 512;
/// An idle connection is taken without a question for so long.
const TRUSTED: Duration = Duration::from_millis(500);
/// For a free connection.
const WAIT: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// No statement and no idle transaction may hold its locks for longer.
const LIMITS: &str = "SET statement_timeout = 60000; SET idle_in_transaction_session_timeout = 60000";

pub(crate) struct Client {
    inner: tokio_postgres::Client,
    statements: HashMap<String, Statement>,
    used: Instant,
    /// Frees the place in the pool when this is dropped.
    _place: Option<OwnedSemaphorePermit>,
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match (self, ty) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Text(text), _) => text.to_sql(ty, out),
            (Value::Int(n), &Type::INT4) => i32::try_from(*n)?.to_sql(ty, out),
            (Value::Int(n), _) => n.to_sql(ty, out),
        }
    }
    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT | Type::VARCHAR | Type::INT8 | Type::INT4)
    }
    to_sql_checked!();
}

/// The server's message without its detail, which may quote a row.
fn failure(error: &tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        return Error::Engine { reason: format!("{error}{cause}") };
    };
    // A key that was free in our snapshot and is taken now: the transaction that took it is not visible yet.
    let void = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION];
    if void.contains(db.code()) {
        return Error::Serialization;
    }
    Error::Engine { reason: format!("{} ({})", db.message(), db.code().code()) }
}

fn value(row: &tokio_postgres::Row, at: usize) -> Result<Value, Error> {
    let ty = row.columns()[at].type_();
    let value = match *ty {
        Type::TEXT | Type::VARCHAR => row.try_get::<_, Option<String>>(at).map(Value::from),
        Type::INT8 => row.try_get::<_, Option<i64>>(at).map(Value::from),
        Type::INT4 => row.try_get::<_, Option<i32>>(at).map(Value::from),
        _ => return Err(Error::Engine { reason: format!("a column of type {ty}") }),
    };
    value.map_err(|error| failure(&error))
}

impl Client {
    pub fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    /// Asks the server when it has been silent for a while: it may have been restarted.
    async fn is_alive(&self) -> bool {
        !self.is_closed() && (self.used.elapsed() < TRUSTED || self.inner.check_connection().await.is_ok())
    }

    async fn prepare(&mut self, sql: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.inner.prepare(sql).await.map_err(|error| failure(&error))?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        let statement = self.prepare(sql).await?;
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|value| value as _).collect();
        let rows = self.inner.query(&statement, &params).await.map_err(|error| failure(&error))?;
        let width = statement.columns().len();
        rows.iter().map(|row| (0..width).map(|at| value(row, at)).collect::<Result<_, _>>().map(Row)).collect()
    }

    pub async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        let statement = self.prepare(sql).await?;
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|value| value as _).collect();
        self.inner.execute(&statement, &params).await.map_err(|error| failure(&error))
    }

    pub async fn script(&mut self, sql: &str) -> Result<(), Error> {
        self.inner.batch_execute(sql).await.map_err(|error| failure(&error))
    }
}

pub(crate) struct Pool {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Client>>,
}

impl Pool {
    pub fn new(url: &str) -> Result<Self, Error> {
        let (url, roots) = tls::split_roots(url);
        // The error is not passed on: it may quote the password.
        let mut config: Config = url.parse().map_err(|_| Error::Url { reason: "not a PostgreSQL URL".into() })?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_application_name().is_none() {
            config.application_name("pilvi");
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(tls::connector(roots.as_deref())?),
            _ => {
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        Ok(Pool { config, tls, places: Arc::new(Semaphore::new(CONNECTIONS)), idle: Mutex::default() })
    }

    /// Waits for a place; makes a connection when none is idle.
    pub async fn get(&self) -> Result<Client, Error> {
        let place = tokio::time::timeout(WAIT, self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| Error::engine("no connection became free"))?.map_err(|_| Error::Closed)?;
        while let Some(mut client) = self.take_idle() {
            if client.is_alive().await {
                client._place = Some(place);
                return Ok(client);
            }
        }
        let inner = self.connect().await?;
        inner.batch_execute(LIMITS).await.map_err(|error| failure(&error))?;
        Ok(Client { inner, statements: HashMap::new(), used: Instant::now(), _place: Some(place) })
    }

    fn take_idle(&self) -> Option<Client> {
        self.idle.lock().pop()
    }

    pub fn put(&self, mut client: Client) {
        if !client.is_closed() {
            // First into the list, then the place: whoever gets the place finds the connection.
            let place = client._place.take();
            client.used = Instant::now();
            self.idle.lock().push(client);
            drop(place);
        }
    }

    async fn connect(&self) -> Result<tokio_postgres::Client, Error> {
        let failed = |error| failure(&error);
        if let Some(tls) = &self.tls {
            let (client, connection) = self.config.connect(tls.clone()).await.map_err(failed)?;
            tokio::spawn(log_end(connection));
            return Ok(client);
        }
        let (client, connection) = self.config.connect(NoTls).await.map_err(failed)?;
        tokio::spawn(log_end(connection));
        Ok(client)
    }
}

/// Drives a connection until its client is dropped or it breaks.
async fn log_end(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::warn!(error = %failure(&error), "a database connection ended");
    }
}
