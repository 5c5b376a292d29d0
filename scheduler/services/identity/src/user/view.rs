//! A user as JSON: never a hash.
use crate::{attributes::with_extra, listing::self_link, tables::User};
use pilvi_kit::{Call, clock};
use serde_json::{Value, json};

pub(crate) fn view(call: &Call, user: &User) -> Value {
    let mut out = json!({
        "id": user.id, "name": user.name, "domain_id": user.domain_id, "enabled": user.enabled,
        "password_expires_at": user.password_expires_us().map(clock::micros),
        "options": user.options, "links": self_link(call, &format!("/v3/users/{}", user.id)),
    });
    if let Some(project) = &user.default_project_id {
        out["default_project_id"] = project.clone().into();
    }
    with_extra(out, &user.extra)
}
