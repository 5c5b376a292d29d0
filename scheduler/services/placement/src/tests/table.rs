//! Operation by operation, version by version, error by error: a table of calls on one small cloud.
//!
//! Each step is a call and what must come back; steps of one table follow each other. `$NAME` in paths and bodies is
//! a uuid made at first use. An answer is looked into by JSON pointers: `=` a value, `-` not there.
use super::{Bench, code};
use pilvi_kit::id;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What an answer must have.
pub enum Has {
    /// At the pointer, this.
    Is(&'static str, Value),
    /// Nothing at the pointer.
    Not(&'static str),
    /// That many members at the pointer.
    Count(&'static str, usize),
    Code(&'static str),
    /// In the text of the error.
    Text(&'static str),
    Header(&'static str),
    NoHeader(&'static str),
}
pub use Has::*;

/// A call: version, method and path, body, status, what else.
pub type Step = (&'static str, &'static str, Value, u16, Vec<Has>);

/// A cloud on which tables are played.
pub struct Stage {
    pub bench: Bench,
    names: BTreeMap<String, String>,
}

impl Stage {
    pub async fn new() -> Self {
        Stage { bench: Bench::new().await, names: BTreeMap::new() }
    }

    /// `$NAME` -> uuid
    pub fn fill(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let end = after.find(|c: char| !c.is_ascii_uppercase()).unwrap_or(after.len());
            out.push_str(self.names.entry(after[..end].to_owned()).or_insert_with_key(|_| id::new()));
            rest = &after[end..];
        }
        out + rest
    }

    pub async fn play(&mut self, table: Vec<Step>) {
        for (at, (version, call, body, status, all)) in table.into_iter().enumerate() {
            let (method, path) = call.split_once(' ').unwrap();
            let path = self.fill(path);
            let body: Value = serde_json::from_str(&self.fill(&body.to_string())).unwrap();
            let body = (!body.is_null()).then_some(body);
            let answer = self.bench.at(version, method, &path, body.clone()).await;
            let what = format!("step {at}: {version} {call} {body:?}\n -> {} {}", answer.status, answer.body);
            assert_eq!(answer.status, status, "{what}");
            for has in all {
                match has {
                    Is(pointer, value) => {
                        let value: Value = serde_json::from_str(&self.fill(&value.to_string())).unwrap();
                        assert_eq!(answer.body.pointer(&self.fill(pointer)), Some(&value), "{pointer} in {what}");
                    }
                    Not(pointer) => assert_eq!(answer.body.pointer(&self.fill(pointer)), None, "{pointer} in {what}"),
                    Count(pointer, n) => {
                        let found = answer.body.pointer(&self.fill(pointer)).unwrap_or_else(|| panic!("{what}"));
                        let count = found.as_array().map(Vec::len).or(found.as_object().map(serde_json::Map::len));
                        assert_eq!(count, Some(n), "{pointer} in {what}");
                    }
                    Code(wanted) => assert_eq!(code(&answer), wanted, "{what}"),
                    Text(wanted) => {
                        let text = answer.body["errors"][0]["detail"].as_str().unwrap_or_default();
                        assert!(text.contains(&self.fill(wanted)), "{wanted:?} in {what}");
                    }
                    Header(name) => assert!(answer.headers.contains_key(name), "{name} of {what}"),
                    NoHeader(name) => assert!(!answer.headers.contains_key(name), "{name} of {what}"),
                }
            }
        }
    }
}

pub const CONCURRENT: &str = "placement.concurrent_update";
pub const UNDEFINED: &str = "placement.undefined_code";

/// No body.
pub fn none() -> Value {
    Value::Null
}

/// Providers `$ROOT` > `$CHILD`, and `$OTHER`, with VCPU 8, MEMORY_MB 1024 each; generation 1.
pub async fn cloud() -> Stage {
    let mut stage = Stage::new().await;
    let stocks =
        json!({"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 8}, "MEMORY_MB": {"total": 1024}}});
    stage
        .play(vec![
            ("1.39", "POST /resource_providers", json!({"name": "root", "uuid": "$ROOT"}), 200, vec![]),
            (
                "1.39",
                "POST /resource_providers",
                json!({"name": "child", "uuid": "$CHILD", "parent_provider_uuid": "$ROOT"}),
                200,
                vec![],
            ),
            ("1.39", "POST /resource_providers", json!({"name": "other", "uuid": "$OTHER"}), 200, vec![]),
            ("1.39", "PUT /resource_providers/$ROOT/inventories", stocks.clone(), 200, vec![]),
            ("1.39", "PUT /resource_providers/$CHILD/inventories", stocks.clone(), 200, vec![]),
            ("1.39", "PUT /resource_providers/$OTHER/inventories", stocks, 200, vec![]),
        ])
        .await;
    stage
}

/// An allocation body of 1.38 and later.
pub fn claim(provider: &str, cores: i64, generation: Value) -> Value {
    json!({"allocations": {provider: {"resources": {"VCPU": cores}}}, "project_id": "p", "user_id": "u",
        "consumer_generation": generation, "consumer_type": "INSTANCE"})
}
