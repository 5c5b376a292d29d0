//! Quotas: what identity's limits let a project have of images.
//!
//! | resource | counts |
//! | --- | --- |
//! | `image_size_total` | MiB of images' bytes, in each store that has them |
//! | `image_stage_total` | MiB that are staged |
//! | `image_count_total` | images |
//! | `image_count_uploading` | images whose bytes are on their way |
use crate::{
    Image,
    image::model::{Image as Record, Status},
    import::request::Method,
};
use pilvi_kit::Fault;
use pilvi_store::Query;
use std::collections::BTreeMap;

pub const SIZE_TOTAL: &str = "image_size_total";
pub const STAGE_TOTAL: &str = "image_stage_total";
pub const COUNT_TOTAL: &str = "image_count_total";
pub const COUNT_UPLOADING: &str = "image_count_uploading";
const MIB: u64 = 1 << 20;

/// What a project has; bytes where the resource counts MiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub stored: u64,
    pub staged: u64,
    pub images: u64,
    pub uploading: u64,
}

impl Used {
    /// Adds an image.
    fn count(&mut self, image: &Record) {
        let size = image.size.unwrap_or(0);
        self.images += 1;
        let arriving = matches!(image.status, Status::Saving | Status::Uploading | Status::Importing);
        self.uploading += u64::from(arriving || !image.import.importing.is_empty());
        if image.has_data() {
            self.stored += size * (image.locations.len() as u64).max(1);
        } else {
            self.staged += size.max(image.staged.unwrap_or(0));
        }
    }

    fn of(&self, resource: &str) -> u64 {
        match resource {
            SIZE_TOTAL => self.stored / MIB,
            STAGE_TOTAL => self.staged / MIB,
            COUNT_TOTAL => self.images,
            _ => self.uploading,
        }
    }
}

pub async fn used(svc: &Image, project: &str) -> Result<Used, Fault> {
    let mut used = Used::default();
    for stored in svc.store.list::<Record>(Query::all().project(project)).await? {
        used.count(&stored.record);
    }
    Ok(used)
}

/// The limits of a project; where identity has none, the configuration's.
pub async fn limits(svc: &Image, project: &str) -> Result<BTreeMap<String, i64>, Fault> {
    let mut limits = match svc.cloud.get() {
        Some(cloud) => cloud.limits(project).await?,
        None => BTreeMap::new(),
    };
    if let Some(bytes) = svc.config.project_size_max {
        limits.entry(SIZE_TOTAL.to_owned()).or_insert_with(|| i64::try_from(bytes / MIB).unwrap_or(i64::MAX));
    }
    Ok(limits)
}

/// (resource, limit or -1, usage), as clients see them.
pub async fn shown(svc: &Image, project: &str) -> Result<Vec<(&'static str, i64, u64)>, Fault> {
    let (limits, used) = (limits(svc, project).await?, used(svc, project).await?);
    let one = |name: &'static str| (name, limits.get(name).copied().unwrap_or(-1), used.of(name));
    Ok([SIZE_TOTAL, STAGE_TOTAL, COUNT_TOTAL, COUNT_UPLOADING].map(one).to_vec())
}

/// 413 unless a project may have this much more of each resource.
async fn check(svc: &Image, project: &str, more: &[(&'static str, u64)]) -> Result<(), Fault> {
    let limits = limits(svc, project).await?;
    let limited: Vec<_> = more.iter().filter(|(name, _)| limits.get(*name).is_some_and(|limit| *limit >= 0)).collect();
    if limited.is_empty() {
        return Ok(());
    }
    let used = used(svc, project).await?;
    for (name, delta) in limited {
        let limit = limits.get(*name).and_then(|limit| u64::try_from(*limit).ok()).unwrap_or(u64::MAX);
        let has = used.of(name);
        if has.saturating_add(*delta) > limit {
            return Err(Fault::too_large(format!(
                "Project {project} is over a limit for [Resource {name} is over limit of {limit} due to current usage {has} and delta {delta}]"
            )));
        }
    }
    Ok(())
}

fn owner(image: &Record) -> Option<&str> {
    image.owner.as_deref()
}

/// Before an image is created.
pub async fn check_create(svc: &Image, image: &Record) -> Result<(), Fault> {
    let Some(project) = owner(image) else { return Ok(()) };
    check(svc, project, &[(COUNT_TOTAL, 1)]).await
}

/// Before bytes come in, staged or not; `said` is what the sender announces.
pub async fn check_bytes(svc: &Image, image: &Record, staged: bool, said: Option<u64>) -> Result<(), Fault> {
    let Some(project) = owner(image) else { return Ok(()) };
    let resource = if staged { STAGE_TOTAL } else { SIZE_TOTAL };
    // What a sender that goes on has here is counted already.
    let known = if staged { image.staged.unwrap_or(0) } else { 0 };
    let more = said.unwrap_or(0).saturating_sub(known) / MIB;
    check(svc, project, &[(resource, more), (COUNT_UPLOADING, 1)]).await
}

/// Before an import begins.
pub async fn check_import(svc: &Image, image: &Record, method: &Method) -> Result<(), Fault> {
    let Some(project) = owner(image) else { return Ok(()) };
    let size = image.size.unwrap_or(0) / MIB;
    match method {
        Method::GlanceDirect => check(svc, project, &[(SIZE_TOTAL, size)]).await,
        Method::CopyImage => check(svc, project, &[(SIZE_TOTAL, 0), (COUNT_UPLOADING, 1)]).await,
        _ => check(svc, project, &[(SIZE_TOTAL, 0), (STAGE_TOTAL, size), (COUNT_UPLOADING, 1)]).await,
    }
}

/// Bytes that an image may have.
pub async fn room(svc: &Image, image: &Record) -> Result<u64, Fault> {
    let Some(project) = owner(image) else { return Ok(svc.config.size_max) };
    let limits = limits(svc, project).await?;
    let limit = limits.get(SIZE_TOTAL).and_then(|limit| u64::try_from(*limit).ok());
    let Some(limit) = limit.map(|mib| mib.saturating_mul(MIB)) else { return Ok(svc.config.size_max) };
    let limit =
        svc.config.project_size_max.map_or(limit, |bytes| if bytes / MIB == limit / MIB { bytes } else { limit });
    Ok(svc.config.size_max.min(limit.saturating_sub(used(svc, project).await?.stored)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_counted_by_state() {
        let mut used = Used::default();
        let image = |status, size, staged| {
            let mut image = Record::new("i".into(), Some("p".into()));
            (image.status, image.size, image.staged) = (status, size, staged);
            image
        };
        used.count(&image(Status::Active, Some(3 * MIB), None));
        used.count(&image(Status::Deactivated, Some(2 * MIB), None));
        used.count(&image(Status::Uploading, Some(7 * MIB), None));
        used.count(&image(Status::Queued, None, Some(MIB + 5)));
        used.count(&image(Status::Importing, None, None));
        assert_eq!(used, Used { stored: 5 * MIB, staged: 8 * MIB + 5, images: 5, uploading: 2 });
        assert_eq!(
            (used.of(SIZE_TOTAL), used.of(STAGE_TOTAL), used.of(COUNT_TOTAL), used.of(COUNT_UPLOADING)),
            (5, 8, 5, 2)
        );
    }
}
