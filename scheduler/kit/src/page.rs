//! Lists: `limit`, `marker`, `sort_key`/`sort_dir` (or `sort=key:dir,...`), and links to the next page.
//!
//! Two ways to page: in the store, by a [`pilvi_store::Query`] on indexed columns, or in memory over
//! records a handler has filtered already ([`Page::cut`]).
use crate::{call::Call, fault::Fault};
use pilvi_store::{Query, Record, Store, Stored};
use serde_json::{Value, json};
use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dir {
    Asc,
    Desc,
}

/// What a client asked of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Items at most; `None` when neither client nor service sets a limit.
    pub limit: Option<usize>,
    pub marker: Option<String>,
    pub sort: Vec<(String, Dir)>,
    /// `page_reverse` of the network service: the page before the marker.
    pub reverse: bool,
}

/// How a service pages.
#[derive(Debug, Clone, Copy)]
pub struct PageRules {
    /// Largest page; larger wishes are cut to it.
    pub max: Option<usize>,
    /// Page when the client names none.
    pub default: Option<usize>,
    /// Sort keys that clients may use; empty: any.
    pub keys: &'static [&'static str],
}

fn direction(text: &str) -> Result<Dir, Fault> {
    match text {
        "asc" => Ok(Dir::Asc),
        "desc" => Ok(Dir::Desc),
        _ => Err(Fault::bad_request(format!("Unknown sort direction, must be one of: asc, desc (got {text})"))),
    }
}

impl Page {
    /// Reads the query string; 400 for what cannot be read.
    pub fn of(call: &Call, rules: PageRules) -> Result<Self, Fault> {
        let limit = match call.query.get("limit") {
            None | Some("") => rules.default,
            Some(text) => {
                let n: usize = text.parse().map_err(|_| {
                    Fault::bad_request(format!(
                        "Invalid input for query parameters limit. Value: {text}. limit must be a non-negative integer."
                    ))
                })?;
                Some(n)
            }
        };
        let limit = match (limit, rules.max) {
            (Some(n), Some(max)) => Some(n.min(max)),
            (None, Some(max)) => Some(max),
            (limit, None) => limit,
        };
        let mut sort = Vec::new();
        for text in call.query.all("sort") {
            for part in text.split(',').filter(|p| !p.is_empty()).take(16) {
                let (key, dir) = part.split_once(':').unwrap_or((part, "asc"));
                sort.push((key.to_owned(), direction(dir)?));
            }
        }
        let mut dirs = call.query.all("sort_dir").map(direction).collect::<Result<Vec<_>, _>>()?.into_iter();
        let keys: Vec<&str> = call.query.all("sort_key").take(16).collect();
        let mut last = None;
        for key in &keys {
            let dir = dirs.next().or(last).unwrap_or(Dir::Asc);
            last = Some(dir);
            sort.push(((*key).to_owned(), dir));
        }
        if let Some((key, _)) = sort.iter().find(|(k, _)| !rules.keys.is_empty() && !rules.keys.contains(&k.as_str())) {
            return Err(Fault::bad_request(format!("{key} is not a valid sort key")));
        }
        Ok(Page {
            limit,
            marker: call.query.get("marker").filter(|m| !m.is_empty()).map(str::to_owned),
            sort,
            reverse: call.query.flag("page_reverse")?.unwrap_or(false),
        })
    }

    /// Sorts, skips to the marker and cuts. `key(item, sort key)` is the value an item is sorted by.
    /// The second result says whether more items follow.
    pub fn cut<T>(
        &self,
        mut items: Vec<T>,
        id: impl Fn(&T) -> &str,
        key: impl Fn(&T, &str) -> Value,
    ) -> Result<(Vec<T>, bool), Fault> {
        if !self.sort.is_empty() {
            items.sort_by(|a, b| {
                for (name, dir) in &self.sort {
                    let order = compare(&key(a, name), &key(b, name));
                    let order = if *dir == Dir::Desc { order.reverse() } else { order };
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                id(a).cmp(id(b))
            });
        }
        if self.reverse {
            items.reverse();
        }
        if let Some(marker) = &self.marker {
            let at = items.iter().position(|i| id(i) == marker).ok_or_else(|| {
                Fault::bad_request(format!("The marker [{marker}] could not be found.")).kind("MarkerNotFound")
            })?;
            items.drain(..=at);
        }
        let mut more = false;
        if let Some(limit) = self.limit
            && items.len() > limit
        {
            items.truncate(limit);
            more = true;
        }
        if self.reverse {
            items.reverse();
        }
        Ok((items, more))
    }

    /// The page from the store itself: it reads no more rows than it needs. `column` names the store's column of a sort
    /// key (`None`: the whole list is read and sorted here); `keep` is what the query cannot say. The second result tells
    /// whether more items follow.
    pub async fn select<R: Record>(
        &self,
        store: &Store,
        query: Query,
        column: impl Fn(&str) -> Option<&'static str>,
        key: impl Fn(&Stored<R>, &str) -> Value,
        keep: impl Fn(&Stored<R>) -> bool,
    ) -> Result<(Vec<Stored<R>>, bool), Fault> {
        let columns: Option<Vec<_>> = self.sort.iter().map(|(name, dir)| Some((column(name)?, *dir))).collect();
        let (Some(columns), Some(limit), false) = (columns, self.limit, self.reverse) else {
            let mut all = store.list::<R>(query).await?;
            all.retain(|r| keep(r));
            return self.cut(all, |r| r.record.id(), key);
        };
        let sorted = columns.into_iter().fold(query.clone(), |q, (name, dir)| q.sort(name, store_dir(dir)));
        let (mut found, mut after) = (Vec::new(), self.marker.clone());
        let mut batch = limit.saturating_add(1).min(BATCH_MAX);
        loop {
            let mut ask = sorted.clone().limit(batch);
            if let Some(id) = &after {
                ask = ask.after_marker(id.clone());
            }
            let rows = match store.list::<R>(ask).await {
                Ok(rows) => rows,
                // Deleted since the last batch: once more, in one read.
                Err(pilvi_store::Error::BadMarker { .. }) if after != self.marker => {
                    let mut all = store.list::<R>(query).await?;
                    all.retain(|r| keep(r));
                    return self.cut(all, |r| r.record.id(), key);
                }
                Err(error) => return Err(no_marker(error, self.marker.as_deref())),
            };
            let last_batch = rows.len() < batch;
            after = rows.last().map(|r| r.record.id().to_owned());
            found.extend(rows.into_iter().filter(|r| keep(r)));
            if found.len() > limit || last_batch {
                let more = found.len() > limit;
                found.truncate(limit);
                return Ok((found, more));
            }
            // Few rows pass: look at more of them at a time.
            batch = batch.saturating_mul(2).min(BATCH_MAX);
        }
    }

    /// The URL of the page after `last`: the same query with another marker.
    pub fn next_url(&self, call: &Call, last: &str) -> String {
        self.url(call, last, false)
    }

    fn url(&self, call: &Call, marker: &str, reverse: bool) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (k, v) in call.query.0.iter().filter(|(k, _)| k != "marker" && k != "page_reverse") {
            query.append_pair(k, v);
        }
        query.append_pair("marker", marker);
        if reverse {
            query.append_pair("page_reverse", "True");
        }
        format!("{}{}?{}", call.base_url, call.path, query.finish())
    }

    /// `[{"rel": "next", "href": ...}]` (and `previous`), as compute and network give them.
    pub fn links<T>(&self, call: &Call, items: &[T], more: bool, id: impl Fn(&T) -> &str) -> Vec<Value> {
        let mut links = Vec::new();
        let (next, previous) = if self.reverse { (self.marker.is_some(), more) } else { (more, self.marker.is_some()) };
        if let Some(last) = items.last()
            && next
        {
            links.push(json!({"rel": "next", "href": self.url(call, id(last), false)}));
        }
        if let Some(first) = items.first()
            && previous
        {
            links.push(json!({"rel": "previous", "href": self.url(call, id(first), true)}));
        }
        links
    }
}

/// Rows read at once at most.
const BATCH_MAX: usize = 1000;

fn store_dir(dir: Dir) -> pilvi_store::Dir {
    match dir {
        Dir::Asc => pilvi_store::Dir::Asc,
        Dir::Desc => pilvi_store::Dir::Desc,
    }
}

/// The marker that the client named, as the client named it.
fn no_marker(error: pilvi_store::Error, marker: Option<&str>) -> Fault {
    match (&error, marker) {
        (pilvi_store::Error::BadMarker { .. }, Some(marker)) => {
            Fault::bad_request(format!("The marker [{marker}] could not be found.")).kind("MarkerNotFound")
        }
        _ => error.into(),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        _ => 3,
    };
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(limit: Option<usize>, marker: Option<&str>) -> Page {
        Page { limit, marker: marker.map(str::to_owned), sort: vec![("n".into(), Dir::Desc)], reverse: false }
    }

    #[test]
    fn unknown_markers_are_refused() {
        let items = vec![("a".to_owned(), 1)];
        assert_eq!(page(None, Some("z")).cut(items, |i| &i.0, |i, _| json!(i.1)).unwrap_err().code(), 400);
    }

    proptest! {
        #[test]
        fn pages_join_to_the_whole(values in proptest::collection::vec(0i64..5, 0..40), limit in 1usize..7) {
            let items: Vec<(String, i64)> = values.iter().enumerate().map(|(i, v)| (format!("{i:03}"), *v)).collect();
            let (whole, _) = page(None, None).cut(items.clone(), |i| &i.0, |i, _| json!(i.1)).unwrap();
            let (mut joined, mut marker) = (Vec::new(), None::<String>);
            loop {
                let (part, more) = page(Some(limit), marker.as_deref()).cut(items.clone(), |i| &i.0, |i, _| json!(i.1)).unwrap();
                marker = part.last().map(|i: &(String, i64)| i.0.clone());
                joined.extend(part);
                if !more { break; }
            }
            prop_assert_eq!(whole, joined);
        }
    }
}
