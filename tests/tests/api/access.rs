//! The judgement over all services.
use crate::{
    judge::{self, Case},
    persona, registry,
    world::{self, World},
};
use pilvi_kit::{Route, route::Asked};
use std::collections::BTreeMap;

/// Findings of one service, and how many verdicts there were.
async fn judged(world: &World) -> (Vec<String>, usize) {
    let rules = registry::of(world.service());
    let personas = persona::all(&world.names);
    let (mut findings, mut verdicts) = (BTreeMap::<String, Vec<String>>::new(), 0);
    for case in judge::cases(world) {
        let (answer, _) = judge::call(world, &case, None, false).await;
        if answer.status != 401 {
            findings.entry(case.name()).or_default().push(format!("nobody: got {} for 401", answer.status));
        }
        for persona in &personas {
            verdicts += 1;
            let passes = judge::expected(world, &rules, &case, persona);
            if let Some(finding) = judge::verdict(world, &rules, &case, persona, passes).await {
                findings.entry(case.name()).or_default().push(format!("{}: {finding}", persona.name));
            }
        }
    }
    (findings.into_iter().map(|(case, found)| line(world, &case, &found)).collect(), verdicts)
}

fn line(world: &World, case: &str, found: &[String]) -> String {
    format!("{} {case}\n      {}", world.service(), found.join("\n      "))
}

/// One test a service, so that they run beside each other.
async fn judge_all(world: World, least: usize) {
    let (findings, verdicts) = judged(&world).await;
    println!("{}: {} cases, {verdicts} verdicts", world.service(), judge::cases(&world).len());
    assert!(verdicts >= least, "only {verdicts} verdicts: the table was not seen");
    assert!(findings.is_empty(), "{} routes differ:\n  {}", findings.len(), findings.join("\n  "));
}

#[tokio::test]
async fn identity_lets_past_whom_its_rules_let_past_and_nobody_else() {
    judge_all(world::identity::world().await, 4_000).await;
}
#[tokio::test]
async fn image_lets_past_whom_its_rules_let_past_and_nobody_else() {
    judge_all(world::image::world().await, 1_000).await;
}
#[tokio::test]
async fn placement_lets_past_whom_its_rules_let_past_and_nobody_else() {
    judge_all(world::placement::world().await, 1_000).await;
}
#[tokio::test]
async fn network_lets_past_whom_its_rules_let_past_and_nobody_else() {
    judge_all(world::network::world().await, 2_000).await;
}
#[tokio::test]
async fn compute_lets_past_whom_its_rules_let_past_and_nobody_else() {
    judge_all(world::compute::world().await, 2_000).await;
}
#[tokio::test]
async fn volume_lets_past_whom_its_rules_let_past_and_nobody_else() {
    judge_all(world::volume::world().await, 2_000).await;
}

/// The judge itself, judged: where a rule lets everybody past, or nobody, it says so, and of that route alone.
#[tokio::test]
async fn a_loosened_and_a_tightened_rule_are_found() {
    for (rule, persona) in [("delete_image: '@'", "no-role"), ("get_image: '!'", "reader")] {
        let world = world::image::world_with(Some(rule.to_owned())).await;
        let (findings, _) = judged(&world).await;
        assert!(!findings.is_empty(), "nobody noticed {rule}");
        let all = findings.join("\n");
        assert!(all.contains("/v2/images/{image_id}") && all.contains(persona), "{rule}: {all}");
    }
}

#[tokio::test]
async fn few_routes_name_records_that_the_worlds_do_not_have() {
    for world in world::all().await {
        let unseeded: Vec<String> = judge::cases(&world).iter().filter(|c| !c.seeded).map(Case::name).collect();
        assert!(
            unseeded.len() <= world.facts.unseeded,
            "{}: {} routes cannot be reached with a record of the world; the ratchet stands at {}: {unseeded:#?}",
            world.service(),
            unseeded.len(),
            world.facts.unseeded
        );
    }
}

/// Routes without a rule: each with its reason in the service's table. A new one is added here on purpose, or not at all.
const OPEN: &str = include_str!("open.txt");

fn open_line(service: &str, route: &Route<()>) -> String {
    let how = if route.asked == Asked::Public { "public" } else { "authenticated" };
    format!("{how} {service} {route:?}")
}

#[tokio::test]
async fn routes_without_a_rule_are_known() {
    let mut found = Vec::new();
    for world in world::all().await {
        for route in world.app.service.routes() {
            if matches!(route.asked, Asked::Public | Asked::Authenticated) && !world.is_alias(route.path) {
                found.push(open_line(world.service(), route));
            }
        }
    }
    found.sort();
    let mut known: Vec<&str> = OPEN.lines().filter(|l| !l.starts_with('#')).collect();
    known.sort_unstable();
    let new: Vec<&String> = found.iter().filter(|f| !known.contains(&f.as_str())).collect();
    let gone: Vec<&&str> = known.iter().filter(|k| !found.iter().any(|f| f == **k)).collect();
    assert!(new.is_empty() && gone.is_empty(), "not in open.txt: {new:#?}\nnot in the tables: {gone:#?}");
}
