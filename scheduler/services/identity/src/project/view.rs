//! A project as JSON.
use crate::{attributes::with_extra, listing::self_link, tables::Project};
use pilvi_kit::Call;
use serde_json::{Value, json};

pub(crate) fn view(call: &Call, project: &Project) -> Value {
    let base = json!({
        "id": project.id, "name": project.name, "domain_id": project.domain_id, "description": project.description,
        "enabled": project.enabled, "parent_id": project.parent_id, "is_domain": project.is_domain,
        "tags": project.tags, "options": project.options, "links": self_link(call, &format!("/v3/projects/{}", project.id)),
    });
    with_extra(base, &project.extra)
}
