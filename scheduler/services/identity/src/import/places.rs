//! Domains and projects, parents before children.
use super::{Import, ImportError, ROOT, dump::Row, extra, options, row_error};
use crate::{bootstrap::DEFAULT_DOMAIN, tables::Project};
use std::collections::{HashMap, HashSet};

impl Import<'_> {
    pub(super) async fn places(&mut self) -> Result<(), ImportError> {
        let options = options(self.dump.rows("project_option"), "project_id", &[("IMMU", "immutable")]);
        let mut tags: HashMap<String, Vec<String>> = HashMap::new();
        for row in self.dump.rows("project_tag") {
            if let (Some(project), Some(name)) = (row.text("project_id"), row.text("name")) {
                tags.entry(project.to_owned()).or_default().push(name.to_owned());
            }
        }
        let mut all = Vec::new();
        for row in self.dump.rows("project").iter().filter(|r| r.text("id") != Some(ROOT)) {
            let mut project = project(row)?;
            project.options = options.get(&project.id).cloned().unwrap_or_default();
            project.tags = tags.remove(&project.id).unwrap_or_default();
            all.push(project);
        }
        let (domains, projects): (Vec<Project>, Vec<Project>) = all.into_iter().partition(|p| p.is_domain);
        self.put("domains", domains).await?;
        let projects = self.merged_projects(projects).await?;
        self.put("projects", in_order(projects)).await
    }

    /// Without the administrator's project, where this cloud has its own: that stands for it.
    async fn merged_projects(&mut self, projects: Vec<Project>) -> Result<Vec<Project>, ImportError> {
        let mut kept = Vec::with_capacity(projects.len());
        for mut project in projects {
            let ours = if project.name == "admin" && project.domain_id.as_deref() == Some(DEFAULT_DOMAIN) {
                self.identity.directory.project_named(DEFAULT_DOMAIN, "admin").await?.filter(|p| p.id != project.id)
            } else {
                None
            };
            match ours {
                Some(ours) => {
                    self.report
                        .leave("projects", format!("admin ({}): the one of this cloud stands for it", project.id));
                    self.aliases.insert(project.id, ours.id.clone());
                }
                None => {
                    project.parent_id = project.parent_id.map(|p| self.here(&p));
                    kept.push(project);
                }
            }
        }
        Ok(kept)
    }
}

fn project(row: &Row) -> Result<Project, ImportError> {
    let is_domain = row.flag("is_domain").unwrap_or(false);
    let above = |name: &str| row.text(name).filter(|id| !is_domain && *id != ROOT).map(str::to_owned);
    let (domain_id, parent_id) = (above("domain_id"), above("parent_id"));
    Ok(Project {
        id: row.need("id").map_err(row_error)?,
        name: row.need("name").map_err(row_error)?,
        // The oldest rows name no parent: it is the domain.
        parent_id: parent_id.or_else(|| domain_id.clone()),
        domain_id,
        description: row.text("description").unwrap_or_default().to_owned(),
        enabled: row.flag("enabled").unwrap_or(true),
        is_domain,
        tags: Vec::new(),
        options: Default::default(),
        extra: extra(row),
    })
}

/// Parents first; a circle, which no Keystone makes, comes last.
fn in_order(mut todo: Vec<Project>) -> Vec<Project> {
    let mut done = Vec::with_capacity(todo.len());
    loop {
        let waiting: HashSet<String> = todo.iter().map(|p| p.id.clone()).collect();
        let (next, later): (Vec<_>, Vec<_>) =
            todo.into_iter().partition(|p| p.parent_id.as_ref().is_none_or(|above| !waiting.contains(above)));
        if next.is_empty() {
            done.extend(later);
            return done;
        }
        done.extend(next);
        todo = later;
    }
}
