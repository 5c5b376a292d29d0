//! The query string of a list: filters, order and page, as a query to the store; pure.
use super::{
    model::Visibility,
    ops::{Asked, Shared},
};
use crate::{member::model::Acceptance, tables};
use pilvi_kit::{
    Call, Fault,
    call::boolean,
    clock,
    page::{Dir, Page},
};
use pilvi_store::Query;

const LIMIT_DEFAULT: usize = 25;
const LIMIT_MAX: usize = 1000;
const SORT_KEYS: &[&str] =
    &["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"];
/// Keys that take `in:a,b`.
const LISTS: &[&str] = &["id", "name", "status", "container_format", "disk_format"];
/// Keys that take `gte:2026-01-01T00:00:00Z` and the like.
const TIMES: &[&str] = &["created_at", "updated_at"];
/// Conditions of one list at most.
const CONDITIONS_MAX: usize = 64;
const SECOND_US: i64 = 1_000_000;

#[derive(Debug)]
pub struct Filter {
    pub asked: Asked,
    pub shared: Shared,
    pub page: Page,
    /// Conditions and order; who sees what comes from `ops`, the page from `page`.
    pub query: Query,
    hidden: bool,
}

/// Reads the query string; 400 for what cannot be read.
pub fn parse(call: &Call) -> Result<Filter, Fault> {
    let mut filter = Filter::new(page(call)?);
    if call.query.0.len() > CONDITIONS_MAX {
        return Err(Fault::bad_request(format!("A list takes at most {CONDITIONS_MAX} conditions.")));
    }
    for (key, value) in &call.query.0 {
        read(&mut filter, key, value)?;
    }
    filter.query = tables::hidden(filter.query, filter.hidden);
    for (key, dir) in &filter.page.sort {
        let column = tables::sorted_by(key).ok_or_else(|| Fault::internal(format!("no column for {key}")))?;
        let dir = if *dir == Dir::Asc { pilvi_store::Dir::Asc } else { pilvi_store::Dir::Desc };
        filter.query = filter.query.sort(column, dir);
    }
    Ok(filter)
}

impl Filter {
    fn new(page: Page) -> Self {
        let shared = Shared::Only(Acceptance::Accepted);
        Filter { asked: Asked::Usual, shared, page, query: Query::all(), hidden: false }
    }

    /// Adds a condition.
    fn must(&mut self, condition: impl FnOnce(Query) -> Query) {
        self.query = condition(std::mem::take(&mut self.query));
    }
}

fn read(filter: &mut Filter, key: &str, value: &str) -> Result<(), Fault> {
    let flag = || {
        boolean(value)
            .filter(|_| !value.is_empty())
            .ok_or_else(|| Fault::bad_request(format!("Invalid value for {key}: '{value}'. Must be a boolean.")))
    };
    let size = || {
        value.parse::<u64>().map_err(|_| {
            Fault::bad_request(format!("Invalid filter value {value}. The value must be a non-negative integer."))
        })
    };
    match key {
        "limit" | "marker" | "sort" | "sort_key" | "sort_dir" => {}
        "visibility" => {
            filter.asked = match value {
                "all" => Asked::All,
                text => Asked::Only(
                    Visibility::parse(text)
                        .ok_or_else(|| Fault::bad_request(format!("Invalid visibility value: {text}")))?,
                ),
            }
        }
        "member_status" => {
            filter.shared = match value {
                "all" => Shared::All,
                text => Shared::Only(
                    Acceptance::parse(text).ok_or_else(|| Fault::bad_request(format!("Invalid status: {text}")))?,
                ),
            }
        }
        "changes-since" => {
            return Err(Fault::bad_request("The \"changes-since\" filter is no longer available on v2."));
        }
        "os_hidden" => filter.hidden = flag()?,
        "protected" => {
            let wanted = flag()?;
            filter.must(|query| tables::protected(query, wanted));
        }
        "size_min" => {
            let min = size()?;
            filter.must(|query| query.ge(tables::SIZE, min));
        }
        "size_max" => {
            let max = size()?;
            filter.must(|query| query.le(tables::SIZE, max));
        }
        "tag" => filter.must(|query| query.labelled(tables::tag_label(value.trim()))),
        key if TIMES.contains(&key) => {
            let condition = time(key, value)?;
            filter.must(|query| query.any_of([condition]));
        }
        key => {
            let values = match value.strip_prefix("in:") {
                Some(list) if LISTS.contains(&key) => split(list)?,
                _ => vec![value.strip_prefix("eq:").filter(|_| LISTS.contains(&key)).unwrap_or(value).to_owned()],
            };
            filter.must(|query| tables::one_of(query, key, values));
        }
    }
    Ok(())
}

/// A condition on a time. What clients read has whole seconds, so that is what they compare with.
fn time(key: &str, value: &str) -> Result<Query, Fault> {
    let (compare, text) = match value.split_once(':') {
        Some((op @ ("eq" | "neq" | "gt" | "gte" | "lt" | "lte"), rest)) => (op, rest),
        Some((op, _)) if !op.is_empty() && op.bytes().all(|b| b.is_ascii_lowercase()) => {
            return Err(Fault::bad_request(format!("Unable to filter by unknown operator '{op}'.")));
        }
        _ => ("eq", value),
    };
    let us = clock::parse(text).ok_or_else(|| Fault::bad_request(format!("Invalid time in '{key}': {text}")))?;
    let column = tables::sorted_by(key).ok_or_else(|| Fault::internal(format!("no column for {key}")))?;
    let from = us.div_euclid(SECOND_US).saturating_mul(SECOND_US);
    let to = from.saturating_add(SECOND_US);
    let all = Query::all();
    Ok(match compare {
        "neq" => all.any_of([Query::all().lt(column, from), Query::all().ge(column, to)]),
        "gt" => all.ge(column, to),
        "gte" => all.ge(column, from),
        "lt" => all.lt(column, from),
        "lte" => all.lt(column, to),
        _ => all.ge(column, from).lt(column, to),
    })
}

/// Splits at commas outside of quotes.
fn split(list: &str) -> Result<Vec<String>, Fault> {
    let (mut found, mut current, mut quoted) = (Vec::new(), String::new(), false);
    for c in list.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => found.push(std::mem::take(&mut current)),
            c => current.push(c),
        }
    }
    if quoted {
        return Err(Fault::bad_request(format!("Invalid filter value {list}. The quote is not closed.")));
    }
    found.push(current);
    Ok(found)
}

fn page(call: &Call) -> Result<Page, Fault> {
    let limit = match call.query.get("limit") {
        None => LIMIT_DEFAULT,
        Some(text) => text.parse::<usize>().map_err(|_| {
            Fault::bad_request(if text.starts_with('-') {
                "limit param must be positive"
            } else {
                "limit param must be an integer"
            })
        })?,
    };
    Ok(Page {
        limit: Some(limit.min(LIMIT_MAX)),
        marker: call.query.get("marker").map(str::to_owned),
        sort: sort(call)?,
        reverse: false,
    })
}

fn sort(call: &Call) -> Result<Vec<(String, Dir)>, Fault> {
    let dir = |text: &str| match text {
        "asc" => Ok(Dir::Asc),
        "desc" => Ok(Dir::Desc),
        _ => Err(Fault::bad_request(format!("Invalid sort direction: {text}"))),
    };
    let (keys, dirs): (Vec<String>, Vec<Dir>) = if let Some(text) = call.query.get("sort") {
        if call.query.has("sort_key") || call.query.has("sort_dir") {
            return Err(Fault::bad_request("Old and new sorting syntax cannot be combined"));
        }
        let pairs: Result<Vec<_>, Fault> = text
            .split(',')
            .take(16)
            .map(|part| {
                let (key, way) = part.split_once(':').unwrap_or((part, "desc"));
                Ok((key.trim().to_owned(), dir(way.trim())?))
            })
            .collect();
        pairs?.into_iter().unzip()
    } else {
        let dirs: Vec<Dir> = call.query.all("sort_dir").map(dir).collect::<Result<_, _>>()?;
        (call.query.all("sort_key").take(16).map(str::to_owned).collect(), dirs)
    };
    if dirs.len() > 1 && dirs.len() != keys.len() {
        return Err(Fault::bad_request("Number of sort dirs does not match the number of sort keys"));
    }
    if let Some(bad) = keys.iter().find(|k| !SORT_KEYS.contains(&k.as_str())) {
        return Err(Fault::bad_request(format!(
            "Invalid sort key: {bad}. It must be one of the following: {}.",
            SORT_KEYS.join(", ")
        )));
    }
    let way = |i: usize| dirs.get(i).or(dirs.first()).copied().unwrap_or(Dir::Desc);
    let mut out: Vec<(String, Dir)> = keys.into_iter().enumerate().map(|(i, key)| (key, way(i))).collect();
    let first = out.first().map_or(way(0), |(_, d)| *d);
    for key in ["created_at", "id"] {
        if !out.iter().any(|(k, _)| k == key) {
            out.push((key.to_owned(), first));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(split("a,\"b,c\",d").unwrap(), ["a", "b,c", "d"]);
        assert_eq!(split("a,\"b").unwrap_err().code(), 400);
    }

    #[test]
    fn times_have_operators() {
        for good in ["gte:2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "neq:2026-01-01T00:00:00Z"] {
            assert!(time("created_at", good).is_ok(), "{good}");
        }
        assert!(time("created_at", "xx:2026-01-01T00:00:00Z").is_err());
        assert!(time("created_at", "gt:never").is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(key in "[a-z_]{1,12}", value in "\\PC{0,40}") {
            let mut filter = Filter::new(Page { limit: None, marker: None, sort: vec![], reverse: false });
            let _ = read(&mut filter, &key, &value);
        }
    }
}
