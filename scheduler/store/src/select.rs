//! Makes SQL of a [`Query`]: portable between the engines, every value a parameter.
//!
//! Parameters are numbered in the order in which they appear, because SQLite numbers `$n` by appearance.
use crate::{
    ColumnType, Dir, Error, Query, Value,
    kind::{Kind, SELECTED, fits},
    query::{Filter, Order},
};

/// Values of one `one_of` at most; SQLite takes 32,766 parameters in a statement.
const VALUES_MAX: usize = 16_384;
/// Parameters of a statement at most.
const PARAMS_MAX: usize = 32_000;
/// Choices inside of choices at most.
const DEPTH_MAX: usize = 8;
/// Sort keys at most: the condition of a page grows with their square.
const SORT_MAX: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Sql {
    pub text: String,
    pub params: Vec<Value>,
}

impl Sql {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
    fn bind(&mut self, value: Value) {
        self.params.push(value);
        self.text.push_str(&format!("${}", self.params.len()));
    }
}

/// The sort keys of a query, ending in the id.
pub(crate) fn sort_keys(kind: &Kind, query: &Query) -> Result<Vec<(String, Dir)>, Error> {
    let mut keys: Vec<(String, Dir)> = Vec::new();
    for (column, dir) in &query.sort {
        kind.column_type(column)?;
        if keys.iter().all(|(known, _)| known != column) {
            keys.push((column.clone(), *dir));
        }
        if column == "id" {
            break;
        }
    }
    if keys.len() > SORT_MAX {
        return Err(Error::query(format!("more than {SORT_MAX} sort keys")));
    }
    if keys.iter().all(|(column, _)| column != "id") {
        keys.push(("id".to_owned(), Dir::Asc));
    }
    Ok(keys)
}

/// Reads the sort keys of the marker row.
pub(crate) fn marker(kind: &Kind, keys: &[(String, Dir)]) -> String {
    let names: Vec<String> = keys.iter().map(|(column, _)| format!("\"{column}\"")).collect();
    format!("SELECT {} FROM {} WHERE \"id\" = $1", names.join(", "), kind.table)
}

/// The list itself, as one statement or two; `after` holds the marker's values of `keys`.
///
/// A page goes on where an index does: the first sort key stands alone in a range (`"name" >= $1`) that an index can
/// seek, and the exact condition behind it. NULL is smaller than everything, so descending pages end with the rows that
/// have none: these are a statement of their own, because no range holds them together with the rest.
pub(crate) fn list(
    kind: &Kind,
    query: &Query,
    keys: &[(String, Dir)],
    after: Option<&[Value]>,
) -> Result<Vec<Sql>, Error> {
    let Some(after) = after else { return Ok(vec![page(kind, query, keys, None)?]) };
    let mut pages = vec![page(kind, query, keys, Some((after, Part::Beyond)))?];
    if ends_in_nulls(&keys[0], &after[0]) {
        pages.push(page(kind, query, keys, Some((after, Part::Nulls)))?);
    }
    Ok(pages)
}

/// Which of the two statements of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Beyond,
    Nulls,
}

/// Columns that are never NULL.
fn is_set((column, _): &(String, Dir)) -> bool {
    matches!(column.as_str(), "id" | "created" | "updated")
}

/// Do rows without a value follow those that have one?
fn ends_in_nulls(first: &(String, Dir), after: &Value) -> bool {
    first.1 == Dir::Desc && !after.is_null() && !is_set(first)
}

fn page(kind: &Kind, query: &Query, keys: &[(String, Dir)], after: Option<(&[Value], Part)>) -> Result<Sql, Error> {
    let mut sql = Sql { text: format!("SELECT {SELECTED} FROM {}", kind.table), params: vec![] };
    all_of(&mut sql, kind, query)?;
    if let Some((after, part)) = after {
        sql.push(if query.filters.is_empty() { " WHERE " } else { " AND " });
        match part {
            Part::Nulls => sql.push(&format!("\"{}\" IS NULL", keys[0].0)),
            Part::Beyond => {
                range(&mut sql, &keys[0], &after[0]);
                keyset(&mut sql, keys, after);
            }
        }
    }
    sql.push(" ORDER BY ");
    for (at, (column, dir)) in keys.iter().enumerate() {
        let nulls = if column == "id" { "" } else { nulls(*dir) };
        let comma = if at == 0 { "" } else { ", " };
        sql.push(&format!("{comma}\"{column}\" {}{nulls}", direction(*dir)));
    }
    if let Some(limit) = query.limit {
        sql.push(" LIMIT ");
        sql.bind(limit.into());
    }
    bounded(sql)
}

/// What holds of the first key on all later rows (of this statement), in words that an index knows.
fn range(sql: &mut Sql, (column, dir): &(String, Dir), value: &Value) {
    match (dir, value) {
        (Dir::Asc, Value::Null) => {}
        (Dir::Desc, Value::Null) => sql.push(&format!("\"{column}\" IS NULL AND ")),
        (dir, value) => {
            sql.push(&format!("\"{column}\" {} ", if *dir == Dir::Asc { ">=" } else { "<=" }));
            sql.bind(value.clone());
            sql.push(" AND ");
        }
    }
}

fn direction(dir: Dir) -> &'static str {
    match dir {
        Dir::Asc => "ASC",
        Dir::Desc => "DESC",
    }
}

/// NULL is the smallest value on both engines.
fn nulls(dir: Dir) -> &'static str {
    match dir {
        Dir::Asc => " NULLS FIRST",
        Dir::Desc => " NULLS LAST",
    }
}

/// Counts and sums by group; without `by` one row.
pub(crate) fn group(kind: &Kind, query: &Query, by: &[&str], sums: &[&str]) -> Result<Sql, Error> {
    let mut selected = String::new();
    for column in by {
        kind.column_type(column)?;
        selected.push_str(&format!("\"{column}\", "));
    }
    selected.push_str("COUNT(*)");
    for column in sums {
        if kind.column_type(column)? != ColumnType::Int {
            return Err(Error::query(format!("{column} cannot be summed")));
        }
        selected.push_str(&format!(", CAST(COALESCE(SUM(\"{column}\"), 0) AS BIGINT)"));
    }
    let mut sql = Sql { text: format!("SELECT {selected} FROM {}", kind.table), params: vec![] };
    all_of(&mut sql, kind, query)?;
    if !by.is_empty() {
        let names: Vec<String> = by.iter().map(|column| format!("\"{column}\"")).collect();
        let order: Vec<String> = names.iter().map(|name| format!("{name} ASC NULLS FIRST")).collect();
        sql.push(&format!(" GROUP BY {} ORDER BY {}", names.join(", "), order.join(", ")));
    }
    bounded(sql)
}

fn bounded(sql: Sql) -> Result<Sql, Error> {
    if sql.params.len() > PARAMS_MAX {
        return Err(Error::query(format!("more than {PARAMS_MAX} values")));
    }
    Ok(sql)
}

fn all_of(sql: &mut Sql, kind: &Kind, query: &Query) -> Result<(), Error> {
    if !query.filters.is_empty() {
        sql.push(" WHERE ");
    }
    filters(sql, kind, query, 0)
}

fn filters(sql: &mut Sql, kind: &Kind, query: &Query, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::query(format!("choices inside of choices, more than {DEPTH_MAX} deep")));
    }
    for (at, filter) in query.filters.iter().enumerate() {
        if at > 0 {
            sql.push(" AND ");
        }
        match filter {
            Filter::OneOf(column, values) => one_of(sql, kind, column, values)?,
            Filter::Not(column, value) => not(sql, kind, column, value)?,
            Filter::Compare(column, order, value) => compare(sql, kind, column, *order, value)?,
            Filter::Prefix(column, prefix) => starts_with(sql, kind, column, prefix)?,
            Filter::Label(label, has) => labelled(sql, kind, label, *has)?,
            Filter::Any(choices) => any_of(sql, kind, choices, depth)?,
            Filter::Contains(column, part) => contains(sql, kind, column, part)?,
        }
    }
    Ok(())
}

fn check(kind: &Kind, column: &str, value: &Value) -> Result<(), Error> {
    if fits(kind.column_type(column)?, value) {
        return Ok(());
    }
    Err(Error::query(format!("{column} is compared with a value of another type")))
}

/// Values with NUL are in no column, so they are left out before an engine refuses them.
fn one_of(sql: &mut Sql, kind: &Kind, column: &str, values: &[Value]) -> Result<(), Error> {
    kind.column_type(column)?;
    let mut known = Vec::with_capacity(values.len());
    for value in values {
        check(kind, column, value)?;
        if !value.is_null() && !value.has_nul() {
            known.push(value.clone());
        }
    }
    known.sort_unstable();
    known.dedup();
    if known.len() > VALUES_MAX {
        return Err(Error::query(format!("more than {VALUES_MAX} values for {column}")));
    }
    let null = values.iter().any(Value::is_null);
    match (known.len(), null) {
        (0, false) => sql.push("1 = 0"),
        (0, true) => sql.push(&format!("\"{column}\" IS NULL")),
        (n, null) => {
            sql.push(&format!("(\"{column}\" "));
            if n == 1 {
                sql.push("= ");
                sql.bind(known.swap_remove(0));
            } else {
                in_list(sql, known);
            }
            if null {
                sql.push(&format!(" OR \"{column}\" IS NULL"));
            }
            sql.push(")");
        }
    }
    Ok(())
}

/// Repeats the last value up to a power of two, so that few statements are prepared for all lengths.
fn in_list(sql: &mut Sql, mut values: Vec<Value>) {
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    sql.push("IN (");
    for (at, value) in values.into_iter().enumerate() {
        if at > 0 {
            sql.push(", ");
        }
        sql.bind(value);
    }
    sql.push(")");
}

fn not(sql: &mut Sql, kind: &Kind, column: &str, value: &Value) -> Result<(), Error> {
    check(kind, column, value)?;
    if value.is_null() {
        sql.push(&format!("\"{column}\" IS NOT NULL"));
    } else if value.has_nul() {
        sql.push("1 = 1");
    } else {
        sql.push(&format!("(\"{column}\" <> "));
        sql.bind(value.clone());
        sql.push(&format!(" OR \"{column}\" IS NULL)"));
    }
    Ok(())
}

fn compare(sql: &mut Sql, kind: &Kind, column: &str, order: Order, value: &Value) -> Result<(), Error> {
    check(kind, column, value)?;
    if value.as_int().is_none() {
        return Err(Error::query(format!("{column} can only be ordered against an integer")));
    }
    let operator = match order {
        Order::Less => "<",
        Order::LessEqual => "<=",
        Order::Greater => ">",
        Order::GreaterEqual => ">=",
    };
    sql.push(&format!("\"{column}\" {operator} "));
    sql.bind(value.clone());
    Ok(())
}

fn labelled(sql: &mut Sql, kind: &Kind, label: &str, has: bool) -> Result<(), Error> {
    if !kind.spec.labelled {
        return Err(Error::query(format!("{} has no labels", kind.spec.name)));
    }
    if label.contains('\0') {
        sql.push(if has { "1 = 0" } else { "1 = 1" });
        return Ok(());
    }
    sql.push(if has { "\"id\" IN " } else { "\"id\" NOT IN " });
    sql.push("(SELECT id FROM store_label WHERE kind = ");
    sql.bind(kind.spec.name.into());
    sql.push(" AND label = ");
    sql.bind(label.into());
    sql.push(")");
    Ok(())
}

fn any_of(sql: &mut Sql, kind: &Kind, choices: &[Query], depth: usize) -> Result<(), Error> {
    if choices.is_empty() {
        sql.push("1 = 0");
        return Ok(());
    }
    sql.push("(");
    for (at, choice) in choices.iter().enumerate() {
        if at > 0 {
            sql.push(" OR ");
        }
        if choice.filters.is_empty() {
            sql.push("1 = 1");
            continue;
        }
        sql.push("(");
        filters(sql, kind, choice, depth + 1)?;
        sql.push(")");
    }
    sql.push(")");
    Ok(())
}

/// A range, not LIKE: it uses the index and means the same on both engines.
fn starts_with(sql: &mut Sql, kind: &Kind, column: &str, prefix: &str) -> Result<(), Error> {
    if kind.column_type(column)? != ColumnType::Text {
        return Err(Error::query(format!("{column} is not text")));
    }
    if prefix.contains('\0') {
        sql.push("1 = 0");
        return Ok(());
    }
    sql.push(&format!("\"{column}\" >= "));
    sql.bind(prefix.into());
    if let Some(end) = successor(prefix) {
        sql.push(&format!(" AND \"{column}\" < "));
        sql.bind(end.into());
    }
    Ok(())
}

/// A replacement that changes the text, not LIKE: it has no wildcards, knows case, and means the same on both engines.
fn contains(sql: &mut Sql, kind: &Kind, column: &str, part: &str) -> Result<(), Error> {
    if kind.column_type(column)? != ColumnType::Text {
        return Err(Error::query(format!("{column} is not text")));
    }
    match part {
        "" => sql.push(&format!("\"{column}\" IS NOT NULL")),
        part if part.contains('\0') => sql.push("1 = 0"),
        part => {
            sql.push(&format!("REPLACE(\"{column}\", "));
            sql.bind(part.into());
            sql.push(&format!(", '') <> \"{column}\""));
        }
    }
    Ok(())
}

/// The least text greater than all that start with `prefix`; `None` when there is none.
fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{10ffff}' => continue,
            '\u{d7ff}' => '\u{e000}',
            c => char::from_u32(u32::from(c) + 1)?,
        };
        chars.push(next);
        return Some(chars.into_iter().collect());
    }
    None
}

/// Rows after the marker: greater in the first key, or equal there and greater in the second, and so on.
fn keyset(sql: &mut Sql, keys: &[(String, Dir)], after: &[Value]) {
    sql.push("(");
    let mut first = true;
    for at in 0..keys.len() {
        let (column, dir) = &keys[at];
        // Nothing comes after NULL when descending.
        if after[at].is_null() && *dir == Dir::Desc {
            continue;
        }
        sql.push(if first { "(" } else { " OR (" });
        first = false;
        for ((column, _), value) in keys.iter().zip(after).take(at) {
            if value.is_null() {
                sql.push(&format!("\"{column}\" IS NULL AND "));
            } else {
                sql.push(&format!("\"{column}\" = "));
                sql.bind(value.clone());
                sql.push(" AND ");
            }
        }
        beyond(sql, column, *dir, &after[at]);
        sql.push(")");
    }
    sql.push(")");
}

fn beyond(sql: &mut Sql, column: &str, dir: Dir, value: &Value) {
    match (dir, value) {
        (Dir::Asc, Value::Null) => sql.push(&format!("\"{column}\" IS NOT NULL")),
        (Dir::Asc, value) => {
            sql.push(&format!("\"{column}\" > "));
            sql.bind(value.clone());
        }
        (Dir::Desc, value) => {
            sql.push(&format!("(\"{column}\" < "));
            sql.bind(value.clone());
            sql.push(&format!(" OR \"{column}\" IS NULL)"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn successor_skips_surrogates_and_ends() {
        assert_eq!(successor("a").as_deref(), Some("b"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(successor("\u{10ffff}"), None);
        assert_eq!(successor(""), None);
    }
}
