//! Who may do what: the rule language of oslo.policy, with default roles and scopes.
//!
//! A service declares [`RuleDefault`]s; an operator may replace any of them in one YAML file per service.
//! [`Enforcer::check`] asks: is the caller's scope one that the rule knows, and does its expression hold
//! for these credentials and this target? Unknown rules and unreadable expressions deny.
mod check;
mod parse;

pub use check::Check;
pub use parse::{ParseError, parse};

use crate::{auth::Caller, fault::Fault};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// What is acted on, as the rules see it: `project_id`, `user_id`, `target.user.domain_id`, ...
pub type Target = Map<String, Value>;

/// Roles as Keystone's defaults know them; `admin` implies the rest.
pub const ADMIN: &str = "role:admin";
pub const PROJECT_READER: &str = "role:reader and project_id:%(project_id)s";
pub const PROJECT_MEMBER: &str = "role:member and project_id:%(project_id)s";
pub const PROJECT_MANAGER: &str = "role:manager and project_id:%(project_id)s";
pub const PROJECT_READER_OR_ADMIN: &str = "(role:reader and project_id:%(project_id)s) or role:admin";
pub const PROJECT_MEMBER_OR_ADMIN: &str = "(role:member and project_id:%(project_id)s) or role:admin";
pub const PROJECT_MANAGER_OR_ADMIN: &str = "(role:manager and project_id:%(project_id)s) or role:admin";

/// One named rule and what it says unless the operator says otherwise.
#[derive(Debug, Clone)]
pub struct RuleDefault {
    pub name: &'static str,
    pub check: &'static str,
    /// `system`, `domain`, `project`; empty: any, also unscoped.
    pub scopes: &'static [&'static str],
    pub description: &'static str,
}

impl RuleDefault {
    pub const fn new(
        name: &'static str,
        check: &'static str,
        scopes: &'static [&'static str],
        description: &'static str,
    ) -> Self {
        RuleDefault { name, check, scopes, description }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("policy rule {name}: {error}")]
    Rule { name: String, error: ParseError },
    #[error("policy file: {0}")]
    File(String),
}

#[derive(Debug)]
struct Compiled {
    check: Check,
    text: String,
    scopes: &'static [&'static str],
}

/// The rules of one service, compiled.
#[derive(Debug, Default)]
pub struct Enforcer {
    rules: HashMap<String, Compiled>,
}

/// Bytes of an operator's policy file.
const FILE_MAX: usize = 1024 * 1024;

impl Enforcer {
    /// `overrides` is the text of the operator's YAML file: rule name -> expression.
    pub fn new(defaults: &[RuleDefault], overrides: Option<&str>) -> Result<Self, PolicyError> {
        let mut rules = HashMap::new();
        for rule in defaults {
            let check = parse(rule.check).map_err(|error| PolicyError::Rule { name: rule.name.into(), error })?;
            rules.insert(rule.name.to_owned(), Compiled { check, text: rule.check.into(), scopes: rule.scopes });
        }
        if let Some(text) = overrides {
            if text.len() > FILE_MAX {
                return Err(PolicyError::File(format!("longer than {FILE_MAX} bytes")));
            }
            let entries: BTreeMap<String, Value> =
                serde_saphyr::from_str(text).map_err(|e| PolicyError::File(e.to_string()))?;
            for (name, value) in entries {
                let text =
                    parse::from_value(&value).map_err(|error| PolicyError::Rule { name: name.clone(), error })?;
                let check = parse(&text).map_err(|error| PolicyError::Rule { name: name.clone(), error })?;
                let scopes = rules.get(&name).map_or(&[][..], |r| r.scopes);
                rules.insert(name, Compiled { check, text, scopes });
            }
        }
        Ok(Enforcer { rules })
    }

    pub fn knows(&self, rule: &str) -> bool {
        self.rules.contains_key(rule)
    }

    /// The expression in force.
    pub fn text(&self, rule: &str) -> Option<&str> {
        self.rules.get(rule).map(|r| r.text.as_str())
    }

    /// The scopes a rule applies to; empty: all.
    pub fn scopes(&self, rule: &str) -> &'static [&'static str] {
        self.rules.get(rule).map_or(&[], |r| r.scopes)
    }

    /// Does `rule` allow `caller` to act on `target`?
    pub fn allows(&self, rule: &str, target: &Target, caller: &Caller) -> bool {
        let Some(compiled) = self.rules.get(rule) else { return false };
        if !compiled.scopes.is_empty()
            && !compiled.scopes.contains(&caller.scope_type())
            && caller.user_id != "internal"
        {
            return false;
        }
        self.evaluate(&compiled.check, target, &caller.credentials())
    }

    /// The expression alone, without the scope: for tests against the original.
    pub fn evaluate(&self, check: &Check, target: &Target, credentials: &Value) -> bool {
        check.holds(&|name| self.rules.get(name).map(|r| &r.check), target, credentials, 0)
    }

    /// 403 unless allowed.
    pub fn check(&self, rule: &str, target: &Target, caller: &Caller) -> Result<(), Fault> {
        if self.allows(rule, target, caller) {
            return Ok(());
        }
        Err(Fault::forbidden(format!("You are not authorized to perform the requested action: {rule}."))
            .kind("PolicyNotAuthorized")
            .with("rule", rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Scope;
    use serde_json::json;

    fn enforcer() -> Enforcer {
        let rules = [
            RuleDefault::new("admin_required", ADMIN, &[], ""),
            RuleDefault::new("thing:get", PROJECT_READER_OR_ADMIN, &["project"], ""),
            RuleDefault::new("thing:sys", "rule:admin_required", &["system"], ""),
        ];
        Enforcer::new(&rules, Some("thing:open: '@'\nthing:list: [['role:reader', 'role:x'], ['role:admin']]\n"))
            .unwrap()
    }

    fn caller(role: &str, project: &str) -> Caller {
        Caller {
            user_id: "u".into(),
            roles: vec![("r".into(), role.into())],
            scope: Scope::Project {
                id: project.into(),
                name: "n".into(),
                domain_id: "d".into(),
                domain_name: "d".into(),
            },
            ..Caller::default()
        }
    }

    fn target(project: &str) -> Target {
        json!({"project_id": project}).as_object().unwrap().clone()
    }

    #[test]
    fn roles_projects_and_scopes_decide() {
        let e = enforcer();
        assert!(e.allows("thing:get", &target("p"), &caller("Reader", "p")));
        assert!(!e.allows("thing:get", &target("q"), &caller("reader", "p")));
        assert!(e.allows("thing:get", &target("q"), &caller("admin", "p")));
        assert!(!e.allows("thing:sys", &target("q"), &caller("admin", "p")));
        assert!(e.allows("thing:sys", &target("q"), &Caller { scope: Scope::System, ..caller("admin", "p") }));
        assert!(e.allows("thing:open", &Target::new(), &caller("x", "p")));
        assert!(e.allows("thing:list", &Target::new(), &caller("admin", "p")));
        assert!(!e.allows("thing:list", &Target::new(), &caller("reader", "p")));
        assert!(!e.allows("thing:unknown", &Target::new(), &caller("admin", "p")));
        assert_eq!(e.check("thing:get", &target("q"), &caller("reader", "p")).unwrap_err().code(), 403);
    }

    #[test]
    fn an_unreadable_file_is_refused_with_the_rule_named() {
        let error = Enforcer::new(&[], Some("a:b: 'role:x and'")).unwrap_err();
        assert!(error.to_string().contains("a:b"), "{error}");
    }
}
