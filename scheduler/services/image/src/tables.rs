//! The records of the image service: the only file that names a column.
//!
//! | kind | id | columns | unique |
//! | --- | --- | --- | --- |
//! | image | uuid | size, visibility, container_format, disk_format, hidden, protected; labels: tags, properties, locations | |
//! | member | image.project | image, member | |
//! | task | uuid | image | |
//! | namespace (of metadata definitions) | name | | |
//! | loaded (of the catalogue of namespaces) | one | | |
//! | object (that no image names) | store.key | | |
use crate::{
    image::model::{Image, Visibility},
    member::model::Member,
    metadef::{catalogue::Loaded, model::Namespace},
    store::object::{Object, State},
    task::model::Task,
};
use pilvi_store::{Column, KindSpec, Query, Record, Value};
use sha2::{Digest, Sha256};

pub fn kinds() -> Vec<KindSpec> {
    vec![
        KindSpec::of::<Image>(),
        KindSpec::of::<Member>(),
        KindSpec::of::<Task>(),
        KindSpec::of::<Namespace>(),
        KindSpec::of::<Loaded>(),
        KindSpec::of::<Object>(),
    ]
}

impl Record for Image {
    const KIND: &'static str = "image";
    /// 2: locations
    const VERSION: u32 = 2;
    const COLUMNS: &'static [Column] = &[
        Column::int("size"),
        Column::text("visibility"),
        Column::text("container_format"),
        Column::text("disk_format"),
        Column::int("hidden"),
        Column::int("protected"),
    ];
    /// The list as most ask for it: what is not hidden, the newest first.
    const INDEXES: &'static [&'static [&'static str]] = &[&["hidden", "created"]];
    const LABELLED: bool = true;
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
        vec![
            self.size.into(),
            self.visibility.as_str().into(),
            self.container_format.clone().into(),
            self.disk_format.clone().into(),
            self.os_hidden.into(),
            self.protected.into(),
        ]
    }
    fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.tags.iter().map(|tag| tag_label(tag)).collect();
        labels.extend(self.properties.iter().filter_map(|(name, value)| Some(property_label(name, value.as_deref()?))));
        labels.extend(self.locations.iter().map(|l| location_label(&l.store, &l.key)));
        let numbers = [
            ("min_disk", Some(self.min_disk.to_string())),
            ("min_ram", Some(self.min_ram.to_string())),
            ("virtual_size", self.virtual_size.map(|n| n.to_string())),
        ];
        labels.extend(numbers.iter().filter_map(|(name, value)| Some(property_label(name, value.as_deref()?))));
        let hashes = [
            ("checksum", &self.checksum),
            ("os_hash_algo", &self.os_hash_algo),
            ("os_hash_value", &self.os_hash_value),
        ];
        labels.extend(hashes.iter().filter_map(|(name, value)| Some(property_label(name, value.as_deref()?))));
        labels
    }
}

/// The column that adds up to what a project stores.
pub const SIZE: &str = "size";

/// Bytes of a label that is kept as it is; longer ones by their hash.
const LABEL_PLAIN: usize = 250;

fn label(text: String) -> String {
    if text.len() <= LABEL_PLAIN { text } else { format!("h:{}", hex::encode(Sha256::digest(text.as_bytes()))) }
}

/// How a tag is found.
pub fn tag_label(tag: &str) -> String {
    label(format!("t:{tag}"))
}

/// How a property is found, or a member without a column of its own.
pub fn property_label(name: &str, value: &str) -> String {
    label(format!("p:{name}={value}"))
}

/// How the images that hold an object are found.
pub fn location_label(store: &str, key: &str) -> String {
    label(format!("l:{store}/{key}"))
}

/// The column that a list is sorted by.
pub fn sorted_by(key: &str) -> Option<&'static str> {
    Some(match key {
        "id" => "id",
        "name" => "name",
        "status" => "state",
        "container_format" => "container_format",
        "disk_format" => "disk_format",
        "size" => SIZE,
        "created_at" => "created",
        "updated_at" => "updated",
        _ => return None,
    })
}

pub fn hidden(query: Query, hidden: bool) -> Query {
    query.eq("hidden", hidden)
}

pub fn protected(query: Query, protected: bool) -> Query {
    query.eq("protected", protected)
}

/// A member or property that is one of these values.
pub fn one_of(query: Query, key: &str, values: Vec<String>) -> Query {
    let text = |column: &str| query.clone().one_of(column, values.clone());
    match key {
        "id" | "name" | "container_format" | "disk_format" => text(key),
        "status" => text("state"),
        "owner" => text("project"),
        "size" => query.one_of(SIZE, values.iter().filter_map(|v| v.parse::<i64>().ok())),
        _ => query.any_of(values.iter().map(|value| Query::all().labelled(property_label(key, value)))),
    }
}

/// Images of this visibility.
pub fn seen_as(visibility: Visibility) -> Query {
    Query::all().eq("visibility", visibility.as_str())
}

/// Images of all other visibilities.
pub fn not_seen_as(visibility: Visibility) -> Query {
    Query::all().ne("visibility", visibility.as_str())
}

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

impl Loaded {
    /// There is one.
    pub const ID: &'static str = "catalogue";
}

impl Record for Loaded {
    const KIND: &'static str = "image_metadef_loaded";
    fn id(&self) -> &str {
        Loaded::ID
    }
}

impl Record for Object {
    const KIND: &'static str = "image_object";
    fn id(&self) -> &str {
        &self.id
    }
    fn state(&self) -> Option<&str> {
        Some(match self.state {
            State::Arriving => "arriving",
            State::Doomed => "doomed",
        })
    }
}

/// Objects that are to be removed.
pub fn doomed() -> Query {
    Query::all().state("doomed")
}
