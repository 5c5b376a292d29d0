//! Where a case runs, and the record that most cases use.
use pilvi_store::{Claim, Column, KindSpec, Record, Store, Value, testing::PostgresServer};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Memory,
    File,
    Postgres,
}

/// An empty store to be.
pub struct Place {
    pub engine: Engine,
    pub url: String,
    /// Of the store's file.
    _dir: Option<TempDir>,
}

impl Place {
    pub fn new(engine: Engine) -> Option<Self> {
        let (url, dir) = match engine {
            Engine::Memory => ("sqlite::memory:".to_owned(), None),
            Engine::File => {
                let dir = tempfile::tempdir().unwrap();
                (format!("sqlite:{}", dir.path().join("store.db").display()), Some(dir))
            }
            Engine::Postgres => {
                let Some(server) = PostgresServer::shared().unwrap() else {
                    println!("SKIPPED: PostgreSQL's server programs are not installed in /usr/lib/postgresql");
                    return None;
                };
                (server.database().unwrap(), None)
            }
        };
        Some(Place { engine, url, _dir: dir })
    }

    /// With all kinds of these tests.
    pub async fn open(&self) -> Store {
        self.open_with(vec![KindSpec::of::<Thing>(), KindSpec::of::<Other>()]).await.unwrap()
    }

    pub async fn open_with(&self, kinds: Vec<KindSpec>) -> Result<Store, pilvi_store::Error> {
        Store::open(&self.url, kinds).await
    }

    /// A second store over the same rows is possible.
    pub fn is_shared(&self) -> bool {
        self.engine != Engine::Memory
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    pub id: String,
    pub project: Option<String>,
    pub name: Option<String>,
    pub state: Option<String>,
    pub size: Option<i64>,
    pub user: Option<String>,
    pub claims: Vec<(String, String)>,
    #[serde(default)]
    pub labels: Vec<String>,
    pub note: String,
}

impl Thing {
    pub fn new(id: &str) -> Self {
        Thing { id: id.to_owned(), ..Thing::default() }
    }
    pub fn claiming(id: &str, scope: &str, value: &str) -> Self {
        Thing { claims: vec![(scope.to_owned(), value.to_owned())], ..Thing::new(id) }
    }
    pub fn sized(id: &str, size: i64) -> Self {
        Thing { size: Some(size), ..Thing::new(id) }
    }
}

impl Record for Thing {
    const KIND: &'static str = "thing";
    // Both are words of SQL.
    const COLUMNS: &'static [Column] = &[Column::int("size"), Column::text("user")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.size.into(), self.user.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        self.claims.iter().map(|(scope, value)| Claim::new(scope, value)).collect()
    }
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.labels.clone()
    }
}

/// A second kind, for transactions over several tables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Other {
    pub id: String,
    pub count: i64,
}

impl Record for Other {
    const KIND: &'static str = "other";
    fn id(&self) -> &str {
        &self.id
    }
}

pub async fn insert<R: Record>(store: &Store, record: &R) -> Result<pilvi_store::Stored<R>, pilvi_store::Error> {
    let record = record.clone();
    store
        .write(move |tx| {
            let record = record.clone();
            Box::pin(async move { tx.insert(&record).await })
        })
        .await
}

pub async fn update<R: Record>(
    store: &Store,
    stored: &pilvi_store::Stored<R>,
) -> Result<pilvi_store::Stored<R>, pilvi_store::Error> {
    let stored = stored.clone();
    store
        .write(move |tx| {
            let stored = stored.clone();
            Box::pin(async move { tx.update(&stored).await })
        })
        .await
}

pub async fn delete<R: Record>(store: &Store, id: &str) -> Result<bool, pilvi_store::Error> {
    let id = id.to_owned();
    store
        .write(move |tx| {
            let id = id.clone();
            Box::pin(async move { tx.delete::<R>(&id).await })
        })
        .await
}
