//! The query string of a list: filters, order and page; pure.
use super::{
    model::{Image, Visibility},
    ops::{Asked, Shared},
    view,
};
use crate::member::model::Acceptance;
use pilvi_kit::{
    Call, Fault,
    call::boolean,
    clock,
    page::{Dir, Page},
};
use pilvi_store::Stored;
use serde_json::Value;

const LIMIT_DEFAULT: usize = 25;
const LIMIT_MAX: usize = 1000;
const SORT_KEYS: &[&str] =
    &["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"];
/// Keys that take `in:a,b`.
const LISTS: &[&str] = &["id", "name", "status", "container_format", "disk_format"];
/// Keys that take `gte:2026-01-01T00:00:00Z` and the like.
const TIMES: &[&str] = &["created_at", "updated_at"];

/// One condition.
#[derive(Debug, PartialEq)]
enum Condition {
    Equals(String, String),
    In(String, Vec<String>),
    /// Microseconds since 1970.
    Time(String, Compare, i64),
    SizeMin(u64),
    SizeMax(u64),
    Tag(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Debug)]
pub struct Filter {
    pub asked: Asked,
    pub shared: Shared,
    pub page: Page,
    hidden: bool,
    protected: Option<bool>,
    conditions: Vec<Condition>,
}

/// Reads the query string; 400 for what cannot be read.
pub fn parse(call: &Call) -> Result<Filter, Fault> {
    let mut filter = Filter {
        asked: Asked::Usual,
        shared: Shared::Only(Acceptance::Accepted),
        page: page(call)?,
        hidden: false,
        protected: None,
        conditions: Vec::new(),
    };
    for (key, value) in &call.query.0 {
        read(&mut filter, key, value)?;
    }
    Ok(filter)
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
        "protected" => filter.protected = Some(flag()?),
        "size_min" => filter.conditions.push(Condition::SizeMin(size()?)),
        "size_max" => filter.conditions.push(Condition::SizeMax(size()?)),
        "tag" => filter.conditions.push(Condition::Tag(value.trim().to_owned())),
        key if TIMES.contains(&key) => filter.conditions.push(time(key, value)?),
        key => filter.conditions.push(match value.strip_prefix("in:") {
            Some(list) if LISTS.contains(&key) => Condition::In(key.to_owned(), split(list)?),
            _ => Condition::Equals(
                key.to_owned(),
                value.strip_prefix("eq:").filter(|_| LISTS.contains(&key)).unwrap_or(value).to_owned(),
            ),
        }),
    }
    Ok(())
}

fn time(key: &str, value: &str) -> Result<Condition, Fault> {
    let (compare, text) = match value.split_once(':') {
        Some(("eq", rest)) => (Compare::Eq, rest),
        Some(("neq", rest)) => (Compare::Ne, rest),
        Some(("gt", rest)) => (Compare::Gt, rest),
        Some(("gte", rest)) => (Compare::Ge, rest),
        Some(("lt", rest)) => (Compare::Lt, rest),
        Some(("lte", rest)) => (Compare::Le, rest),
        Some((op, _)) if !op.is_empty() && op.bytes().all(|b| b.is_ascii_lowercase()) => {
            return Err(Fault::bad_request(format!("Unable to filter by unknown operator '{op}'.")));
        }
        _ => (Compare::Eq, value),
    };
    let us = clock::parse(text).ok_or_else(|| Fault::bad_request(format!("Invalid time in '{key}': {text}")))?;
    Ok(Condition::Time(key.to_owned(), compare, us))
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

/// The value an image is sorted by.
pub fn sort_key(image: &Stored<Image>, key: &str) -> Value {
    match key {
        "created_at" => image.created_us.into(),
        "updated_at" => image.updated_us.into(),
        "name" => image.name.clone().into(),
        "status" => image.status.as_str().into(),
        "container_format" => image.container_format.clone().into(),
        "disk_format" => image.disk_format.clone().into(),
        "size" => image.size.into(),
        _ => image.id.clone().into(),
    }
}

impl Filter {
    pub fn accepts(&self, image: &Stored<Image>) -> bool {
        image.os_hidden == self.hidden
            && self.protected.is_none_or(|p| image.protected == p)
            && (self.conditions.is_empty() || {
                let shown = view::one(image);
                self.conditions.iter().all(|c| c.holds(image, &shown))
            })
    }
}

impl Condition {
    fn holds(&self, image: &Stored<Image>, shown: &Value) -> bool {
        let text = |key: &str| match shown.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(n)) => Some(n.to_string()),
            Some(Value::Bool(b)) => Some(b.to_string()),
            _ => None,
        };
        match self {
            Condition::Equals(key, value) => text(key).as_deref() == Some(value),
            Condition::In(key, values) => text(key).is_some_and(|t| values.contains(&t)),
            Condition::SizeMin(min) => image.size.is_some_and(|s| s >= *min),
            Condition::SizeMax(max) => image.size.is_some_and(|s| s <= *max),
            Condition::Tag(tag) => image.tags.contains(tag),
            Condition::Time(key, compare, us) => {
                let stamp = if key == "created_at" { image.created_us } else { image.updated_us };
                // What clients read has whole seconds, so that is what they compare with.
                let (stamp, us) = (stamp.div_euclid(1_000_000), us.div_euclid(1_000_000));
                match compare {
                    Compare::Eq => stamp == us,
                    Compare::Ne => stamp != us,
                    Compare::Gt => stamp > us,
                    Compare::Ge => stamp >= us,
                    Compare::Lt => stamp < us,
                    Compare::Le => stamp <= us,
                }
            }
        }
    }
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
        assert!(matches!(time("created_at", "gte:2026-01-01T00:00:00Z").unwrap(), Condition::Time(_, Compare::Ge, _)));
        assert!(matches!(time("created_at", "2026-01-01T00:00:00Z").unwrap(), Condition::Time(_, Compare::Eq, _)));
        assert!(time("created_at", "xx:2026-01-01T00:00:00Z").is_err());
        assert!(time("created_at", "gt:never").is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(key in "[a-z_]{1,12}", value in "\\PC{0,40}") {
            let mut filter = Filter { asked: Asked::Usual, shared: Shared::All, page: Page { limit: None, marker: None, sort: vec![], reverse: false },
                hidden: false, protected: None, conditions: vec![] };
            let _ = read(&mut filter, &key, &value);
        }
    }
}
