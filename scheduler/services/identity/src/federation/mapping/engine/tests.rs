//! Cases of the mapping engine, and its comparison with the original's.
use super::*;
use serde_json::json;

fn assertion(pairs: &[(&str, &[&str])]) -> Assertion {
    Assertion(pairs.iter().map(|(n, v)| ((*n).to_owned(), v.iter().map(|t| (*t).to_owned()).collect())).collect())
}

fn mapping(version: &str, rules: Value) -> Mapping {
    let mapping = Mapping { id: "m".into(), rules, schema_version: version.into() };
    let document = json!({"rules": mapping.rules, "schema_version": version});
    schema::check(&document, version).unwrap();
    mapping
}

fn tester() -> Assertion {
    assertion(&[
        ("UserName", &["bob"]),
        ("FirstName", &["Bob"]),
        ("orgPersonType", &["Employee", "Tester"]),
        ("Groups", &["Developer", "Manager", "Contractor"]),
        ("Email", &["bob@example.org"]),
    ])
}

fn named(name: &str) -> DomainName {
    DomainName::Name(name.into())
}

#[test]
fn a_rule_holds_when_all_it_asks_is_there() {
    for (requirement, holds) in [
        (json!({"type": "orgPersonType", "any_one_of": ["Tester", "Guest"]}), true),
        (json!({"type": "orgPersonType", "any_one_of": ["Guest"]}), false),
        (json!({"type": "orgPersonType", "any_one_of": ["est"]}), false),
        (json!({"type": "orgPersonType", "any_one_of": ["est"], "regex": true}), true),
        (json!({"type": "orgPersonType", "any_one_of": ["^est"], "regex": true}), false),
        (json!({"type": "orgPersonType", "not_any_of": ["Guest"]}), true),
        (json!({"type": "orgPersonType", "not_any_of": ["Tester"]}), false),
        (json!({"type": "orgPersonType", "not_any_of": [".*er$"], "regex": true}), false),
        (json!({"type": "Phone"}), false),
        (json!({"type": "Phone", "not_any_of": ["1"]}), false),
    ] {
        let rules = json!([{"local": [{"user": {"name": "x"}}], "remote": [{"type": "UserName"}, requirement]}]);
        assert_eq!(apply(&mapping("1.0", rules), &tester()).is_ok(), holds, "{requirement}");
    }
}

#[test]
fn values_of_conditions_are_no_direct_values() {
    let rules = json!([{"local": [{"user": {"name": "{0}-{1}", "email": "{1}"}}],
        "remote": [{"type": "UserName"}, {"type": "orgPersonType", "any_one_of": ["Tester"]}, {"type": "Email"}]}]);
    let user = apply(&mapping("1.0", rules), &tester()).unwrap().user;
    assert_eq!((user.name.as_deref(), user.email.as_deref()), (Some("bob-bob@example.org"), Some("bob@example.org")));
}

#[test]
fn the_first_user_counts_groups_add_up_the_last_projects_count() {
    let rule = |local: Value| json!({"local": [local], "remote": [{"type": "UserName"}]});
    let project = |name: &str| json!({"projects": [{"name": name, "roles": [{"name": "member"}]}]});
    let rules = json!([
        rule(json!({"user": {}})),
        rule(json!({"user": {"name": "{0}"}, "group": {"id": "g1"}})),
        rule(json!({"user": {"name": "other"}, "group": {"name": "n", "domain": {"name": "d"}}})),
        rule(json!({"group": {"id": "g1"}})),
        rule(project("first")),
        rule(project("second")),
    ]);
    let out = apply(&mapping("1.0", rules), &tester()).unwrap();
    assert_eq!(out.user.name.as_deref(), Some("bob"));
    assert_eq!(out.group_ids, ["g1"]);
    assert_eq!(out.groups, [("n".to_owned(), named("d"))]);
    assert_eq!(out.projects.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn lists_filter_groups() {
    for (filter, expected) in [
        (json!({"whitelist": ["Developer", "Contractor", "Guest"]}), &["Developer", "Contractor"][..]),
        (json!({"blacklist": ["Developer"]}), &["Manager", "Contractor"]),
        (json!({"blacklist": ["^Con"], "regex": true}), &["Developer", "Manager"]),
        (json!({"whitelist": ["r$"], "regex": true}), &["Developer", "Manager", "Contractor"]),
        (json!({"whitelist": []}), &[]),
        (json!({"whitelist": ["Manager"]}), &["Manager"]),
    ] {
        let mut requirement = json!({"type": "Groups"});
        requirement.as_object_mut().unwrap().extend(filter.as_object().unwrap().clone());
        let rules = json!([{"local": [{"user": {"name": "{0}"}, "groups": "{1}", "domain": {"id": "d"}}],
            "remote": [{"type": "UserName"}, requirement]}]);
        let out = apply(&mapping("1.0", rules), &tester()).unwrap();
        let have: Vec<_> = out.groups.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(have, expected, "{filter}");
        assert!(out.groups.iter().all(|(_, d)| *d == DomainName::Id("d".into())));
    }
}

#[test]
fn groups_need_a_domain_unless_they_bring_one() {
    let rules =
        json!([{"local": [{"user": {"name": "x"}}, {"groups": "{0}"}], "remote": [{"type": "openstack_groups"}]}]);
    let json = r#"JSON:{"name":"g","domain":{"name":"Default"}}"#;
    let out = apply(&mapping("1.0", rules.clone()), &assertion(&[("openstack_groups", &[json])])).unwrap();
    assert_eq!(out.groups, [("g".to_owned(), named("Default"))]);
    assert!(apply(&mapping("1.0", rules.clone()), &assertion(&[("openstack_groups", &["g"])])).is_err());
    assert!(apply(&mapping("1.0", rules), &assertion(&[("openstack_groups", &["JSON:{"])])).is_err());
}

#[test]
fn from_version_two_a_rules_domain_is_that_of_user_and_projects() {
    let rules = json!([{"local": [{"user": {"name": "{0}"}, "domain": {"name": "d"},
        "projects": [{"name": "p", "roles": [{"name": "member"}, {"name": "reader"}]}]}], "remote": [{"type": "UserName"}]}]);
    let first = apply(&mapping("1.0", rules.clone()), &tester()).unwrap();
    assert_eq!((first.user.domain, first.projects[0].domain.clone()), (None, None));
    let second = apply(&mapping("2.0", rules), &tester()).unwrap();
    assert_eq!((second.user.domain, second.projects[0].domain.clone()), (Some(named("d")), Some(named("d"))));
    assert_eq!(second.projects[0].roles, ["member", "reader"]);
    assert!(!second.only_these_projects);
}

#[test]
fn projects_come_as_json_from_version_three() {
    let rules = json!([{"local": [{"user": {"name": "{0}"}, "projects_json": "{1}"}], "remote": [{"type": "UserName"}, {"type": "p"}]}]);
    let of = |text: &str| {
        apply(&mapping("3.0", rules.clone()), &assertion(&[("UserName", &["bob"]), ("p", &[text])])).map(|m| m.projects)
    };
    let projects = of(r#"[{"name": "p", "roles": [{"name": "member"}], "domain": {"id": "d"}}]"#).unwrap();
    assert_eq!(projects[0].domain, Some(DomainName::Id("d".into())));
    for bad in ["[", "{}", "[{\"name\": \"p\"}]", "[1]"] {
        assert!(of(bad).is_err(), "{bad}");
    }
}

#[test]
fn nobody_is_made_of_nothing() {
    let rules = json!([{"local": [{"user": {"name": "x"}}], "remote": [{"type": "Nothing"}]}]);
    assert!(apply(&mapping("1.0", rules), &tester()).is_err());
    let empty = json!([{"local": [], "remote": [{"type": "UserName"}]}]);
    assert!(apply(&mapping("1.0", empty), &tester()).is_err());
}

mod oracle;
