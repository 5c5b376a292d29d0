//! Reading: the same inside and outside of transactions, on both engines.
use crate::{
    Error, Query, Record, Stored, Value,
    kind::{Kind, decode},
    select,
    session::Session,
    value::Row,
};
use futures::future::BoxFuture;

/// One group of a grouped count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Values of the grouping columns.
    pub key: Vec<Value>,
    pub count: u64,
    /// Sums of the columns asked for; NULLs count as 0.
    pub sums: Vec<i64>,
}

pub(crate) async fn get<R: Record>(session: &mut Session, kind: &Kind, id: &str) -> Result<Option<Stored<R>>, Error> {
    if id.contains('\0') {
        return Ok(None);
    }
    let rows = session.query(&kind.get, &[id.into()]).await?;
    rows.first().map(decode).transpose()
}

pub(crate) async fn list<R: Record>(
    session: &mut Session,
    kind: &Kind,
    query: &Query,
) -> Result<Vec<Stored<R>>, Error> {
    rows(session, kind, query).await?.iter().map(decode).collect()
}

fn rows<'a>(session: &'a mut Session, kind: &'a Kind, query: &'a Query) -> BoxFuture<'a, Result<Vec<Row>, Error>> {
    Box::pin(async move {
        let keys = select::sort_keys(kind, query)?;
        let after = match &query.marker {
            None => None,
            Some(id) => {
                let missing = || Error::BadMarker { kind: kind.spec.name, marker: id.clone() };
                if id.contains('\0') {
                    return Err(missing());
                }
                let mut rows = session.query(&select::marker(kind, &keys), &[id.as_str().into()]).await?;
                Some(rows.pop().ok_or_else(missing)?.0)
            }
        };
        let statements = select::list(kind, query, &keys, after.as_deref())?;
        if query.limit == Some(0) {
            return Ok(vec![]);
        }
        let mut rows = Vec::new();
        for sql in statements {
            rows.extend(session.query(&sql.text, &sql.params).await?);
            if query.limit.is_some_and(|limit| rows.len() >= limit) {
                break;
            }
        }
        // The second statement has the whole limit too: rows beyond it are not decoded.
        rows.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(rows)
    })
}

pub(crate) fn group<'a>(
    session: &'a mut Session,
    kind: &'a Kind,
    query: &'a Query,
    by: &'a [&'a str],
    sums: &'a [&'a str],
) -> BoxFuture<'a, Result<Vec<Group>, Error>> {
    Box::pin(async move {
        let sql = select::group(kind, query, by, sums)?;
        let rows = session.query(&sql.text, &sql.params).await?;
        let groups = rows.into_iter().map(|mut row| {
            let rest = row.0.split_off(by.len());
            let mut numbers = rest.iter().map(|v| v.as_int().unwrap_or_default());
            let count = numbers.next().and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
            Group { key: row.0, count, sums: numbers.collect() }
        });
        Ok(groups.collect())
    })
}

pub(crate) async fn count(session: &mut Session, kind: &Kind, query: &Query) -> Result<u64, Error> {
    Ok(group(session, kind, query, &[], &[]).await?.first().map_or(0, |g| g.count))
}

pub(crate) async fn sum(session: &mut Session, kind: &Kind, column: &str, query: &Query) -> Result<i64, Error> {
    let groups = group(session, kind, query, &[], &[column]).await?;
    Ok(groups.first().and_then(|g| g.sums.first().copied()).unwrap_or_default())
}
