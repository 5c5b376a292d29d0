//! A transaction as its closure sees it. Errors that a closure may handle and go on after (`Exists`,
//! `Claimed`, `Conflict`, `Fenced`) leave nothing of the failed call behind; after any other error the
//! transaction cannot be kept.
use crate::{
    Claim, Error, Group, Op, Query, Record, Stored, Value,
    feed::Pending,
    kind::{self, Derived, Kind, Kinds},
    read,
    session::Session,
};
use futures::future::BoxFuture;
use std::{collections::BTreeSet, sync::Arc};

/// A running transaction; sees its own writes.
pub struct Tx {
    pub(crate) session: Session,
    pub(crate) kinds: Arc<Kinds>,
    pub(crate) now_us: i64,
    pub(crate) changes: Vec<Pending>,
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("now_us", &self.now_us).field("changes", &self.changes.len()).finish_non_exhaustive()
    }
}

impl Tx {
    pub(crate) fn new(session: Session, kinds: Arc<Kinds>) -> Self {
        Tx { session, kinds, now_us: 0, changes: Vec::new() }
    }

    /// Time of this transaction, microseconds since 1970; grows from one to the next in this process.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }

    pub async fn get<R: Record>(&mut self, id: &str) -> Result<Option<Stored<R>>, Error> {
        let kind = self.kinds.of::<R>()?;
        read::get(&mut self.session, &kind, id).await
    }

    pub async fn list<R: Record>(&mut self, query: Query) -> Result<Vec<Stored<R>>, Error> {
        let kind = self.kinds.of::<R>()?;
        read::list(&mut self.session, &kind, &query).await
    }

    /// Ignores marker, order and limit.
    pub async fn count<R: Record>(&mut self, query: Query) -> Result<u64, Error> {
        let kind = self.kinds.of::<R>()?;
        read::count(&mut self.session, &kind, &query).await
    }

    /// Sum of an integer column; 0 of nothing.
    pub async fn sum<R: Record>(&mut self, column: &str, query: Query) -> Result<i64, Error> {
        let kind = self.kinds.of::<R>()?;
        read::sum(&mut self.session, &kind, column, &query).await
    }

    /// Counts and sums by the values of the columns `by`, in their order.
    pub async fn group<R: Record>(&mut self, by: &[&str], sums: &[&str], query: Query) -> Result<Vec<Group>, Error> {
        let kind = self.kinds.of::<R>()?;
        read::group(&mut self.session, &kind, &query, by, sums).await
    }

    /// Adds a record. `Exists` when its id is taken, `Claimed` when another record holds one of its claims.
    pub async fn insert<R: Record>(&mut self, record: &R) -> Result<Stored<R>, Error> {
        let kind = self.kinds.of::<R>()?;
        let derived = kind::derive(record)?;
        self.insert_row(&kind, record.id(), derived).await?;
        Ok(Stored { record: record.clone(), rev: 1, created_us: self.now_us, updated_us: self.now_us })
    }

    fn insert_row<'a>(&'a mut self, kind: &'a Kind, id: &'a str, derived: Derived) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let name = kind.spec.name;
            let taken = self.take_claims(name, id, &derived.claims).await?;
            let mut params = vec![id.into(), Value::Int(self.now_us), kind.spec.version.into()];
            let labels = derived.labels.clone();
            push_row(&mut params, derived);
            if self.session.execute(&kind.insert, &params).await? == 0 {
                self.drop_claims(&taken).await?;
                return Err(Error::Exists { kind: name, id: id.to_owned() });
            }
            self.add_labels(name, id, labels.iter()).await?;
            self.note(name, id, 1, Op::Insert);
            Ok(())
        })
    }

    /// Replaces a record that is still as it was read; else `Conflict`. Columns and claims are derived anew.
    pub async fn update<R: Record>(&mut self, stored: &Stored<R>) -> Result<Stored<R>, Error> {
        let kind = self.kinds.of::<R>()?;
        let derived = kind::derive(&stored.record)?;
        let (rev, created_us) = (stored.rev, stored.created_us);
        let updated_us = self.update_row(&kind, stored.record.id(), rev, created_us, derived).await?;
        Ok(Stored { record: stored.record.clone(), rev: rev + 1, created_us, updated_us })
    }

    /// `rev`, `created_us`: as they were read. Gives the time of the change.
    fn update_row<'a>(
        &'a mut self,
        kind: &'a Kind,
        id: &'a str,
        rev: i64,
        created_us: i64,
        derived: Derived,
    ) -> BoxFuture<'a, Result<i64, Error>> {
        Box::pin(async move {
            let name = kind.spec.name;
            let held = self.claims_of(name, id).await?;
            let added = derived.claims.difference(&held).cloned().collect();
            let removed: Vec<Claim> = held.difference(&derived.claims).cloned().collect();
            let taken = self.take_claims(name, id, &added).await?;
            let updated_us = self.now_us.max(created_us);
            let mut params = vec![Value::Int(updated_us), kind.spec.version.into()];
            let labels = derived.labels.clone();
            push_row(&mut params, derived);
            params.extend([id.into(), Value::Int(rev), Value::Int(created_us)]);
            if self.session.execute(&kind.update, &params).await? == 0 {
                self.drop_claims(&taken).await?;
                return Err(Error::Conflict { kind: name, id: id.to_owned() });
            }
            self.drop_claims(&removed).await?;
            if kind.spec.labelled {
                self.change_labels(name, id, &labels).await?;
            }
            self.note(name, id, rev + 1, Op::Update);
            Ok(updated_us)
        })
    }

    /// Removes a record and its claims; false when there is none.
    pub async fn delete<R: Record>(&mut self, id: &str) -> Result<bool, Error> {
        let kind = self.kinds.of::<R>()?;
        self.delete_row(&kind, id, None).await
    }

    /// Removes a record that is still as it was read; else `Conflict`.
    pub async fn delete_rev<R: Record>(&mut self, stored: &Stored<R>) -> Result<(), Error> {
        let kind = self.kinds.of::<R>()?;
        let id = stored.record.id();
        if self.delete_row(&kind, id, Some(stored.rev)).await? {
            return Ok(());
        }
        Err(Error::Conflict { kind: R::KIND, id: id.to_owned() })
    }

    /// `rev`: only as it was read.
    fn delete_row<'a>(
        &'a mut self,
        kind: &'a Kind,
        id: &'a str,
        rev: Option<i64>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            if id.contains('\0') {
                return Ok(false);
            }
            let rows = match rev {
                None => self.session.query(&kind.delete, &[id.into()]).await?,
                Some(rev) => self.session.query(&kind.delete_rev, &[id.into(), Value::Int(rev)]).await?,
            };
            let Some(row) = rows.first() else { return Ok(false) };
            let name = kind.spec.name;
            let params = [name.into(), id.into()];
            self.session.execute("DELETE FROM store_claim WHERE kind = $1 AND id = $2", &params).await?;
            if kind.spec.labelled {
                self.session.execute("DELETE FROM store_label WHERE kind = $1 AND id = $2", &params).await?;
            }
            self.note(name, id, row.int(0), Op::Delete);
            Ok(true)
        })
    }

    fn note(&mut self, kind: &'static str, id: &str, rev: i64, op: Op) {
        self.changes.push(Pending { kind, id: id.to_owned(), rev, op });
    }

    async fn add_labels(
        &mut self,
        kind: &'static str,
        id: &str,
        labels: impl Iterator<Item = &String>,
    ) -> Result<(), Error> {
        for label in labels {
            let params = [kind.into(), label.as_str().into(), id.into()];
            self.session.execute("INSERT INTO store_label (kind, label, id) VALUES ($1, $2, $3)", &params).await?;
        }
        Ok(())
    }

    /// Writes only what differs: most updates leave the labels as they are.
    async fn change_labels(&mut self, kind: &'static str, id: &str, wanted: &BTreeSet<String>) -> Result<(), Error> {
        let key = [kind.into(), id.into()];
        let rows = self.session.query("SELECT label FROM store_label WHERE kind = $1 AND id = $2", &key).await?;
        let held: BTreeSet<String> = rows.iter().map(|row| row.text(0).to_owned()).collect();
        for gone in held.difference(wanted) {
            let params = [kind.into(), gone.as_str().into(), id.into()];
            self.session.execute("DELETE FROM store_label WHERE kind = $1 AND label = $2 AND id = $3", &params).await?;
        }
        self.add_labels(kind, id, wanted.difference(&held)).await
    }

    async fn claims_of(&mut self, kind: &'static str, id: &str) -> Result<BTreeSet<Claim>, Error> {
        let params = [kind.into(), id.into()];
        let rows =
            self.session.query("SELECT scope, value FROM store_claim WHERE kind = $1 AND id = $2", &params).await?;
        Ok(rows.iter().map(|row| Claim::new(row.text(0), row.text(1))).collect())
    }

    /// Takes the claims that are free and returns them; `Claimed`, and none taken, when another record holds
    /// one. Those this record holds already are passed over. Nothing is read unless a claim is taken: on
    /// PostgreSQL reads are what makes concurrent transactions void.
    async fn take_claims(
        &mut self,
        kind: &'static str,
        id: &str,
        claims: &BTreeSet<Claim>,
    ) -> Result<Vec<Claim>, Error> {
        const TAKE: &str = "INSERT INTO store_claim (scope, value, kind, id) VALUES ($1, $2, $3, $4) ON CONFLICT (scope, value) DO NOTHING";
        let mut taken = Vec::new();
        for claim in claims {
            let [scope, value] = pair(claim);
            if self.session.execute(TAKE, &[scope, value, kind.into(), id.into()]).await? > 0 {
                taken.push(claim.clone());
                continue;
            }
            let rows = self
                .session
                .query("SELECT kind, id FROM store_claim WHERE scope = $1 AND value = $2", &pair(claim))
                .await?;
            let Some(holder) = rows.first() else {
                // Held by a transaction that this one does not see yet: run again.
                self.session.failed = Some(Error::Serialization);
                return Err(Error::Serialization);
            };
            if holder.text(0) != kind || holder.text(1) != id {
                self.drop_claims(&taken).await?;
                return Err(Error::Claimed { scope: claim.scope.clone(), value: claim.value.clone() });
            }
        }
        Ok(taken)
    }

    async fn drop_claims(&mut self, claims: &[Claim]) -> Result<(), Error> {
        for claim in claims {
            self.session.execute("DELETE FROM store_claim WHERE scope = $1 AND value = $2", &pair(claim)).await?;
        }
        Ok(())
    }
}

fn pair(claim: &Claim) -> [Value; 2] {
    [claim.scope.as_str().into(), claim.value.as_str().into()]
}

/// project, name, state, doc, columns…: the order of [`Kind::insert`] and [`Kind::update`].
pub(crate) fn push_row(params: &mut Vec<Value>, derived: Derived) {
    params.extend([derived.project, derived.name, derived.state, Value::Text(derived.doc)]);
    params.extend(derived.columns);
}
