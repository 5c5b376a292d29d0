//! `?password_expires_at=lt:2026-01-01T00:00:00Z`: users by when their password runs out.
//!
//! All conditions that are given must hold; a password that never runs out meets none.
use crate::tables::User;
use pilvi_kit::{Call, Fault, clock};
use std::cmp::Ordering;

const NAME: &str = "password_expires_at";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// Conditions on the end of a password.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expiry(Vec<(Operator, i64)>);

fn condition(text: &str) -> Option<(Operator, i64)> {
    let (operator, at) = text.split_once(':')?;
    let operator = match operator {
        "lt" => Operator::Less,
        "lte" => Operator::LessEqual,
        "gt" => Operator::Greater,
        "gte" => Operator::GreaterEqual,
        "eq" => Operator::Equal,
        "neq" => Operator::NotEqual,
        _ => return None,
    };
    Some((operator, clock::parse(at)?))
}

impl Expiry {
    /// 400 for what cannot be read.
    pub fn of(call: &Call) -> Result<Self, Fault> {
        let read = |text: &str| {
            condition(text).ok_or_else(|| {
                Fault::bad_request(format!(
                    "Invalid input for query parameters {NAME}: {text} is not OPERATOR:TIME with lt, lte, gt, gte, eq or neq and a time such as 2026-01-01T00:00:00Z."
                ))
            })
        };
        call.query.all(NAME).take(16).map(read).collect::<Result<_, _>>().map(Expiry)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn holds(&self, user: &User) -> bool {
        let end = user.password_expires_us();
        self.0.iter().all(|(operator, wanted)| match (operator, end.map(|end| end.cmp(wanted))) {
            (Operator::NotEqual, order) => order.is_some_and(|o| o != Ordering::Equal),
            (Operator::Less, order) => order == Some(Ordering::Less),
            (Operator::LessEqual, order) => order.is_some_and(|o| o != Ordering::Greater),
            (Operator::Greater, order) => order == Some(Ordering::Greater),
            (Operator::GreaterEqual, order) => order.is_some_and(|o| o != Ordering::Less),
            (Operator::Equal, order) => order == Some(Ordering::Equal),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::PasswordEntry;

    #[test]
    fn each_operator_compares() {
        let at = |expires_us| User {
            passwords: vec![PasswordEntry { hash: String::new(), created_us: 0, expires_us, self_service: false }],
            ..User::default()
        };
        let (before, same, after, never) = (at(Some(999_999)), at(Some(1_000_000)), at(Some(1_000_001)), at(None));
        for (operator, expected) in [
            ("lt", [true, false, false]),
            ("lte", [true, true, false]),
            ("gt", [false, false, true]),
            ("gte", [false, true, true]),
            ("eq", [false, true, false]),
            ("neq", [true, false, true]),
        ] {
            let expiry = Expiry(vec![condition(&format!("{operator}:1970-01-01T00:00:01Z")).unwrap()]);
            assert_eq!([&before, &same, &after].map(|u| expiry.holds(u)), expected, "{operator}");
            assert!(!expiry.holds(&never), "{operator}");
        }
        for bad in ["", "lt", "lt:", "lt:soon", "le:1970-01-01T00:00:01Z", "1970-01-01T00:00:01Z"] {
            assert!(condition(bad).is_none(), "{bad}");
        }
    }
}
