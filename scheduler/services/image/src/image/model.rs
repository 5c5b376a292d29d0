//! An image, its states and what may change; pure.
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Formats that may be named. Which of them may hold bytes, `pilvi_disk::format` decides.
pub const DISK_FORMATS: &[&str] =
    &["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt"];
pub const CONTAINER_FORMATS: &[&str] = &["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Described; no bytes yet.
    Queued,
    /// Bytes are arriving.
    Saving,
    /// Bytes are being staged, or are staged and wait for the import.
    Uploading,
    /// Staged bytes are being checked.
    Importing,
    Active,
    /// Has bytes that nobody but administrators may read.
    Deactivated,
}

/// What happens to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    UploadBegins,
    StageBegins,
    ImportBegins,
    /// All bytes are there and good.
    Complete,
    /// The bytes were cut off or refused.
    Fail,
    Deactivate,
    Reactivate,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Saving => "saving",
            Status::Uploading => "uploading",
            Status::Importing => "importing",
            Status::Active => "active",
            Status::Deactivated => "deactivated",
        }
    }

    /// Is somebody busy with its data, or has he left it half done?
    pub fn is_worked_on(self) -> bool {
        matches!(self, Status::Saving | Status::Uploading | Status::Importing)
    }

    /// The state after an event; `None` where the event is not allowed.
    pub fn next(self, event: Event) -> Option<Status> {
        use Event as E;
        use Status as S;
        match (self, event) {
            (S::Queued, E::UploadBegins) => Some(S::Saving),
            (S::Queued, E::StageBegins) => Some(S::Uploading),
            (S::Uploading | S::Queued, E::ImportBegins) => Some(S::Importing),
            (S::Saving | S::Importing, E::Complete) => Some(S::Active),
            (S::Saving | S::Uploading | S::Importing, E::Fail) => Some(S::Queued),
            (S::Active | S::Deactivated, E::Deactivate) => Some(S::Deactivated),
            (S::Active | S::Deactivated, E::Reactivate) => Some(S::Active),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Private,
    /// With members.
    Shared,
    /// Anyone may use it, nobody has it listed.
    Community,
    Public,
}

impl Visibility {
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::Shared => "shared",
            Visibility::Community => "community",
            Visibility::Public => "public",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Visibility::Private, Visibility::Shared, Visibility::Community, Visibility::Public]
            .into_iter()
            .find(|v| v.as_str() == text)
    }
}

/// An object in a store that holds an image's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// Id of the store.
    pub store: String,
    /// What the store calls it: the image's id, or a URL in a store that only reads.
    pub key: String,
    /// What whoever added it said of it.
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl Location {
    /// An object that a store made.
    pub fn of(store: &crate::store::ImageStore, key: &str) -> Self {
        Location { store: store.id.clone(), key: key.to_owned(), metadata: serde_json::Map::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    pub id: String,
    /// Project id.
    pub owner: Option<String>,
    pub name: Option<String>,
    pub status: Status,
    pub visibility: Visibility,
    pub container_format: Option<String>,
    pub disk_format: Option<String>,
    /// Bytes of the file.
    pub size: Option<u64>,
    /// Bytes of the disk that the file describes.
    pub virtual_size: Option<u64>,
    /// md5 of the file, in hex.
    pub checksum: Option<String>,
    /// `sha512`, or what whoever named a location chose.
    pub os_hash_algo: Option<String>,
    pub os_hash_value: Option<String>,
    /// SHA-512 of the bytes as they were read here, where `os_hash_value` does not say it: what a patch says of a
    /// location is shown as it was said, or not at all, but what is handed out is measured by this.
    #[serde(default)]
    pub read_hash: Option<String>,
    /// GiB of disk a server needs at least.
    pub min_disk: i64,
    /// MiB of memory a server needs at least.
    pub min_ram: i64,
    pub protected: bool,
    pub os_hidden: bool,
    pub tags: BTreeSet<String>,
    /// Everything else that its owner says of it.
    pub properties: BTreeMap<String, Option<String>>,
    /// Where the bytes lie.
    #[serde(default)]
    pub locations: Vec<Location>,
    /// How its import is.
    #[serde(default)]
    pub import: crate::import::model::Import,
    /// Staged bytes that are durable, while they are not all there.
    #[serde(default)]
    pub staged: Option<u64>,
    /// Id of the scheduler that works on its data.
    #[serde(default)]
    pub worker: Option<String>,
}

impl Image {
    pub fn new(id: String, owner: Option<String>) -> Self {
        Image {
            id,
            owner,
            name: None,
            status: Status::Queued,
            visibility: Visibility::Shared,
            container_format: None,
            disk_format: None,
            size: None,
            virtual_size: None,
            checksum: None,
            os_hash_algo: None,
            os_hash_value: None,
            read_hash: None,
            min_disk: 0,
            min_ram: 0,
            protected: false,
            os_hidden: false,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
            locations: Vec::new(),
            import: Default::default(),
            staged: None,
            worker: None,
        }
    }

    /// Writes down who works on its data, when that began or ended with the last change.
    pub fn note_worker(&mut self, before: &Image, me: Option<&str>) {
        if self.status == before.status && self.import.task == before.import.task {
            return;
        }
        let busy = self.status.is_worked_on() || self.import.task.is_some();
        self.worker = me.filter(|_| busy).map(str::to_owned);
    }

    /// Is a scheduler for which `whose` holds at work on its data, or has it left that half done?
    pub fn is_worked_on_by(&self, whose: impl Fn(&str) -> bool) -> bool {
        let busy = self.status.is_worked_on() || self.import.task.is_some();
        busy && self.worker.as_deref().is_some_and(whose)
    }

    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)?.as_deref()
    }

    /// `kernel_id` and `ramdisk_id`: images that a server boots beside this one.
    pub fn kernel_id(&self) -> Option<&str> {
        self.property("kernel_id")
    }
    pub fn ramdisk_id(&self) -> Option<&str> {
        self.property("ramdisk_id")
    }

    /// SHA-512 of its bytes, in hex.
    pub fn content_hash(&self) -> Option<&str> {
        let shown = self.os_hash_value.as_deref().filter(|_| self.os_hash_algo.as_deref() == Some("sha512"));
        self.read_hash.as_deref().or(shown)
    }

    /// May a file be read from it?
    pub fn has_data(&self) -> bool {
        matches!(self.status, Status::Active | Status::Deactivated)
    }

    /// Forgets what was known of bytes that are gone.
    pub fn forget_data(&mut self) {
        (self.size, self.virtual_size, self.checksum) = (None, None, None);
        (self.os_hash_algo, self.os_hash_value, self.read_hash) = (None, None, None);
        self.locations.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_measured_by_what_was_read() {
        let mut image = Image::new("i".to_owned(), None);
        assert_eq!(image.content_hash(), None);
        (image.os_hash_algo, image.os_hash_value) = (Some("sha256".to_owned()), Some("ab".to_owned()));
        assert_eq!(image.content_hash(), None);
        image.os_hash_algo = Some("sha512".to_owned());
        assert_eq!(image.content_hash(), Some("ab"));
        image.read_hash = Some("cd".to_owned());
        assert_eq!(image.content_hash(), Some("cd"));
        image.forget_data();
        assert_eq!(image.content_hash(), None);
    }

    #[test]
    fn states_follow_the_diagram() {
        assert_eq!(Status::Queued.next(Event::UploadBegins), Some(Status::Saving));
        assert_eq!(Status::Saving.next(Event::UploadBegins), None);
        assert_eq!(Status::Active.next(Event::UploadBegins), None);
        assert_eq!(Status::Saving.next(Event::Fail), Some(Status::Queued));
        assert_eq!(Status::Active.next(Event::Fail), None);
        assert_eq!(Status::Queued.next(Event::Deactivate), None);
        assert_eq!(Status::Deactivated.next(Event::Reactivate), Some(Status::Active));
        for v in ["private", "shared", "community", "public"] {
            assert_eq!(Visibility::parse(v).map(Visibility::as_str), Some(v));
        }
    }
}
