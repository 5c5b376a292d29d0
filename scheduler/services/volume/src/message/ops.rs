//! Writing messages, with the numbers that Cinder's clients know.
use crate::tables::Message;
use pilvi_kit::{Fault, clock, id};
use pilvi_store::{Query, Tx};

/// (number, text) of what was being done.
#[derive(Debug, Clone, Copy)]
pub struct Doing(&'static str, &'static str);

pub const PLACE: Doing = Doing("001", "schedule allocate volume");
pub const UPLOAD: Doing = Doing("003", "copy volume to image");
pub const FETCH: Doing = Doing("005", "copy image to volume");
pub const EXTEND: Doing = Doing("007", "extend volume");
pub const MAKE: Doing = Doing("008", "create volume from backend storage");
pub const SNAPSHOT: Doing = Doing("009", "create snapshot");
pub const REIMAGE: Doing = Doing("016", "reimage volume");

/// (number, text) of what went wrong.
#[derive(Debug, Clone, Copy)]
pub struct Why(&'static str, &'static str);

pub const UNKNOWN: Why = Why("001", "An unknown error occurred.");
pub const NO_BACKEND: Why = Why("003", "Could not find any available weighted backend.");
pub const NOT_UPLOADED: Why = Why("004", "Failed to upload volume to image at backend.");
pub const NOT_EXTENDED: Why = Why("010", "Volume Driver failed to extend volume.");
pub const NOT_CREATED: Why = Why("012", "Driver failed to create the volume.");
pub const NOT_TAKEN: Why = Why("013", "Snapshot failed to create.");
pub const NOT_REIMAGED: Why = Why("028", "Compute service failed to reimage volume.");

/// What a message is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub project_id: &'a str,
    pub request_id: &'a str,
    /// `VOLUME` or `VOLUME_SNAPSHOT`
    pub kind: &'static str,
    pub id: &'a str,
}

/// Messages of one project at most: the oldest go.
const KEPT: usize = 1000;

pub async fn tell_in(tx: &mut Tx, keep_us: i64, about: About<'_>, doing: Doing, why: Why) -> Result<(), Fault> {
    let old = Query::all().project(about.project_id).sort("created", pilvi_store::Dir::Asc);
    let found = tx.list::<Message>(old).await?;
    let now = clock::now_us();
    let surplus = (found.len() + 1).saturating_sub(KEPT);
    for (at, message) in found.iter().enumerate() {
        if at < surplus || message.expires_us < now {
            tx.delete::<Message>(&message.record.id).await?;
        }
    }
    let message = Message {
        id: id::new(),
        project_id: about.project_id.to_owned(),
        request_id: about.request_id.to_owned(),
        resource_type: about.kind.to_owned(),
        resource_id: about.id.to_owned(),
        event_id: format!("VOLUME_{}_{}_{}", about.kind, doing.0, why.0),
        text: format!("{}:{}", doing.1, why.1),
        level: "ERROR".into(),
        expires_us: now.saturating_add(keep_us),
    };
    tx.insert(&message).await?;
    Ok(())
}
