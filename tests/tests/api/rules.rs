//! Our default rules against the original's: whoever passes there passes here, and nobody else.
use crate::{
    judge, persona,
    registry::{self, About},
    world,
};

/// (service, rule, reason): rules that differ on purpose.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("image", "get_task", "there it only follows a rule for administrators; here it also guards an image's own tasks"),
    ("compute", "os_compute_api:os-migrations:index", "there are no migrations that a project's manager could see"),
    (
        "compute",
        "os_compute_api:servers:migrations:index",
        "there are no migrations that a project's manager could see",
    ),
];

#[tokio::test]
async fn default_rules_are_the_originals() {
    let mut findings = Vec::new();
    for world in world::all().await.iter().filter(|w| w.judged_by_original) {
        let originals = registry::of(world.service());
        let (mut compared, service) = (0, world.service());
        for rule in &world.app.service.rules {
            let Some(original) = originals.get(rule.name) else { continue };
            for about in [About::Own, About::Owned] {
                let different: Vec<String> = persona::all(&world.names)
                    .iter()
                    .filter_map(|p| Some((p, original.passes(&p.name, about)?)))
                    .filter(|(p, passes)| judge::ours(world, rule.name, about, p) != *passes)
                    .map(|(p, passes)| format!("{} ({})", p.name, if passes { "passes there" } else { "passes here" }))
                    .collect();
                let known = DIFFERENT.iter().any(|(s, name, _)| *s == service && *name == rule.name);
                if !different.is_empty() && !known {
                    findings.push(format!("{service} {} {about:?}: {}", rule.name, different.join(", ")));
                }
            }
            compared += 1;
        }
        println!("{service}: {compared} rules compared of {}", world.app.service.rules.len());
        assert!(compared > 20, "{service}: only {compared} rules are the original's");
    }
    assert!(findings.is_empty(), "{} differ:\n  {}", findings.len(), findings.join("\n  "));
}
