//! What an indexed column holds.

/// The value of an indexed column; `Null` sorts before everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl Value {
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
    /// PostgreSQL's TEXT cannot hold NUL, so no column does.
    pub(crate) fn has_nul(&self) -> bool {
        self.as_text().is_some_and(|text| text.contains('\0'))
    }
    pub(crate) fn text(text: Option<&str>) -> Self {
        text.map_or(Value::Null, |t| Value::Text(t.to_owned()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}
impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Value::Text(text.clone())
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Value::Int(i64::from(flag))
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

macro_rules! from_small_int {
    ($($int:ty),*) => {$(
        impl From<$int> for Value {
            fn from(n: $int) -> Self {
                Value::Int(i64::from(n))
            }
        }
    )*};
}
from_small_int!(i64, i32, i16, i8, u32, u16, u8);

macro_rules! from_large_int {
    ($($int:ty),*) => {$(
        /// Saturates at `i64::MAX`.
        impl From<$int> for Value {
            fn from(n: $int) -> Self {
                Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
            }
        }
    )*};
}
from_large_int!(u64, usize);

/// One row of a result.
#[derive(Debug)]
pub(crate) struct Row(pub Vec<Value>);

impl Row {
    pub fn int(&self, at: usize) -> i64 {
        self.0.get(at).and_then(Value::as_int).unwrap_or_default()
    }
    pub fn text(&self, at: usize) -> &str {
        self.0.get(at).and_then(Value::as_text).unwrap_or_default()
    }
}
