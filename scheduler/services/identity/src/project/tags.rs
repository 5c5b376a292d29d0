//! Tags of a project: short texts to find it by.
use super::api::authorized;
use crate::{Identity, fault, tables::Project};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const TAGS_MAX: usize = 80;

/// A list of tags.
pub(crate) fn tags_schema() -> Value {
    json!({"type": "array", "maxItems": TAGS_MAX, "uniqueItems": true, "items": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^,/]*$"}})
}

static SET: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(
        || json!({"type": "object", "properties": {"tags": tags_schema()}, "required": ["tags"], "additionalProperties": false}),
    )
});

pub(super) fn routes() -> Vec<Route<Identity>> {
    vec![
        Route::get("/v3/projects/{project_id}/tags", list)
            .rule_by_handler("identity:list_project_tags")
            .summary("List a project's tags"),
        Route::put("/v3/projects/{project_id}/tags", set)
            .rule_by_handler("identity:update_project_tags")
            .schema(&SET)
            .summary("Replace a project's tags"),
        Route::delete("/v3/projects/{project_id}/tags", clear)
            .rule_by_handler("identity:delete_project_tags")
            .summary("Remove all tags of a project"),
        Route::get("/v3/projects/{project_id}/tags/{value}", check)
            .rule_by_handler("identity:get_project_tag")
            .summary("Has a project this tag?"),
        Route::put("/v3/projects/{project_id}/tags/{value}", add)
            .rule_by_handler("identity:create_project_tag")
            .summary("Add a tag to a project"),
        Route::delete("/v3/projects/{project_id}/tags/{value}", remove)
            .rule_by_handler("identity:delete_project_tag")
            .summary("Remove a tag of a project"),
    ]
}

/// Each once, in the order given.
pub(super) fn tidy<'a>(tags: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for tag in tags.take(TAGS_MAX) {
        if !out.iter().any(|t| t == tag) {
            out.push(tag.to_owned());
        }
    }
    out
}

impl Identity {
    async fn change_tags(
        &self,
        id: &str,
        change: impl Fn(&mut Vec<String>) -> Result<(), Fault> + Send + Sync + Clone + 'static,
    ) -> Result<Project, Fault> {
        let id = id.to_owned();
        self.write(crate::directory::Area::People, move |tx| {
            let (id, change) = (id.clone(), change.clone());
            Box::pin(async move {
                let mut project = tx.get::<Project>(&id).await?.ok_or_else(|| fault::missing("project", &id))?;
                change(&mut project.record.tags)?;
                if project.tags.len() > TAGS_MAX {
                    return Err(Fault::bad_request(format!("A project has at most {TAGS_MAX} tags.")));
                }
                Ok(tx.update(&project).await?.record)
            })
        })
        .await
    }
}

async fn list(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    Ok(Response::ok(
        json!({"tags": project.tags, "links": {"self": call.url(&call.path), "next": null, "previous": null}}),
    ))
}

async fn set(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    let tags = tidy(call.member("tags")?.as_array().into_iter().flatten().filter_map(Value::as_str));
    let changed = svc
        .change_tags(&project.id, move |now| {
            now.clone_from(&tags);
            Ok(())
        })
        .await?;
    Ok(Response::ok(
        json!({"tags": changed.tags, "links": {"self": call.url(&call.path), "next": null, "previous": null}}),
    ))
}

async fn clear(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    svc.change_tags(&project.id, |now| {
        now.clear();
        Ok(())
    })
    .await?;
    Ok(Response::no_content())
}

async fn check(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    let tag = call.param("value");
    if project.tags.iter().any(|t| t == tag) {
        Ok(Response::no_content())
    } else {
        Err(fault::missing("project tag", tag))
    }
}

async fn add(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    let tag = call.param("value").to_owned();
    if tag.is_empty() || tag.chars().count() > 255 || tag.contains([',', '/', '\0']) {
        return Err(Fault::bad_request("A tag has 1 to 255 characters and no comma or slash."));
    }
    let path = call.path.clone();
    svc.change_tags(&project.id, move |now| {
        if !now.contains(&tag) {
            now.push(tag.clone());
        }
        Ok(())
    })
    .await?;
    Ok(Response::empty(201).header("location", call.url(&path)))
}

async fn remove(svc: Arc<Identity>, call: Call) -> Reply {
    let project = authorized(&svc, &call).await?;
    let tag = call.param("value").to_owned();
    svc.change_tags(&project.id, move |now| {
        let at = now.iter().position(|t| *t == tag).ok_or_else(|| fault::missing("project tag", &tag))?;
        now.remove(at);
        Ok(())
    })
    .await?;
    Ok(Response::no_content())
}
