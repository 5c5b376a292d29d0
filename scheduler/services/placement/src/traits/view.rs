//! Filters of the list of traits, and the body that sets a provider's.
use pilvi_kit::{Call, Fault};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Debug)]
pub enum Names {
    Any,
    In(BTreeSet<String>),
    Prefix(String),
}

impl Names {
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Names::Any => true,
            Names::In(names) => names.contains(name),
            Names::Prefix(prefix) => name.starts_with(prefix.as_str()),
        }
    }
}

/// `name=in:A,B` or `name=startswith:A`
pub fn names(call: &Call) -> Result<Names, Fault> {
    let Some(text) = call.query.get("name") else { return Ok(Names::Any) };
    match text.split_once(':') {
        Some(("in", list)) => Ok(Names::In(list.split(',').map(str::to_owned).collect())),
        Some(("startswith", prefix)) => Ok(Names::Prefix(prefix.to_owned())),
        Some(_) => Ok(Names::Any),
        None => Err(Fault::bad_request(format!(
            "Badly formatted name parameter. Expected name query string parameter in form: ?name=[in|startswith]:[name1,name2|prefix]. Got: \"{text}\""
        ))),
    }
}

pub fn associated(call: &Call) -> Result<Option<bool>, Fault> {
    match call.query.get("associated").map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Fault::bad_request("The query parameter \"associated\" only accepts \"true\" or \"false\"")),
    }
}

/// The traits and the generation in a body that passed the schema.
pub fn wanted(body: &Value) -> (BTreeSet<String>, i64) {
    let traits = body["traits"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    (traits, body["resource_provider_generation"].as_i64().unwrap_or(-1))
}
