//! `/v2/images/{image_id}/file` and `/stage`
use super::{ops, stage};
use crate::{
    Image,
    image::{
        self,
        model::{Image as Record, Status},
    },
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Target};
use pilvi_store::Stored;
use std::sync::Arc;

const FILE: &str = "/v2/images/{image_id}/file";

pub fn routes() -> Vec<Route<Image>> {
    vec![
        Route::put(FILE, upload).rule_by_handler("upload_image").takes_bytes().summary("Upload an image's data"),
        Route::get(FILE, download).rule_by_handler("download_image").summary("Download an image's data"),
        Route::put("/v2/images/{image_id}/stage", stage_data)
            .rule_by_handler("modify_image")
            .takes_bytes()
            .summary("Stage an image's data"),
    ]
}

async fn authorized(svc: &Image, call: &Call) -> Result<Stored<Record>, Fault> {
    let stored = image::ops::visible(&svc.store, &call.ctx, call.param("image_id")).await?;
    call.authorize(&image::ops::target(&svc.store, &call.ctx, &stored).await?)?;
    Ok(stored)
}

/// The bytes the client announces.
fn announced(call: &Call) -> Result<Option<u64>, Fault> {
    let read = |name: &str| {
        let bad = || Fault::bad_request("Invalid or missing image size in request headers.");
        call.header(name).map(|text| text.trim().parse::<u64>().map_err(|_| bad())).transpose()
    };
    let (size, length) = (read("x-openstack-image-size")?, read("content-length")?);
    if let (Some(size), Some(length)) = (size, length)
        && size != length
    {
        return Err(Fault::bad_request(format!("x-openstack-image-size is {size}, but Content-Length is {length}.")));
    }
    Ok(size.or(length))
}

fn octets(call: &Call) -> Result<(), Fault> {
    let kind = call.header("content-type").unwrap_or_default();
    if kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/octet-stream")) {
        return Ok(());
    }
    Err(Fault::new(415, "Image data is sent as application/octet-stream."))
}

async fn upload(svc: Arc<Image>, mut call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    octets(&call)?;
    let store = svc.stores.to_write(call.header("x-image-meta-store"))?;
    let said = announced(&call)?;
    let stream = call.stream.take().ok_or_else(|| Fault::internal("upload without a stream"))?;
    ops::upload_to(&svc, store, &stored.record.id, stream, said).await?;
    Ok(Response::no_content())
}

async fn stage_data(svc: Arc<Image>, mut call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    octets(&call)?;
    let said = announced(&call)?;
    let stream = call.stream.take().ok_or_else(|| Fault::internal("upload without a stream"))?;
    let piece = call.header("content-range").map(stage::Piece::parse).transpose()?;
    stage::stage(&svc, &stored.record.id, stream, said, piece).await?;
    Ok(Response::no_content())
}

/// Stores that the client would rather have the bytes from: `?prefer=a,b`.
fn preferred(svc: &Image, call: &Call, target: &Target) -> Result<Vec<String>, Fault> {
    let named = call.query.get("prefer").unwrap_or_default();
    let names: Vec<String> = named.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    if !names.is_empty() {
        call.enforce("download_from_store", target)?;
    }
    match names.iter().find(|name| svc.stores.find(name).is_none()) {
        Some(unknown) => Err(Fault::bad_request(format!("Store '{unknown}' is not configured."))),
        None => Ok(names),
    }
}

async fn download(svc: Arc<Image>, call: Call) -> Reply {
    let stored = authorized(&svc, &call).await?;
    let target = image::ops::target(&svc.store, &call.ctx, &stored).await?;
    if stored.status == Status::Deactivated && !call.caller().has_role("admin") {
        return Err(Fault::forbidden("The requested image has been deactivated. Image data download is forbidden."));
    }
    let Some(size) = stored.size.filter(|_| stored.has_data()) else { return Ok(Response::no_content()) };
    let preferred = preferred(&svc, &call, &target)?;
    let part = call.header("range").map(|text| range(text, size)).transpose()?.flatten();
    let (from, length) = part.unwrap_or((0, size));
    let mut response = Response::stream(
        "application/octet-stream",
        Some(length),
        ops::read_preferring(&svc, &stored, from, length, &preferred).await?,
    );
    response = response.header("accept-ranges", "bytes");
    if part.is_some() {
        return Ok(response.status(206).header("content-range", format!("bytes {from}-{}/{size}", from + length - 1)));
    }
    // The sum of the whole, so not beside a part of it.
    Ok(match &stored.checksum {
        Some(md5) => response.header("content-md5", md5.clone()),
        None => response,
    })
}

/// The one range of a `Range` header as (offset, length). Several ranges, or another unit: the whole, as
/// the standard allows. 416 for what lies beyond the end.
fn range(text: &str, size: u64) -> Result<Option<(u64, u64)>, Fault> {
    let Some(spec) = text.trim().strip_prefix("bytes=").filter(|s| !s.contains(',')) else { return Ok(None) };
    let beyond = || {
        Fault::new(416, format!("The range {text} is not in the {size} bytes of the image."))
            .header("content-range", format!("bytes */{size}"))
    };
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| beyond());
    let (from, to) = match spec.split_once('-') {
        Some(("", suffix)) => (size.saturating_sub(number(suffix)?), size),
        Some((from, "")) => (number(from)?, size),
        Some((from, last)) => (number(from)?, number(last)?.saturating_add(1).min(size)),
        None => return Err(beyond()),
    };
    if from < to { Ok(Some((from, to - from))) } else { Err(beyond()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_cut_to_the_image() {
        assert_eq!(range("bytes=0-9", 100).unwrap(), Some((0, 10)));
        assert_eq!(range("bytes=90-", 100).unwrap(), Some((90, 10)));
        assert_eq!(range("bytes=-5", 100).unwrap(), Some((95, 5)));
        assert_eq!(range("bytes=50-500", 100).unwrap(), Some((50, 50)));
        assert_eq!(range("bytes=0-1,3-4", 100).unwrap(), None);
        for bad in ["bytes=100-", "bytes=5-4", "bytes=x-", "bytes=5", "bytes=-0"] {
            assert_eq!(range(bad, 100).unwrap_err().code(), 416, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_range_lies_in_the_image(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size in 0u64..1000) {
            if let Ok(Some((from, length))) = range(&text, size) {
                prop_assert!(length > 0 && from + length <= size);
            }
        }
    }
}
