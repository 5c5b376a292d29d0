//! The records of placement: the only file that names a column.
//!
//! | kind | id | columns | unique |
//! | --- | --- | --- | --- |
//! | provider | uuid | parent, root | name |
//! | consumer | uuid | user | |
//! | allocation | consumer.provider | consumer, provider | |
//! | class, trait | name | | |
use crate::{
    allocation::model::{Allocation, Consumer},
    class::model::ResourceClass,
    provider::model::Provider,
    traits::model::Trait,
};
use pilvi_store::{Claim, Column, KindSpec, Query, Record, Value};

pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<Provider>(),
        KindSpec::of::<Consumer>(),
        KindSpec::of::<Allocation>(),
        KindSpec::of::<ResourceClass>(),
        KindSpec::of::<Trait>(),
    ]
}

impl Record for Provider {
    const KIND: &'static str = "placement_provider";
    const COLUMNS: &'static [Column] = &[Column::text("parent"), Column::text("root")];
    fn id(&self) -> &str {
        &self.uuid
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.parent.clone().unwrap_or_default().into(), self.root.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim { scope: "placement:provider".to_owned(), value: self.name.clone() }]
    }
}

/// Providers right under `parent`.
pub fn children(parent: &str) -> Query {
    Query::all().eq("parent", parent)
}

/// The whole tree under (and with) `root`.
pub fn tree(root: &str) -> Query {
    Query::all().eq("root", root)
}

impl Record for Consumer {
    const KIND: &'static str = "placement_consumer";
    const COLUMNS: &'static [Column] = &[Column::text("user_id")];
    fn id(&self) -> &str {
        &self.uuid
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.user_id.clone().into()]
    }
}

/// Consumers of a project, or of one user in it.
pub fn consumers(project: &str, user: Option<&str>) -> Query {
    let query = Query::all().project(project);
    match user {
        Some(user) => query.eq("user_id", user),
        None => query,
    }
}

impl Record for Allocation {
    const KIND: &'static str = "placement_allocation";
    const COLUMNS: &'static [Column] = &[Column::text("consumer"), Column::text("provider")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.consumer.clone().into(), self.provider.clone().into()]
    }
}

/// What one consumer holds.
pub fn held_by(consumer: &str) -> Query {
    Query::all().eq("consumer", consumer)
}

/// What is held of one provider.
pub fn held_of(provider: &str) -> Query {
    Query::all().eq("provider", provider)
}

impl Record for ResourceClass {
    const KIND: &'static str = "placement_class";
    fn id(&self) -> &str {
        &self.name
    }
}

impl Record for Trait {
    const KIND: &'static str = "placement_trait";
    fn id(&self) -> &str {
        &self.name
    }
}
