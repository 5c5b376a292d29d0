//! Staging: a client's bytes into the staged file, in one go or in pieces.
//!
//! What has come when a connection breaks stays: the image is queued again and says in `os_glance_staged_bytes` how
//! much of it is here for good. A client may stage everything again, as any client does, or go on: a `PUT` with
//! `Content-Range: bytes FROM-TO/TOTAL`, which is what `curl -C FROM -T FILE -X PUT` sends.
use super::{
    files::Place,
    ops::{disk, drain, refusal, to_its_end},
    receive::{Broken, Expected, SILENCE},
    staging::Staged,
};
use crate::{
    Image,
    image::{
        self,
        model::{Event, Image as Record},
    },
    quota,
};
use futures::StreamExt;
use pilvi_kit::{Fault, call::BodyStream};
use std::sync::Arc;

/// A piece of a file, by the `Content-Range` of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub from: u64,
    /// Behind the last byte.
    pub end: u64,
    pub total: u64,
}

impl Piece {
    /// `bytes 0-99/100`; 400 for anything else.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let read = || {
            let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
            let (from, last) = range.split_once('-')?;
            let (from, last, total): (u64, u64, u64) = (from.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
            (from <= last && last < total).then_some(Piece { from, end: last + 1, total })
        };
        read().ok_or_else(|| Fault::bad_request(format!("Content-Range is no piece of a file: {text}")))
    }
}

/// Takes bytes into the staged file of an image. Runs to its end by itself.
pub async fn stage(
    svc: &Arc<Image>,
    id: &str,
    stream: BodyStream,
    said: Option<u64>,
    piece: Option<Piece>,
) -> Result<(), Fault> {
    let (own, id) = (svc.clone(), id.to_owned());
    to_its_end(svc, async move { take(&own, &id, stream, said, piece).await }).await
}

async fn take(
    svc: &Image,
    id: &str,
    mut stream: BodyStream,
    said: Option<u64>,
    piece: Option<Piece>,
) -> Result<(), Fault> {
    let begun = begin(svc, id, said, piece).await;
    let (mut staged, max) = match begun {
        Ok(begun) => begun,
        Err(fault) => {
            drain(&mut stream).await;
            return Err(fault);
        }
    };
    let whole = piece.map_or(said, |piece| Some(piece.end));
    let taken = fill(svc, id, &mut staged, &mut stream, Expected { max, said: whole, signed: None }).await;
    let kept = match (taken, staged.sync().await) {
        (Err(broken), Ok(have)) => Err((broken, have)),
        (_, Err(error)) => Err((Broken::Disk(error), 0)),
        (Ok(()), Ok(have)) => match whole {
            Some(whole) if whole != have => Err((Broken::Length { got: have, said: whole }, have)),
            _ => Ok(have),
        },
    };
    match kept {
        Ok(have) => end(svc, id, have, piece.is_none_or(|piece| piece.total == have)).await,
        Err((broken, have)) => {
            tracing::info!(image = id, cause = %broken, have, "staging broke off");
            // Only what a sender broke off is worth going on with.
            let cut = matches!(broken, Broken::Cut(_) | Broken::Silent | Broken::Length { .. });
            let good = cut && !matches!(broken, Broken::Length { got, said } if got > said);
            break_off(svc, id, if good { have } else { 0 }).await;
            drain(&mut stream).await;
            Err(refusal(id, &broken))
        }
    }
}

/// Checks what can be checked before the first byte, marks the image and opens the file.
async fn begin(svc: &Image, id: &str, said: Option<u64>, piece: Option<Piece>) -> Result<(Staged, u64), Fault> {
    let record = image::ops::get_any(&svc.store, id).await?.record;
    let from = piece.map_or(0, |piece| piece.from);
    let have = record.staged.unwrap_or(0);
    if from > have {
        let why = format!("{have} bytes of image {id} are staged; a piece must not begin behind them.");
        return Err(Fault::new(416, why).header("content-range", format!("bytes */{have}")));
    }
    if let (Some(piece), Some(said)) = (piece, said)
        && said != piece.end - piece.from
    {
        return Err(Fault::bad_request("Content-Length and Content-Range do not fit each other."));
    }
    let total = piece.map(|piece| piece.total).or(said);
    quota::check_bytes(svc, &record, true, total).await?;
    let max = quota::room(svc, &record).await?;
    if total.is_some_and(|total| total > max) || max == 0 {
        return Err(refusal(id, &Broken::TooLarge(max)));
    }
    image::ops::step(&svc.store, id, Event::StageBegins, move |image| image.staged = Some(from).filter(|n| *n > 0))
        .await?;
    match Staged::open(&svc.files.temporary(id, Place::Staged), from).await {
        Ok(staged) => Ok((staged, max)),
        Err(error) => {
            break_off(svc, id, 0).await;
            Err(disk(id, error))
        }
    }
}

/// Writes the stream, telling the record at every checkpoint how much is here for good.
async fn fill(
    svc: &Image,
    id: &str,
    staged: &mut Staged,
    stream: &mut BodyStream,
    expected: Expected,
) -> Result<(), Broken> {
    loop {
        let chunk = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) => return Err(Broken::Silent),
            Ok(None) => return Ok(()),
            Ok(Some(Err(error))) => return Err(Broken::Cut(error)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        let got = staged.length() + chunk.len() as u64;
        if got > expected.max {
            return Err(Broken::TooLarge(expected.max));
        }
        if let Some(said) = expected.said.filter(|said| got > *said) {
            return Err(Broken::Length { got, said });
        }
        if let Some(have) = staged.write(&chunk).await? {
            let told = image::ops::change(&svc.store, id, move |image| {
                image.staged = Some(have);
                Ok(())
            });
            told.await.map_err(|fault| Broken::Disk(std::io::Error::other(fault.to_string())))?;
        }
    }
}

/// All bytes of the request are here: the whole file, or a piece of it.
async fn end(svc: &Image, id: &str, have: u64, whole: bool) -> Result<(), Fault> {
    let ended = image::ops::change(&svc.store, id, move |image| {
        if whole {
            (image.size, image.staged) = (Some(have), None);
        } else {
            image.status = image.status.next(Event::Fail).unwrap_or(image.status);
            image.staged = Some(have);
        }
        Ok(())
    });
    match ended.await {
        Ok(_) => Ok(()),
        Err(fault) if fault.code() == 404 => {
            svc.files.discard(id, Place::Staged).await.map_err(Fault::internal)?;
            Err(Fault::new(410, format!("Image {id} was deleted during the upload.")))
        }
        Err(fault) => Err(fault),
    }
}

/// The image is queued again, with so many bytes that are kept.
async fn break_off(svc: &Image, id: &str, have: u64) {
    let queued = image::ops::step(&svc.store, id, Event::Fail, move |image: &mut Record| {
        image.forget_data();
        image.staged = Some(have).filter(|have| *have > 0);
    });
    let gone = match queued.await {
        Ok(_) => have == 0,
        Err(fault) if fault.code() == 404 => true,
        Err(fault) => {
            tracing::error!(image = id, %fault, "cannot queue the image again");
            false
        }
    };
    if gone && let Err(error) = svc.files.discard(id, Place::Staged).await {
        tracing::error!(image = id, %error, "cannot remove staged data");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read() {
        assert_eq!(Piece::parse("bytes 5-9/10").unwrap(), Piece { from: 5, end: 10, total: 10 });
        for bad in [
            "",
            "bytes 5-9",
            "bytes 5-4/10",
            "bytes 5-10/10",
            "bytes */10",
            "lines 1-2/3",
            "bytes 0-1/*",
            "bytes -1-2/3",
        ] {
            assert_eq!(Piece::parse(bad).unwrap_err().code(), 400, "{bad}");
        }
    }
}
