//! A user as JSON: never a hash.
use crate::{
    attributes::with_extra,
    listing::self_link,
    tables::{Federated, User},
};
use pilvi_kit::{Call, clock};
use serde_json::{Value, json};

/// `[{"idp_id", "protocols": [{"protocol_id", "unique_id"}]}]`
fn federated(names: &[Federated]) -> Value {
    let mut providers: Vec<(&str, Vec<Value>)> = Vec::new();
    for name in names {
        let protocol = json!({"protocol_id": name.protocol_id, "unique_id": name.unique_id});
        match providers.iter_mut().find(|(idp, _)| *idp == name.idp_id) {
            Some((_, protocols)) => protocols.push(protocol),
            None => providers.push((&name.idp_id, vec![protocol])),
        }
    }
    providers.into_iter().map(|(idp, protocols)| json!({"idp_id": idp, "protocols": protocols})).collect()
}

pub(crate) fn view(call: &Call, user: &User) -> Value {
    let mut out = json!({
        "id": user.id, "name": user.name, "domain_id": user.domain_id, "enabled": user.enabled,
        "password_expires_at": user.password_expires_us().map(clock::micros),
        "options": user.options, "links": self_link(call, &format!("/v3/users/{}", user.id)),
    });
    if !user.federated.is_empty() {
        out["federated"] = federated(&user.federated);
    }
    if let Some(project) = &user.default_project_id {
        out["default_project_id"] = project.clone().into();
    }
    with_extra(out, &user.extra)
}
