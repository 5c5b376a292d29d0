//! Our rule language against the original: random rules, targets and credentials, judged by both.
//!
//! ```text
//!  seeded generator -> cases -> kit::policy      -> allowed?  --.
//!                        '----> oslo.policy (one Python process) -> allowed?  -> equal, or the case is printed
//! ```
//! `PILVI_OSLO_POLICY_PYTHON` names a Python that has oslo.policy; without it the test says that it is skipped.
//! What the original does not read it denies; we refuse it at start, which is denied here as well. Two differences
//! are wanted: a leaf without a colon is `!` to the original, so that `not word` lets everybody in; and a kind like `1x`
//! fails each request that reaches it. We refuse such rules at start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // as in any test
use pilvi_kit::policy::{Enforcer, RuleDefault, parse};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

const CASES: usize = 4_000;

/// Reads one case a line, answers `1`, `0`, or `E` and the exception for what the original itself stumbles over.
const ORACLE: &str = r#"
import json, logging, sys
logging.disable(logging.CRITICAL)
from oslo_policy import _checks, _parser, policy
class Enforcer:
    rules = None
for line in sys.stdin:
    case = json.loads(line)
    e = Enforcer()
    e.rules = policy.Rules({n: _parser.parse_rule(r) for n, r in case["rules"].items()}, "default")
    try:
        check = _parser.parse_rule(case["rule"])
        answer = "1" if _checks._check(check, case["target"], case["creds"], e, None) else "0"
    except Exception as error:
        answer = "E " + repr(error)[:200].replace("\n", " ")
    print(answer, flush=True)
"#;

/// xorshift: a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Leaves that we refuse and the original does not.
const REFUSED: &[&str] = &["word", "1x:u1", "3.4.5:%(user_id)s"];
const ROLES: &[&str] = &["admin", "Member", "reader", "%(role)s", "service", ""];
const KINDS: &[&str] = &[
    "user_id",
    "project_id",
    "domain_id",
    "system_scope",
    "is_admin",
    "level",
    "nothing",
    "groups",
    "token.user.id",
    "token.roles.name",
    "token.missing.x",
    "'literal'",
    "\"literal\"",
    "'p1'",
    "None",
    "True",
    "False",
    "1",
    "-2",
    "1.5",
    "user-id",
];
const MATCHES: &[&str] = &[
    "%(user_id)s",
    "%(project_id)s",
    "%(target.user.domain_id)s",
    "%(enabled)s",
    "%(absent)s",
    "%(nested)s",
    "u1",
    "p1",
    "all",
    "True",
    "False",
    "None",
    "1",
    "literal",
    "%(level)s",
    "a:b",
    "u%%1",
    "x%(user_id)sy",
    "g2",
    "-2",
    "1.5",
];
const NAMES: &[&str] = &["one", "two", "three", "absent", "default"];

fn leaf(random: &mut Random) -> String {
    match random.below(10) {
        0 => "@".to_owned(),
        1 => "!".to_owned(),
        2..=4 => format!("role:{}", random.of(ROLES)),
        5 => format!("rule:{}", random.of(NAMES)),
        _ => format!("{}:{}", random.of(KINDS), random.of(MATCHES)),
    }
}

fn rule(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        return leaf(random);
    }
    let word = |random: &mut Random, word: &str| {
        if random.below(6) == 0 { word.to_uppercase() } else { word.to_owned() }
    };
    match random.below(8) {
        0 | 1 => leaf(random),
        2 | 3 => format!("{} {} {}", rule(random, depth - 1), word(random, "and"), rule(random, depth - 1)),
        4 | 5 => format!("{} {} {}", rule(random, depth - 1), word(random, "or"), rule(random, depth - 1)),
        6 => format!("{} {}", word(random, "not"), leaf(random)),
        _ => {
            let not = if random.below(2) == 0 { "not " } else { "" };
            format!("{not}({})", rule(random, depth - 1))
        }
    }
}

/// Spoils some rules: both sides must refuse, or read the same.
fn spoiled(random: &mut Random, rule: String) -> String {
    match random.below(24) {
        0 => format!("{rule} and"),
        1 => format!("({rule}"),
        2 => format!("{rule})"),
        3 => format!("{rule} {}", leaf(random)),
        4 => format!("  {rule}\t"),
        5 => rule.replacen(' ', "  \n", 1),
        6 => format!("{rule} or {}", random.of(REFUSED)),
        7 => format!("not {} and {rule}", random.of(REFUSED)),
        _ => rule,
    }
}

fn value(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(1),
        4 => json!(-2),
        5 => json!("all"),
        6 => json!("p1"),
        7 => json!(1.5),
        _ => json!("u1"),
    }
}

fn case(random: &mut Random) -> Value {
    let mut target = serde_json::Map::new();
    for name in ["user_id", "project_id", "target.user.domain_id", "enabled", "level", "role"] {
        if random.below(4) > 0 {
            let value = if name == "role" { json!(random.of(&["admin", "READER"])) } else { value(random) };
            target.insert(name.into(), value);
        }
    }
    let mut credentials = serde_json::Map::new();
    for name in ["user_id", "project_id", "domain_id", "system_scope", "is_admin", "level"] {
        if random.below(4) > 0 {
            credentials.insert(name.into(), value(random));
        }
    }
    if random.below(8) > 0 {
        let roles: Vec<&str> = (0..random.below(4)).map(|_| random.of(&ROLES[..3])).collect();
        credentials.insert("roles".into(), json!(roles));
    }
    if random.below(2) == 0 {
        credentials.insert("groups".into(), json!(["g1", "g2", value(random)]));
        credentials
            .insert("token".into(), json!({"user": {"id": value(random)}, "roles": [{"name": "all"}, {"name": "p1"}]}));
    }
    // Rules refer downwards only: the original runs into its recursion limit on loops.
    let mut rules = serde_json::Map::new();
    rules.insert("three".into(), spoil_free(random, &["three", "two", "one", "default"]).into());
    rules.insert("two".into(), spoil_free(random, &["two", "one", "default"]).into());
    rules.insert("one".into(), spoil_free(random, &["one", "default", "absent"]).into());
    if random.below(2) == 0 {
        rules.insert("default".into(), random.of(&["@", "!", "role:reader", "user_id:%(user_id)s"]).into());
    }
    let text = rule(random, 3);
    json!({"rules": rules, "rule": spoiled(random, text), "target": target, "creds": credentials})
}

/// A rule that names none of `above`.
fn spoil_free(random: &mut Random, above: &[&str]) -> String {
    loop {
        let text = rule(random, 2);
        if !above.iter().any(|name| text.contains(&format!("rule:{name}"))) {
            return text;
        }
    }
}

fn ours(case: &Value) -> bool {
    let Ok(check) = parse(case["rule"].as_str().unwrap()) else { return false };
    let overrides = serde_json::to_string(&case["rules"]).unwrap();
    let none: &[RuleDefault] = &[];
    let enforcer = Enforcer::new(none, Some(&overrides)).unwrap();
    enforcer.evaluate(&check, case["target"].as_object().unwrap(), &case["creds"])
}

#[test]
fn rules_hold_where_the_original_says_so() {
    let Some(python) = std::env::var_os("PILVI_OSLO_POLICY_PYTHON") else {
        println!("skipped: PILVI_OSLO_POLICY_PYTHON names no Python with oslo.policy");
        return;
    };
    let mut oracle = Command::new(python);
    oracle.args(["-c", ORACLE]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut oracle = oracle.spawn().unwrap();
    let (mut to, mut from) = (oracle.stdin.take().unwrap(), BufReader::new(oracle.stdout.take().unwrap()));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut allowed, mut denied, mut stumbled, mut different) = (0, 0, 0, Vec::new());
    for _ in 0..CASES {
        let case = case(&mut random);
        writeln!(to, "{case}").unwrap();
        let mut theirs = String::new();
        assert!(from.read_line(&mut theirs).unwrap() > 0, "the original ended at {case}");
        let ours = ours(&case);
        match theirs.trim() {
            "1" => allowed += 1,
            "0" => denied += 1,
            // Its exception is a refused request (500); ours must not be an allowed one.
            _ => stumbled += 1,
        }
        let rule = case["rule"].as_str().unwrap();
        if rule.split_whitespace().any(|w| REFUSED.contains(&w)) {
            assert!(parse(rule).is_err(), "{rule}");
        } else if ours != (theirs.trim() == "1") {
            different.push(format!("ours {ours}, theirs {}: {case}", theirs.trim()));
        }
    }
    drop(to);
    assert!(oracle.wait().unwrap().success());
    println!("{CASES} cases: {allowed} allowed, {denied} denied, {stumbled} that the original stumbles over");
    let count = different.len();
    different.truncate(12);
    assert_eq!(count, 0, "different:\n{}", different.join("\n"));
    assert!(allowed > CASES / 10 && denied > CASES / 10, "the cases prove too little");
}
