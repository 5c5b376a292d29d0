//! Import plug-ins: what happens to staged bytes, in the order of the configuration, before they are kept.
//!
//! ```text
//! staged file -> image_decompression -> image_conversion -> inject_image_metadata -> judged, kept
//! ```
//!
//! A plug-in that makes new bytes makes a new file beside the staged one, which stays until the image is active: a
//! crash at any moment leaves what the import began with, and the next start begins it again.
pub mod decompress;

use crate::{
    fault,
    image::{model::Image, view},
};
use pilvi_disk::{
    Format, Rules,
    convert::{self, Named, Wanted},
};
use pilvi_kit::Fault;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Plugin {
    #[serde(rename = "no_op")]
    NoOp,
    #[serde(rename = "image_decompression")]
    Decompression,
    #[serde(rename = "image_conversion")]
    Conversion,
    #[serde(rename = "inject_image_metadata")]
    Inject,
}

/// What a conversion makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Output {
    #[default]
    Raw,
    Qcow2,
}

impl Output {
    pub fn format(self) -> Format {
        match self {
            Output::Raw => Format::Raw,
            Output::Qcow2 => Format::Qcow2,
        }
    }
}

/// What an operator says of plug-ins.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// In the order in which they run; none: bytes are kept as they came.
    pub plugins: Vec<Plugin>,
    /// What conversions make.
    pub output_format: Output,
    /// Properties that are set on imported images.
    pub inject: BTreeMap<String, String>,
    /// Callers with one of these roles have nothing set on their images.
    pub ignore_user_roles: Vec<String>,
    /// Seconds that one conversion may take.
    pub convert_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            plugins: Vec::new(),
            output_format: Output::Raw,
            inject: BTreeMap::new(),
            ignore_user_roles: vec!["admin".to_owned()],
            convert_seconds: 6 * 3600,
        }
    }
}

/// An image on its way: where its bytes are, and what is to be said of it. Files that plug-ins made go with it.
#[derive(Debug)]
pub struct Work {
    pub path: PathBuf,
    pub disk_format: String,
    pub container_format: String,
    /// Properties that are to be set.
    pub properties: BTreeMap<String, String>,
    /// Whose import it is: part of the names of files.
    task: String,
    /// Files that plug-ins made; the last may be `path`.
    made: Vec<PathBuf>,
}

/// Limits that plug-ins keep.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a file at most.
    pub size_max: u64,
    pub rules: Rules,
}

impl Work {
    pub fn new(image: &Image, staged: &Path, task: &str) -> Self {
        Work {
            path: staged.to_owned(),
            disk_format: image.disk_format.clone().unwrap_or_default(),
            container_format: image.container_format.clone().unwrap_or_default(),
            properties: BTreeMap::new(),
            task: task.to_owned(),
            made: Vec::new(),
        }
    }

    /// The place for the next file: beside the staged one, with a name that a start removes.
    fn next(&mut self, staged: &Path) -> PathBuf {
        let path = staged.with_extension(format!("work-{}-{}", self.task, self.made.len()));
        self.made.push(path.clone());
        path
    }

    /// Removes every file that plug-ins made but the last one, or all.
    fn clean(&self, all: bool) {
        for path in self.made.iter().filter(|path| all || **path != self.path) {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::error!(path = %path.display(), %error, "cannot remove a file of an import");
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.clean(true);
    }
}

/// Runs all plug-ins on a staged file. Blocks for as long as a conversion takes.
pub fn run(
    settings: &Settings,
    limits: &Limits,
    roles: &[String],
    staged: &Path,
    work: &mut Work,
) -> Result<(), Fault> {
    for plugin in &settings.plugins {
        match plugin {
            Plugin::NoOp => tracing::debug!(path = %staged.display(), "the plug-in that does nothing has done it"),
            Plugin::Decompression => decompression(limits, staged, work)?,
            Plugin::Conversion => conversion(settings, limits, staged, work)?,
            Plugin::Inject => inject(settings, roles, work),
        }
        work.clean(false);
    }
    Ok(())
}

/// Bytes that are compressed as a whole are unpacked, unless that is what their container is.
fn decompression(limits: &Limits, staged: &Path, work: &mut Work) -> Result<(), Fault> {
    if work.container_format == "compressed" {
        return Ok(());
    }
    let bad = |error: std::io::Error| fault::bad_data(format!("it cannot be unpacked: {error}"));
    let file = File::open(&work.path).map_err(Fault::internal)?;
    let Some(packed) = decompress::detect(&file).map_err(bad)? else { return Ok(()) };
    let target = work.next(staged);
    decompress::unpack(packed, &file, &target, limits.size_max).map_err(bad)?;
    work.path = target;
    Ok(())
}

/// What is not of the wanted format is converted to it; discs stay discs.
fn conversion(settings: &Settings, limits: &Limits, staged: &Path, work: &mut Work) -> Result<(), Fault> {
    let rules = Rules { match_format: true, ..limits.rules.clone() };
    let (path, disk_format, container_format) =
        (work.path.clone(), work.disk_format.clone(), work.container_format.clone());
    let file = Named { path: &path, disk_format: &disk_format, container_format: &container_format };
    let (format, target) = (settings.output_format.format(), work.next(staged));
    let wanted = Wanted { format, target: &target, seconds: settings.convert_seconds };
    if convert::settle(file, wanted, &rules).map_err(fault::bad_data)? {
        work.path = target;
        (work.disk_format, work.container_format) = (format.name().to_owned(), "bare".to_owned());
    }
    Ok(())
}

fn inject(settings: &Settings, roles: &[String], work: &mut Work) {
    if roles.iter().any(|role| settings.ignore_user_roles.iter().any(|ignored| ignored.eq_ignore_ascii_case(role))) {
        return;
    }
    let good = |name: &String| view::check_name(name).is_ok() && !view::BASE.contains(&name.as_str());
    work.properties.extend(settings.inject.iter().filter(|(name, _)| good(name)).map(|(n, v)| (n.clone(), v.clone())));
}

#[cfg(test)]
mod tests;
