//! Lists of records that grow: what the store can filter, sort and cut it does; the rest is done on the
//! records it gives, and only what is shown becomes JSON.
use super::{next_of, passes, wanted_of};
use crate::Identity;
use pilvi_kit::{
    Call, Fault, Reply,
    call::boolean,
    page::{Dir, Page, PageRules},
};
use pilvi_store::{Query, Record};
use serde_json::Value;
use std::future::Future;

/// How the API's attributes of a record are found.
pub(crate) struct Attributes<R: 'static> {
    /// attribute -> column that holds exactly what the attribute shows
    pub columns: &'static [(&'static str, &'static str)],
    /// Attributes that may be filtered by.
    pub filters: &'static [&'static str],
    /// The value of an attribute, as it is shown.
    pub read: fn(&R, &str) -> Value,
}

impl<R> Attributes<R> {
    fn column(&self, attribute: &str) -> Option<&'static str> {
        self.columns.iter().find(|(a, _)| *a == attribute).map(|(_, c)| *c)
    }

    /// Lays as many of the call's filters as columns can answer over `query`; true if those are all.
    fn push_filters(&self, call: &Call, mut query: Query) -> (Query, bool) {
        let mut all = true;
        for (attribute, comparator, value) in wanted_of(call, self.filters) {
            let plain = !value.is_empty() && value.len() <= 255 && !value.contains('\0') && value != "null";
            match (self.column(attribute).filter(|_| plain), comparator) {
                (Some(column), "") if column == "enabled" => match boolean(value) {
                    Some(on) => query = query.eq(column, on.to_string()),
                    None => all = false,
                },
                (Some(column), "") => query = query.eq(column, value.to_owned()),
                (Some(column), "startswith") if column != "enabled" => query = query.like_prefix(column, value),
                (Some(column), "contains") if column != "enabled" => query = query.contains(column, value),
                // The store leaves out what cannot end so; where it stands is looked at afterwards.
                (Some(column), "endswith") if column != "enabled" => {
                    query = query.contains(column, value);
                    all = false;
                }
                _ => all = false,
            }
        }
        (query, all)
    }

    /// The page's sort keys as columns, if the store knows all of them.
    fn push_sort(&self, page: &Page, mut query: Query) -> Option<Query> {
        for (key, dir) in &page.sort {
            let column = if key == "id" { "id" } else { self.column(key)? };
            let dir = if *dir == Dir::Asc { pilvi_store::Dir::Asc } else { pilvi_store::Dir::Desc };
            query = query.sort(column, dir);
        }
        Some(query)
    }
}

/// Lists what `base` finds as `collection`; `keep` looks at what no column holds, and `show` makes the page's
/// records JSON.
pub(crate) async fn list<R, F>(
    svc: &Identity,
    call: &Call,
    collection: &str,
    base: Query,
    attributes: &Attributes<R>,
    keep: Option<&(dyn Fn(&R) -> bool + Send + Sync)>,
    show: impl FnOnce(Vec<R>) -> F,
) -> Reply
where
    R: Record,
    F: Future<Output = Result<Vec<Value>, Fault>> + Send,
{
    let page = Page::of(call, PageRules { max: None, default: svc.config.list_limit, keys: &[] })?;
    let (query, all) = attributes.push_filters(call, base);
    let sorted = attributes.push_sort(&page, query.clone()).filter(|_| all && keep.is_none() && !page.reverse);
    let (records, more) = match sorted {
        Some(mut query) => {
            if let Some(marker) = &page.marker {
                query = query.after_marker(marker.clone());
            }
            if let Some(limit) = page.limit {
                query = query.limit(limit.saturating_add(1));
            }
            let mut found: Vec<R> = svc.store.list::<R>(query).await?.into_iter().map(|s| s.record).collect();
            let more = page.limit.is_some_and(|limit| found.len() > limit);
            found.truncate(page.limit.unwrap_or(usize::MAX));
            (found, more)
        }
        None => {
            let found = svc.store.list::<R>(query).await?.into_iter().map(|s| s.record);
            let wanted = wanted_of(call, attributes.filters);
            let kept = found.filter(|r| {
                keep.is_none_or(|keep| keep(r)) && wanted.iter().all(|(a, c, v)| passes(&(attributes.read)(r, a), c, v))
            });
            page.cut(kept.collect(), Record::id, |r, key| (attributes.read)(r, key))?
        }
    };
    let next = records.last().filter(|_| more).map(|last| page.next_url(call, last.id()));
    let items = show(records).await?;
    Ok(next_of(call, collection, items, next))
}
