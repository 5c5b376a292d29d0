//! The store that is a directory: a file an image, named by its id.
use super::{Bytestream, Driver, Incoming};
use crate::data::files::{CHUNK, Files, Place};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::{collections::BTreeSet, io, path::Path};

#[derive(Debug)]
pub(super) struct FileDriver {
    files: Files,
}

impl FileDriver {
    pub fn open(directory: &Path) -> io::Result<Self> {
        Ok(FileDriver { files: Files::open(directory)? })
    }
}

/// Keys are ids of images: nothing else becomes part of a path.
fn checked(key: &str) -> io::Result<&str> {
    if pilvi_kit::id::is_uuid(key) { Ok(key) } else { Err(io::Error::other("a file is named by an image's id")) }
}

#[async_trait]
impl Driver for FileDriver {
    fn kind(&self) -> &'static str {
        "file"
    }
    fn properties(&self) -> Value {
        json!({"data_dir": self.files.directory(), "chunk_size": CHUNK, "thin_provisioning": false})
    }
    fn url(&self, key: &str) -> String {
        format!("file://{}", self.files.path(key).display())
    }
    async fn begin(&self, key: &str) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(self.files.incoming(checked(key)?, Place::Part).await?))
    }
    async fn read(&self, key: &str, offset: u64, length: u64) -> io::Result<Bytestream> {
        self.files.read(checked(key)?, offset, length).await
    }
    async fn delete(&self, key: &str) -> io::Result<()> {
        self.files.remove_name(checked(key)?).await
    }
    async fn size(&self, key: &str) -> io::Result<u64> {
        Ok(tokio::fs::metadata(self.files.path(checked(key)?)).await?.len())
    }
    async fn take_file(&self, key: &str, path: &Path) -> io::Result<bool> {
        self.files.take(checked(key)?, path).await
    }
    async fn link(&self, from: &str, to: &str) -> io::Result<bool> {
        self.files.link(checked(from)?, checked(to)?).await.map(|()| true)
    }
    async fn recover(&self, known: &BTreeSet<String>) -> io::Result<()> {
        let names: BTreeSet<String> = self.files.names().await?.into_iter().collect();
        for key in known.iter().filter(|key| !names.contains(*key)) {
            tracing::error!(image = key, directory = %self.files.directory().display(), "the data of an image is missing");
        }
        for name in names {
            // Only files named like ours are ever removed.
            let key = name.strip_suffix(".part").unwrap_or(&name);
            if pilvi_kit::id::is_uuid(key) && (key != name || !known.contains(&name)) {
                tracing::info!(file = name, "removing image data that belongs to no image");
                self.files.remove_name(&name).await?;
            }
        }
        Ok(())
    }
}
