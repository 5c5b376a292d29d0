//! The records of the image service: the only file that names a column.
//!
//! | kind | id | columns | unique |
//! | --- | --- | --- | --- |
//! | image | uuid | size | |
//! | member | image.project | image, member | |
//! | task | uuid | image | |
//! | namespace (of metadata definitions) | name | | |
use crate::{image::model::Image, member::model::Member, metadef::model::Namespace, task::model::Task};
use pilvi_store::{Column, KindSpec, Query, Record, Value};

pub fn kinds() -> Vec<KindSpec> {
    vec![KindSpec::of::<Image>(), KindSpec::of::<Member>(), KindSpec::of::<Task>(), KindSpec::of::<Namespace>()]
}

impl Record for Image {
    const KIND: &'static str = "image";
    /// 2: locations
    const VERSION: u32 = 2;
    const COLUMNS: &'static [Column] = &[Column::int("size")];
    fn upgrade(version: u32, mut doc: serde_json::Value) -> Result<serde_json::Value, String> {
        if version < 2 && matches!(doc["status"].as_str(), Some("active" | "deactivated")) {
            doc["locations"] = serde_json::json!([{"store": crate::store::config::FILE, "key": doc["id"]}]);
        }
        Ok(doc)
    }
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        self.owner.as_deref()
    }
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    fn state(&self) -> Option<&str> {
        Some(self.status.as_str())
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.size.unwrap_or(0).into()]
    }
}

/// The column that adds up to what a project stores.
pub const SIZE: &str = "size";

impl Record for Member {
    const KIND: &'static str = "image_member";
    const COLUMNS: &'static [Column] = &[Column::text("image"), Column::text("member")];
    fn id(&self) -> &str {
        &self.id
    }
    fn state(&self) -> Option<&str> {
        Some(self.status.as_str())
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.image_id.clone().into(), self.member_id.clone().into()]
    }
}

/// Members of an image.
pub fn members_of(image: &str) -> Query {
    Query::all().eq("image", image)
}

/// Images that a project is a member of.
pub fn shared_with(project: &str) -> Query {
    Query::all().eq("member", project)
}

impl Record for Task {
    const KIND: &'static str = "image_task";
    const COLUMNS: &'static [Column] = &[Column::text("image")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.owner)
    }
    fn state(&self) -> Option<&str> {
        Some(self.status.as_str())
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.image_id.clone().into()]
    }
}

/// Tasks about an image.
pub fn tasks_of(image: &str) -> Query {
    Query::all().eq("image", image)
}

impl Record for Namespace {
    const KIND: &'static str = "image_metadef";
    fn id(&self) -> &str {
        &self.name
    }
    fn project(&self) -> Option<&str> {
        Some(&self.owner)
    }
}
