//! What to list: filters on indexed columns, order, page.
use crate::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dir {
    Asc,
    Desc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone)]
pub(crate) enum Filter {
    OneOf(String, Vec<Value>),
    Not(String, Value),
    Compare(String, Order, Value),
    Prefix(String, String),
    /// Has the label, or has it not.
    Label(String, bool),
    /// The filters of at least one.
    Any(Vec<Query>),
    Contains(String, String),
}

/// Filters (all must hold), order and page of a list.
///
/// Columns are `id`, `project`, `name`, `state`, `created`, `updated` (microseconds since 1970) and those the
/// kind declares. `Null` sorts before everything, text by its bytes. Whatever the order, `id` ascending comes
/// last, so that it is total and a page can go on after any record.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub(crate) filters: Vec<Filter>,
    pub(crate) sort: Vec<(String, Dir)>,
    pub(crate) marker: Option<String>,
    pub(crate) limit: Option<usize>,
}

impl Query {
    /// Everything, by id.
    pub fn all() -> Self {
        Query::default()
    }
    fn with(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }
    pub fn project(self, project: impl Into<String>) -> Self {
        self.eq("project", project.into())
    }
    pub fn name(self, name: impl Into<String>) -> Self {
        self.eq("name", name.into())
    }
    pub fn state(self, state: impl Into<String>) -> Self {
        self.eq("state", state.into())
    }
    /// `Null` equals `Null`.
    pub fn eq(self, column: &str, value: impl Into<Value>) -> Self {
        self.with(Filter::OneOf(column.to_owned(), vec![value.into()]))
    }
    /// Whatever is not `value`: `Null` is not 5.
    pub fn ne(self, column: &str, value: impl Into<Value>) -> Self {
        self.with(Filter::Not(column.to_owned(), value.into()))
    }
    /// None of no values: an empty list finds nothing.
    pub fn one_of<V: Into<Value>>(self, column: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.with(Filter::OneOf(column.to_owned(), values.into_iter().map(Into::into).collect()))
    }
    pub fn ids<V: Into<Value>>(self, ids: impl IntoIterator<Item = V>) -> Self {
        self.one_of("id", ids)
    }
    /// Integers only, here and in the next three; `Null` is never found.
    pub fn lt(self, column: &str, value: impl Into<Value>) -> Self {
        self.with(Filter::Compare(column.to_owned(), Order::Less, value.into()))
    }
    pub fn le(self, column: &str, value: impl Into<Value>) -> Self {
        self.with(Filter::Compare(column.to_owned(), Order::LessEqual, value.into()))
    }
    pub fn gt(self, column: &str, value: impl Into<Value>) -> Self {
        self.with(Filter::Compare(column.to_owned(), Order::Greater, value.into()))
    }
    pub fn ge(self, column: &str, value: impl Into<Value>) -> Self {
        self.with(Filter::Compare(column.to_owned(), Order::GreaterEqual, value.into()))
    }
    /// Text that starts with `prefix`, byte for byte.
    pub fn like_prefix(self, column: &str, prefix: impl Into<String>) -> Self {
        self.with(Filter::Prefix(column.to_owned(), prefix.into()))
    }
    /// Has this label.
    pub fn labelled(self, label: impl Into<String>) -> Self {
        self.with(Filter::Label(label.into(), true))
    }
    /// Has this label not.
    pub fn not_labelled(self, label: impl Into<String>) -> Self {
        self.with(Filter::Label(label.into(), false))
    }
    /// Passes the filters of at least one of `choices`, whose order and page do not matter; none of no choices.
    pub fn any_of(self, choices: impl IntoIterator<Item = Query>) -> Self {
        self.with(Filter::Any(choices.into_iter().collect()))
    }
    /// Text that has `part` in it, byte for byte. No index helps, but no document is read for what does not match.
    pub fn contains(self, column: &str, part: impl Into<String>) -> Self {
        self.with(Filter::Contains(column.to_owned(), part.into()))
    }
    /// Adds a sort key, after those given before.
    pub fn sort(mut self, column: &str, dir: Dir) -> Self {
        self.sort.push((column.to_owned(), dir));
        self
    }
    /// Starts after the record with this id, which must exist (it need not pass the filters).
    pub fn after_marker(mut self, id: impl Into<String>) -> Self {
        self.marker = Some(id.into());
        self
    }
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}
