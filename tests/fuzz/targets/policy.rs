//! Policy rules and files: read or refused; what was read decides without a panic, however it refers to itself.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_kit::policy::{Enforcer, RuleDefault, parse};
use serde_json::json;

const RULES: &[RuleDefault] = &[
    RuleDefault::new("default", "!", &[], ""),
    RuleDefault::new("admin", "role:admin", &[], ""),
    RuleDefault::new("thing:get", "rule:admin or project_id:%(project_id)s", &[], ""),
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let target = json!({"project_id": "p", "target": {"user": {"domain_id": "d"}}, "shared": true});
    let credentials = json!({"user_id": "u", "project_id": "p", "roles": ["reader"], "token": {"roles": [{"name": "x"}]}});
    let target = target.as_object().expect("an object");
    if let (Ok(check), Ok(enforcer)) = (parse(text), Enforcer::new(RULES, None)) {
        let _ = enforcer.evaluate(&check, target, &credentials);
    }
    // As an operator's file.
    if let Ok(enforcer) = Enforcer::new(RULES, Some(text)) {
        for rule in ["default", "admin", "thing:get"] {
            let _ = enforcer.allows(rule, target, &pilvi_kit::testing::caller("p", &["reader"]));
        }
    }
});
