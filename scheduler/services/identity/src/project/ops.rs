//! The verbs of projects and domains.
use crate::{
    Identity,
    attributes::Attributes,
    cascade,
    directory::Area,
    fault, revocation,
    tables::{Project, RevocationEvent},
};
use pilvi_kit::{Fault, id};
use pilvi_store::Tx;

/// Members that are columns; all others are extra.
const KNOWN: &[&str] =
    &["name", "domain_id", "parent_id", "description", "enabled", "is_domain", "tags", "options", "explicit_domain_id"];

/// Projects of one domain that are looked through, at most.
const TREE_MAX: usize = 100_000;

fn tags(wanted: &Attributes) -> Option<Vec<String>> {
    wanted.list("tags").map(|tags| super::tags::tidy(tags.iter().filter_map(|t| t.as_str())))
}

fn fresh(wanted: &Attributes, id: String) -> Result<Project, Fault> {
    let mut project = Project {
        id,
        name: wanted.need("name", "project")?.trim().to_owned(),
        domain_id: None,
        parent_id: None,
        description: wanted.text("description").unwrap_or_default(),
        enabled: wanted.flag("enabled").unwrap_or(true),
        is_domain: false,
        tags: tags(wanted).unwrap_or_default(),
        options: Default::default(),
        extra: wanted.extra(KNOWN),
    };
    wanted.merge_options(&mut project.options);
    Ok(project)
}

/// A domain with the members of `wanted`.
pub(crate) fn fresh_domain(wanted: &Attributes, id: String) -> Result<Project, Fault> {
    Ok(Project { is_domain: true, ..fresh(wanted, id)? })
}

impl Identity {
    /// Where a new project goes: (its domain, its parent), of what the client named of both.
    pub(crate) async fn place_for(
        &self,
        wanted: &Attributes,
        default_domain: String,
    ) -> Result<(String, String), Fault> {
        let Some(parent_id) = wanted.text("parent_id") else {
            let domain = wanted.text("domain_id").unwrap_or(default_domain);
            return Ok((domain.clone(), domain));
        };
        // As Keystone: an unknown parent is the client's mistake, not a missing resource.
        let parent = self.directory.project(&parent_id).await?.ok_or_else(|| fault::missing("project", &parent_id))?;
        let domain = parent.domain_id.clone().unwrap_or_else(|| parent.id.clone());
        match wanted.text("domain_id") {
            Some(other) if other != domain => Err(Fault::bad_request(format!(
                "Cannot create project, since it specifies its domain_id {other}, but specifies a parent in a different domain ({domain})."
            ))),
            _ => Ok((domain, parent_id)),
        }
    }

    pub(crate) async fn create_project(
        &self,
        wanted: &Attributes,
        (domain_id, parent_id): (String, String),
    ) -> Result<Project, Fault> {
        let project = Project { domain_id: Some(domain_id), parent_id: Some(parent_id), ..fresh(wanted, id::hex())? };
        self.insert_project(project).await
    }

    /// Stores a new project or domain.
    pub(crate) async fn insert_project(&self, project: Project) -> Result<Project, Fault> {
        let depth_max = self.config.limit_model.depth_max(self.config.max_project_depth);
        self.write(Area::Quiet, move |tx| {
            let project = project.clone();
            Box::pin(async move {
                check_parents_in(tx, &project, depth_max).await?;
                let what = if project.is_domain { "domain" } else { "project" };
                tx.insert(&project).await.map_err(|e| duplicate(e, what, &project))?;
                Ok(project)
            })
        })
        .await
    }

    /// Changes a project or a domain.
    pub(crate) async fn update_project(&self, id: &str, wanted: &Attributes) -> Result<Project, Fault> {
        let found = self.directory.project(id).await?.ok_or_else(|| fault::missing("project", id))?;
        let mut events = Vec::new();
        if wanted.flag("enabled") == Some(false) && found.enabled {
            events.push(ends(&found));
        }
        let (id, wanted) = (id.to_owned(), wanted.clone());
        self.write_and_revoke(events, move |tx| {
            let (id, wanted) = (id.clone(), wanted.clone());
            Box::pin(async move {
                let mut stored = tx.get::<Project>(&id).await?.ok_or_else(|| fault::missing("project", &id))?;
                let was_enabled = stored.enabled;
                change(&mut stored.record, &wanted)?;
                if was_enabled && !stored.enabled && !stored.is_domain {
                    refuse_enabled_below_in(tx, &id).await?;
                }
                if !was_enabled && stored.enabled && !stored.is_domain {
                    check_parents_in(tx, &stored.record, usize::MAX).await?;
                }
                let what = if stored.is_domain { "domain" } else { "project" };
                let record = stored.record.clone();
                Ok(tx.update(&stored).await.map_err(|e| duplicate(e, what, &record))?.record)
            })
        })
        .await
    }

    /// Deletes a project; with `cascade`, the disabled tree below it too.
    pub(crate) async fn delete_project(&self, id: &str, cascade: bool) -> Result<(), Fault> {
        let found = self.directory.project(id).await?.ok_or_else(|| fault::missing("project", id))?;
        if found.is_domain {
            return self.delete_domain(id).await;
        }
        let id = id.to_owned();
        self.write_and_revoke(vec![ends(&found)], move |tx| {
            let id = id.clone();
            Box::pin(async move {
                let project = tx.get::<Project>(&id).await?.ok_or_else(|| fault::missing("project", &id))?;
                if project.immutable() {
                    return Err(fault::immutable("project", &id));
                }
                let below = below_in(tx, &id).await?;
                if !cascade && !below.is_empty() {
                    return Err(Fault::forbidden(format!("Cannot delete the project {id} since it is not a leaf in the hierarchy. Use the cascade option if you want to delete a whole subtree.")));
                }
                if cascade && (project.enabled || below.iter().any(|p| p.enabled)) {
                    return Err(Fault::forbidden(format!("cannot delete a project that is not disabled or whose subtree contains enabled projects: {id}")));
                }
                for project in below.iter().rev() {
                    cascade::project_in(tx, &project.id).await?;
                }
                cascade::project_in(tx, &id).await
            })
        })
        .await
    }

    pub(crate) async fn delete_domain(&self, id: &str) -> Result<(), Fault> {
        let found = self.directory.domain(id).await?.ok_or_else(|| fault::missing("domain", id))?;
        let id = id.to_owned();
        let done = self
            .write_and_revoke(vec![ends(&found)], move |tx| {
                let id = id.clone();
                Box::pin(async move {
                    let domain = tx.get::<Project>(&id).await?.ok_or_else(|| fault::missing("domain", &id))?;
                    if domain.enabled {
                        return Err(Fault::forbidden(
                            "Cannot delete a domain that is enabled, please disable it first.",
                        ));
                    }
                    if domain.immutable() {
                        return Err(fault::immutable("domain", &id));
                    }
                    cascade::domain_in(tx, &id).await
                })
            })
            .await;
        // Roles of the domain went too.
        self.directory.changed(Area::Roles);
        done
    }
}

/// The event that ends all tokens for a project or domain.
fn ends(project: &Project) -> RevocationEvent {
    let id = Some(project.id.clone());
    if project.is_domain {
        RevocationEvent { domain_id: id, ..revocation() }
    } else {
        RevocationEvent { project_id: id, ..revocation() }
    }
}

fn duplicate(error: pilvi_store::Error, what: &str, project: &Project) -> Fault {
    fault::named_twice(error, what, &project.name, project.domain_id.as_deref())
}

fn change(project: &mut Project, wanted: &Attributes) -> Result<(), Fault> {
    let what = if project.is_domain { "domain" } else { "project" };
    let unlocks = wanted.object("options").is_some_and(|o| o.get("immutable").is_some_and(|v| v != true));
    if project.immutable() && !unlocks {
        return Err(fault::immutable(what, &project.id));
    }
    if !project.is_domain {
        wanted.unchanged("domain_id", project.domain_id.as_deref())?;
        if wanted.unchanged("parent_id", project.parent_id.as_deref()).is_err() {
            return Err(Fault::forbidden("Update of `parent_id` is not allowed."));
        }
    }
    if wanted.flag("is_domain").is_some_and(|wish| wish != project.is_domain) {
        return Err(Fault::bad_request("Update of `is_domain` is not allowed."));
    }
    if let Some(name) = wanted.text("name") {
        name.trim().clone_into(&mut project.name);
    }
    if let Some(description) = wanted.text("description") {
        project.description = description;
    }
    if let Some(enabled) = wanted.flag("enabled") {
        project.enabled = enabled;
    }
    if let Some(tags) = tags(wanted) {
        project.tags = tags;
    }
    wanted.merge_options(&mut project.options);
    wanted.merge_extra(&mut project.extra, KNOWN);
    Ok(())
}

/// The domain and every project above must be there and enabled, and not too many.
async fn check_parents_in(tx: &mut Tx, project: &Project, depth_max: usize) -> Result<(), Fault> {
    if project.is_domain {
        return Ok(());
    }
    let mut depth = 1;
    let mut next = project.parent_id.clone();
    while let Some(id) = next {
        let above = tx.get::<Project>(&id).await?.ok_or_else(|| {
            fault::missing(if project.domain_id.as_ref() == Some(&id) { "domain" } else { "project" }, &id)
        })?;
        if !above.enabled && !above.is_domain {
            return Err(Fault::forbidden(format!(
                "Cannot create or enable a project below the disabled project {id}."
            )));
        }
        depth += 1;
        if depth > depth_max {
            return Err(Fault::forbidden(format!(
                "Max hierarchy depth reached for the branch of project {}.",
                project.id
            )));
        }
        next = above.record.parent_id;
    }
    Ok(())
}

/// All projects below, parents before children.
async fn below_in(tx: &mut Tx, id: &str) -> Result<Vec<Project>, Fault> {
    let mut out: Vec<Project> = Vec::new();
    let mut todo = vec![id.to_owned()];
    while let Some(parent) = todo.pop() {
        for child in tx.list::<Project>(Project::below(&parent)).await? {
            todo.push(child.record.id.clone());
            out.push(child.record);
        }
        if out.len() > TREE_MAX {
            return Err(Fault::too_large("The subtree is too large."));
        }
    }
    Ok(out)
}

async fn refuse_enabled_below_in(tx: &mut Tx, id: &str) -> Result<(), Fault> {
    if below_in(tx, id).await?.iter().any(|p| p.enabled) {
        return Err(Fault::forbidden(format!(
            "Cannot disable project {id} since its subtree contains enabled projects."
        )));
    }
    Ok(())
}
