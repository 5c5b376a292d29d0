//! Lists as Cinder pages them: `limit`, `marker`, `offset`, `sort=key:dir,...` or `sort_key` and `sort_dir`; newest first.
use pilvi_kit::{
    Call, Fault,
    page::{Dir, Page},
};
use pilvi_store::{Query, Record, Store, Stored};
use serde_json::{Value, json};

/// Largest page, and the one of who asks for none.
const PAGE_MAX: usize = 1000;
/// Rows that may be skipped.
const OFFSET_MAX: usize = 1_000_000;

/// Names in queries that filter nothing.
pub const PAGING: [&str; 6] = ["limit", "marker", "offset", "sort", "sort_key", "sort_dir"];

/// What a client asked of a list.
#[derive(Debug)]
pub struct Listing {
    page: Page,
    offset: usize,
}

fn direction(text: &str) -> Result<Dir, Fault> {
    match text {
        "asc" => Ok(Dir::Asc),
        "desc" => Ok(Dir::Desc),
        _ => Err(crate::fault::invalid_input("Unknown sort direction, must be one of: asc, desc.")),
    }
}

fn sorting(call: &Call) -> Result<Vec<(String, Dir)>, Fault> {
    let (key, dir) = (call.query.get("sort_key"), call.query.get("sort_dir"));
    let Some(sort) = call.query.get("sort") else {
        return Ok(vec![(key.unwrap_or("created_at").trim().to_owned(), direction(dir.unwrap_or("desc").trim())?)]);
    };
    if key.is_some() || dir.is_some() {
        return Err(Fault::bad_request(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter.",
        ));
    }
    let one = |part: &str| {
        let (key, dir) = part.split_once(':').unwrap_or((part, "desc"));
        Ok((key.trim().to_owned(), direction(if dir.trim().is_empty() { "desc" } else { dir.trim() })?))
    };
    sort.split(',').take(8).map(one).collect()
}

impl Listing {
    /// `keys`: what may be sorted by.
    pub fn of(call: &Call, keys: &[&str]) -> Result<Self, Fault> {
        let limit = match call.query.get("limit") {
            None => PAGE_MAX,
            Some(text) => match text.trim().parse::<i64>() {
                Ok(n) => usize::try_from(n).map_err(|_| Fault::bad_request("limit param must be positive"))?,
                Err(_) => return Err(Fault::bad_request("limit param must be an integer")),
            },
        };
        let offset = match call.query.get("offset").map(|text| text.trim().parse::<usize>()) {
            None => 0,
            Some(Ok(n)) if n <= OFFSET_MAX => n,
            Some(_) => return Err(crate::fault::invalid_input("offset must be a whole number, and not below zero")),
        };
        let sort = sorting(call)?;
        if sort.iter().any(|(key, _)| !keys.contains(&key.as_str())) {
            return Err(crate::fault::invalid_input("Sort key passed is invalid"));
        }
        let marker = call.query.get("marker").filter(|m| !m.is_empty()).map(str::to_owned);
        Ok(Listing { page: Page { limit: Some(limit.min(PAGE_MAX)), marker, sort, reverse: false }, offset })
    }

    /// The page from the store, and whether more follows; see [`Page::select`]. `unknown`: no such marker.
    pub async fn select<R: Record>(
        &self,
        store: &Store,
        query: Query,
        sort: Sorted<R>,
        keep: impl Fn(&Stored<R>) -> bool,
        unknown: fn(&str) -> Fault,
    ) -> Result<(Vec<Stored<R>>, bool), Fault> {
        let mut page = self.page.clone();
        page.limit = page.limit.map(|limit| limit + self.offset);
        let found = page.select(store, query, sort.column, sort.key, keep).await;
        let (mut found, more) = found.map_err(|fault| match &self.page.marker {
            Some(marker) if fault.kind == "MarkerNotFound" => unknown(marker),
            _ => fault,
        })?;
        found.drain(..self.offset.min(found.len()));
        Ok((found, more))
    }

    /// The document of a page: `{"volumes": [...], "volumes_links": [...]}`.
    pub fn document<R: Record>(
        &self,
        call: &Call,
        name: &str,
        shown: Vec<Value>,
        rows: &[Stored<R>],
        more: bool,
    ) -> Value {
        self.document_of(call, (name, name), shown, rows, more)
    }

    /// The same where the links are named otherwise: (`groups`, `group`) for `{"groups": [...], "group_links": [...]}`.
    pub fn document_of<R: Record>(
        &self,
        call: &Call,
        (name, linked): (&str, &str),
        shown: Vec<Value>,
        rows: &[Stored<R>],
        more: bool,
    ) -> Value {
        let mut body = json!({name: shown});
        let full = more || self.page.limit == Some(rows.len());
        if let (Some(last), true) = (rows.last(), full) {
            let href = self.page.next_url(call, last.record.id());
            body[format!("{linked}_links")] = json!([{"rel": "next", "href": href}]);
        }
        body
    }
}

/// The store's columns of the sort keys that most kinds have.
pub fn common_column(key: &str) -> Option<&'static str> {
    Some(match key {
        "id" => "id",
        "name" | "display_name" => "name",
        "status" => "state",
        "created_at" => "created",
        "updated_at" => "updated",
        _ => return None,
    })
}

/// How a kind is sorted: the store's column of a key, where there is one, and a record's value of it.
pub struct Sorted<R> {
    pub column: fn(&str) -> Option<&'static str>,
    pub key: fn(&Stored<R>, &str) -> Value,
}

/// Microseconds as Cinder spells them; `updated_at` is null until the first change.
pub fn times<R>(stored: &Stored<R>) -> (Value, Value) {
    let changed = stored.updated_us != stored.created_us;
    let updated = if changed { json!(pilvi_kit::clock::micros(stored.updated_us)) } else { Value::Null };
    (json!(pilvi_kit::clock::micros(stored.created_us)), updated)
}
