//! One route, one persona, one verdict.
use crate::{
    body,
    persona::{self, Persona},
    registry::{About, Rule},
    world::World,
};
use pilvi_kit::{
    Route, Target,
    probe::{Asking, PROBED},
    route::Asked,
    testing::Answer,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A route, or one verb of a route that takes many.
#[derive(Debug, Clone)]
pub struct Case<'w> {
    pub route: &'w Route<()>,
    pub rule: &'static str,
    pub action: Option<&'static str>,
    pub about: About,
    /// Does the world have every record that the path names?
    pub seeded: bool,
    pub url: String,
}

impl Case<'_> {
    pub fn name(&self) -> String {
        match self.action {
            Some(action) => format!("{:?} ({action})", self.route),
            None => format!("{:?}", self.route),
        }
    }
    /// Lists may choose what they show instead of refusing.
    fn may_choose(&self) -> bool {
        self.route.method == http::Method::GET && self.route.asked == Asked::ByHandler
    }
}

/// Everything that asks a rule.
pub fn cases(world: &World) -> Vec<Case<'_>> {
    let mut out = Vec::new();
    for route in world.app.service.routes() {
        if !matches!(route.asked, Asked::Before | Asked::ByHandler) || world.is_alias(route.path) {
            continue;
        }
        let (mut url, seeded) = world.url(route.path);
        if let Some(query) = world.query(&route.method, route.path) {
            url = format!("{url}?{query}");
        }
        let about = about(world, route);
        let one = |rule, action| Case { route, rule, action, about, seeded, url: url.clone() };
        if route.actions.is_empty() {
            out.push(one(route.rule, None));
        }
        out.extend(route.actions.iter().map(|(action, rule)| one(rule, Some(*action))));
    }
    out
}

/// Is it the caller's own that the rule is about, or the owner's?
fn about(world: &World, route: &Route<()>) -> About {
    if let Some(said) = world.about(&route.method, route.path) {
        return said;
    }
    let names_owner =
        ["{project_id}", "{tenant_id}", "{user_id}", "{domain_id}"].iter().any(|p| route.path.contains(p));
    match route.asked {
        Asked::Before if !names_owner => About::Own,
        Asked::Before => About::Owned,
        _ if route.path.contains('{') => About::Owned,
        // A creation's body names the owner's places.
        _ if route.method == http::Method::POST => About::Owned,
        _ => About::Own,
    }
}

/// Must `persona` get past the rule?
pub fn expected(world: &World, rules: &BTreeMap<String, Rule>, case: &Case<'_>, persona: &Persona) -> bool {
    if let Some(said) = world.exception(&case.route.method, case.route.path, &persona.name) {
        return said;
    }
    let original = if world.judged_by_original { rules.get(case.rule) } else { None };
    if let Some(passes) = original.and_then(|r| r.passes(&persona.name, case.about)) {
        return passes;
    }
    // Ours alone: the rule language itself is held against oslo.policy by the kit's own test.
    ours(world, case.rule, case.about, persona)
}

/// What our own rule says of the same.
pub fn ours(world: &World, rule: &str, about: About, persona: &Persona) -> bool {
    world.app.service.enforcer().allows(rule, &target(world, about, persona), &persona.caller)
}

fn target(world: &World, about: About, persona: &Persona) -> Target {
    if about == About::Owned {
        let text = Value::Object(persona::owned()).to_string();
        let named =
            world.names.iter().fold(text, |t, (name, id)| t.replace(&format!("\"{name}\""), &format!("\"{id}\"")));
        return serde_json::from_str(&named).unwrap();
    }
    let mut target = Target::new();
    target.insert("user_id".into(), persona.caller.user_id.clone().into());
    if let Some(project) = persona.caller.project_id() {
        for name in ["project_id", "tenant_id", "owner"] {
            target.insert(name.into(), project.into());
        }
        target.insert("network_project_id".into(), project.into());
        target.insert("group_project_id".into(), project.into());
    }
    if let Some(domain) = persona.caller.domain_id() {
        target.insert("domain_id".into(), domain.into());
        target.insert("target".into(), json!({"domain_id": domain, "domain": {"id": domain}}));
    }
    target
}

fn request_body(world: &World, case: &Case<'_>) -> Option<Value> {
    if let Some(body) = world.body(&case.route.method, case.route.path, case.action) {
        return Some(body);
    }
    if let Some(action) = case.action {
        return Some(json!({action: null}));
    }
    let document = case.route.schema?.document();
    Some(body::of(document, &world.fill))
}

/// What `persona` (`None`: nobody) was answered, and what was asked meanwhile.
pub async fn call(world: &World, case: &Case<'_>, who: Option<&Persona>, probe: bool) -> (Answer, Vec<Asking>) {
    let headers = world.headers(case.route, case.action);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let (method, caller) = (case.route.method.as_str(), who.map(|p| &p.caller));
    let body = request_body(world, case);
    if probe {
        return world.app.probe((method, &case.url), caller, body, &headers, None).await;
    }
    (world.app.call_with(method, &case.url, caller, body, &headers).await, Vec::new())
}

/// The finding, when `persona` should pass and does not, or the other way round.
pub async fn verdict(
    world: &World,
    rules: &BTreeMap<String, Rule>,
    case: &Case<'_>,
    persona: &Persona,
    passes: bool,
) -> Option<String> {
    if !passes {
        let before = world.store.head().await.unwrap();
        let (answer, _) = call(world, case, Some(persona), false).await;
        if world.store.head().await.unwrap() != before && !world.makes(&case.route.method, case.route.path) {
            return Some(format!("was refused by the rule, answered {}, and yet changed something", answer.status));
        }
        return match answer.status {
            401 | 403 | 404 => None,
            // Neutron's word for whoever names another project and may not.
            400 if answer.body.to_string().contains("other than the authenticated project") => None,
            200..=204 | 300 if case.may_choose() => leak(world, rules, case, persona, &answer),
            // A record that is not there hides the refusal behind another.
            400 | 409 if !case.seeded => None,
            status => Some(format!("must be refused, got {status} {}", short(&answer))),
        };
    }
    let (answer, asked) = call(world, case, Some(persona), true).await;
    let allowed = asked.iter().any(|a| a.rule == case.rule && a.allowed && a.enforced);
    if allowed || answer.body.to_string().contains(PROBED) {
        return None;
    }
    if (200..300).contains(&answer.status) && case.may_choose() && !asked.is_empty() {
        return leak(world, rules, case, persona, &answer);
    }
    if !case.seeded && matches!(answer.status, 400 | 404 | 409) {
        return None;
    }
    Some(format!("must get past the rule, got {} {} after asking {asked:?}", answer.status, short(&answer)))
}

/// A list must not show the owner's record to those who may not see it: whom the rule of the record's own page refuses.
fn leak(
    world: &World,
    rules: &BTreeMap<String, Rule>,
    case: &Case<'_>,
    persona: &Persona,
    answer: &Answer,
) -> Option<String> {
    let below = format!("{}/{{", case.route.path);
    let page = world.app.service.routes().iter().find(|r| {
        r.method == http::Method::GET && r.path.starts_with(&below) && !r.path[below.len()..].contains('/')
    })?;
    let (url, seeded) = world.url(page.path);
    let shown = Case { route: page, rule: page.rule, action: None, about: About::Owned, seeded, url };
    if expected(world, rules, &shown, persona) {
        return None;
    }
    let text = answer.body.to_string();
    let found = world.secrets(case.route.path).into_iter().find(|id| text.contains(&format!("\"{id}\"")));
    found.map(|id| format!("{} may not see {id}, and the list shows it", persona.name))
}

fn short(answer: &Answer) -> String {
    answer.body.to_string().chars().take(220).collect()
}
