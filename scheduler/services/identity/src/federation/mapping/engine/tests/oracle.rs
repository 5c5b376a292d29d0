//! The original engine as oracle: random mappings and assertions, applied by both.
//!
//! Needs a Python with `keystone` in it (`PILVI_KEYSTONE_PYTHON`, or one that `tests/run` makes); says so and
//! passes when there is none. Where the original answers with an error that is a mistake of its own (a group
//! whose name contains "name"), ours may do better; where it answers, ours must answer the same.
use super::*;
use std::{
    io::Write,
    process::{Command, Stdio},
};

const CASES: usize = 4000;

/// Reads cases as JSON lines, writes what the original makes of each.
const ORIGINAL: &str = r#"
import json, logging, sys
logging.disable(logging.CRITICAL)
import keystone.conf
from keystone.federation import utils
keystone.conf.configure()
for line in sys.stdin:
    case = json.loads(line)
    try:
        processor = utils.create_attribute_mapping_rules_processor(
            {"id": "m", "rules": case["rules"], "schema_version": case["version"]})
        out = processor.process(case["assertion"])
        print(json.dumps({"user": out["user"], "ids": sorted(set(map(str, out["group_ids"]))),
            "groups": sorted({json.dumps([g["name"], g["domain"]], sort_keys=True) for g in out["group_names"]}),
            "projects": out["projects"]}))
    except Exception as error:
        print(json.dumps({"error": type(error).__name__}))
"#;

/// A small generator: the same cases in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

const ATTRIBUTES: &[&str] = &["a", "b", "c", "d"];
const VALUES: &[&str] = &[
    "x",
    "y",
    "z",
    "xy",
    "it's",
    "say \"no\"",
    "b\\ck",
    "",
    "é",
    "tab\there",
    "['x', 'y']",
    "[]",
    "{0}",
    "x y",
    "née z",
];
const PATTERNS: &[&str] = &["x", "^x", "y$", "^(x|z)$", "[a-z]{2}", "^(?!x)", "é", "\\s", "(?i)X", ".", "^$"];

fn requirement(dice: &mut Dice) -> Value {
    let mut out = json!({"type": dice.pick(ATTRIBUTES)});
    let kind = dice.pick(&["", "", "", "any_one_of", "not_any_of", "blacklist", "whitelist"]);
    if !kind.is_empty() {
        let regex = dice.roll(2) == 0;
        let from = if regex { PATTERNS } else { VALUES };
        let values: Vec<_> = (0..dice.roll(6)).map(|_| dice.pick(from)).collect();
        out[kind] = json!(values);
        if regex || dice.roll(4) == 0 {
            out["regex"] = regex.into();
        }
    }
    out
}

fn template(dice: &mut Dice) -> String {
    let rare = ["{1}", "{0} {1}", "{}", "{1[0]}", "{0[0]}", "['k', '{0}']", "{2}"];
    let usual = ["{0}", "{0}", "plain", "{0}{0}", "{{x}}", "{0!r}", "u-{0}"];
    if dice.roll(4) == 0 { dice.pick(&rare).to_owned() } else { dice.pick(&usual).to_owned() }
}

fn domain_of(dice: &mut Dice) -> Value {
    match dice.roll(3) {
        0 => json!({"id": "d1"}),
        1 => json!({"name": template(dice)}),
        _ => json!({"name": "d2"}),
    }
}

fn local(dice: &mut Dice, version: &str) -> Value {
    let mut out = json!({});
    if dice.roll(2) == 0 {
        out["user"] = match dice.roll(4) {
            0 => json!({}),
            1 => json!({"id": template(dice), "type": "local", "domain": domain_of(dice)}),
            2 => json!({"name": template(dice), "email": template(dice)}),
            _ => json!({"name": template(dice)}),
        };
    }
    match dice.roll(5) {
        0 => out["group"] = json!({"id": template(dice)}),
        1 => out["group"] = json!({"name": template(dice), "domain": domain_of(dice)}),
        2 => out["groups"] = template(dice).into(),
        3 => out["group_ids"] = template(dice).into(),
        _ => {}
    }
    if dice.roll(2) == 0 || out.get("groups").is_some() {
        out["domain"] = domain_of(dice);
    }
    if dice.roll(4) == 0 {
        let mut project = json!({"name": template(dice), "roles": [{"name": "member"}, {"name": template(dice)}]});
        if version != "1.0" && dice.roll(2) == 0 {
            project["domain"] = domain_of(dice);
        }
        out["projects"] = json!([project]);
    }
    out
}

fn case(dice: &mut Dice) -> Value {
    let version = dice.pick(&["1.0", "2.0", "3.0"]);
    let rules: Vec<_> = (0..1 + dice.roll(3))
        .map(|_| {
            let mut remote: Vec<_> = (0..1 + dice.roll(2)).map(|_| requirement(dice)).collect();
            if dice.roll(4) > 0 {
                remote.insert(0, json!({"type": "a"}));
            }
            let local: Vec<_> = (0..1 + dice.roll(2)).map(|_| local(dice, version)).collect();
            json!({"local": local, "remote": remote})
        })
        .collect();
    let mut assertion = Map::new();
    for name in ATTRIBUTES {
        if *name == "a" || dice.roll(8) > 0 {
            let values: Vec<_> = (0..1 + dice.roll(3)).map(|_| dice.pick(VALUES)).collect();
            assertion.insert((*name).to_owned(), values.join(";").into());
        }
    }
    json!({"version": version, "rules": rules, "assertion": assertion})
}

fn shown(name: &DomainName) -> Value {
    match name {
        DomainName::Id(id) => json!({"id": id}),
        DomainName::Name(name) => json!({"name": name}),
    }
}

/// Ours, in the original's words.
fn ours(case: &Value) -> Value {
    let split = |v: &Value| v.as_str().unwrap().split(';').map(str::to_owned).collect();
    let said = Assertion(case["assertion"].as_object().unwrap().iter().map(|(k, v)| (k.clone(), split(v))).collect());
    let version = case["version"].as_str().unwrap();
    let made = Mapping { id: "m".into(), rules: case["rules"].clone(), schema_version: version.into() };
    let Ok(out) = apply(&made, &said) else { return json!({"error": "ours"}) };
    let mut user = json!({"type": if out.user.local { "local" } else { "ephemeral" }});
    for (name, value) in [("id", &out.user.id), ("name", &out.user.name), ("email", &out.user.email)] {
        if let Some(value) = value {
            user[name] = value.clone().into();
        }
    }
    if let Some(domain) = &out.user.domain {
        user["domain"] = shown(domain);
    }
    let project = |p: &MappedProject| {
        let roles: Value = p.roles.iter().map(|r| json!({"name": r})).collect();
        let mut out = json!({"name": p.name, "roles": roles});
        if let Some(domain) = &p.domain {
            out["domain"] = shown(domain);
        }
        out
    };
    let mut groups: Vec<_> = out.groups.iter().map(|(n, d)| json!([n, shown(d)])).collect();
    groups.sort_by_key(Value::to_string);
    let mut ids = out.group_ids.clone();
    ids.sort();
    json!({"user": user, "ids": ids, "groups": groups, "projects": out.projects.iter().map(project).collect::<Vec<_>>()})
}

/// The original's answer without what it leaves undefined: members that are null, and the order of its sets.
fn tidy(mut answer: Value) -> Value {
    let drop_null = |map: &mut Value| {
        if map["domain"].is_null() {
            map.as_object_mut().unwrap().remove("domain");
        }
    };
    if answer.get("user").is_some() {
        drop_null(&mut answer["user"]);
        answer["projects"].as_array_mut().unwrap().iter_mut().for_each(drop_null);
        let groups: Vec<Value> = answer["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| serde_json::from_str(g.as_str().unwrap()).unwrap())
            .collect();
        answer["groups"] = groups.into();
        answer["groups"].as_array_mut().unwrap().sort_by_key(Value::to_string);
        let mut ids: Vec<String> =
            answer["ids"].as_array().unwrap().iter().map(|i| i.as_str().unwrap().to_owned()).collect();
        ids.sort();
        answer["ids"] = ids.into();
    }
    answer
}

/// Lists that the original makes of sets have no order: a case where one with several values is filled into a
/// text cannot be compared.
fn ordered(case: &Value) -> bool {
    let rules = case["rules"].as_array().unwrap();
    let filters = |r: &Value| r.get("blacklist").is_some() || r.get("whitelist").is_some();
    rules.iter().all(|rule| {
        rule["remote"].as_array().unwrap().iter().filter(|r| filters(r)).all(|r| {
            let values = case["assertion"].get(r["type"].as_str().unwrap()).and_then(Value::as_str).unwrap_or("");
            let mut list: Vec<&str> = values.split(';').collect();
            list.sort_unstable();
            let repeated = list.windows(2).any(|w| w[0] == w[1]);
            list.len() == 1 && !repeated
        })
    })
}

#[test]
fn the_original_makes_the_same_of_every_case() {
    let Some(python) = std::env::var_os("PILVI_KEYSTONE_PYTHON") else {
        eprintln!("skipped: PILVI_KEYSTONE_PYTHON names no Python with keystone in it");
        return;
    };
    let mut dice = Dice(7);
    let cases: Vec<Value> = std::iter::from_fn(|| Some(case(&mut dice))).filter(ordered).take(CASES).collect();
    let mut child = Command::new(python)
        .args(["-c", ORIGINAL])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("PILVI_KEYSTONE_PYTHON runs");
    let mut input = child.stdin.take().unwrap();
    let lines: String = cases.iter().map(|c| format!("{c}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let answers: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.len(), cases.len(), "the original answered every case");
    let (mut same, mut refused, mut better) = (0, 0, 0);
    for (case, answer) in cases.iter().zip(answers) {
        let (theirs, mine) = (tidy(answer), ours(case));
        match (theirs.get("error"), mine.get("error")) {
            (Some(_), Some(_)) => refused += 1,
            (Some(_), None) => better += 1,
            _ => {
                assert_eq!(mine, theirs, "{case}");
                same += 1;
            }
        }
    }
    eprintln!("{same} the same, {refused} refused by both, {better} refused by the original alone");
    assert!(same > CASES / 4, "most cases must say something: {same}");
}
