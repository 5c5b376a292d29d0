//! Who calls: the personas of `tests/registry/personas.json`, with the ids that the world gave their places.
use pilvi_kit::{Caller, Scope};
use serde_json::Value;
use std::{collections::HashMap, sync::LazyLock};

static WORLD: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../registry/personas.json")).unwrap());

#[derive(Debug, Clone)]
pub struct Persona {
    pub name: String,
    pub caller: Caller,
}

/// `names` maps the personas' names of places and users to ids; what is not there keeps its name.
pub fn all(names: &HashMap<String, String>) -> Vec<Persona> {
    WORLD["personas"].as_array().unwrap().iter().map(|p| persona(p, names)).collect()
}

pub fn named(name: &str, names: &HashMap<String, String>) -> Persona {
    all(names).into_iter().find(|p| p.name == name).unwrap()
}

/// What the owner owns, as rules see it, with the names of the file.
pub fn owned() -> serde_json::Map<String, Value> {
    WORLD["owned"].as_object().unwrap().clone()
}

fn persona(value: &Value, names: &HashMap<String, String>) -> Persona {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let id = |v: &Value| names.get(v.as_str().unwrap()).cloned().unwrap_or_else(|| text(v));
    let scope = &value["scope"];
    let scope = if scope == "system" {
        Scope::System
    } else if scope["project"].is_string() {
        let domain = id(&scope["domain"]);
        Scope::Project {
            id: id(&scope["project"]),
            name: text(&scope["project"]),
            domain_name: text(&scope["domain"]),
            domain_id: domain,
        }
    } else if scope["domain"].is_string() {
        Scope::Domain { id: id(&scope["domain"]), name: text(&scope["domain"]) }
    } else {
        Scope::Unscoped
    };
    let roles = WORLD["roles"][value["role"].as_str().unwrap()].as_array().unwrap();
    let user_id = id(&value["user"]);
    Persona {
        name: text(&value["name"]),
        caller: Caller {
            user_name: text(&value["user"]),
            user_id,
            user_domain_id: id(&Value::from("d-own")),
            user_domain_name: "d-own".into(),
            scope,
            roles: roles.iter().map(|r| (format!("role-{}", text(r)), text(r))).collect(),
            methods: vec!["password".into()],
            audit_ids: vec!["an-audit-id-of-tests".into()],
            issued_us: pilvi_kit::clock::now_us(),
            expires_us: pilvi_kit::clock::now_us() + 3_600_000_000,
            ..Caller::default()
        },
    }
}
