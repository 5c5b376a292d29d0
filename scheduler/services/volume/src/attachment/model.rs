//! The states of an attachment. Pure.
//!
//! ```text
//!  create without connector --> reserved --connector--> attaching --os-complete--> attached --delete--> (none)
//!  compute: a server without host: reserved; it has one: attached
//! ```
use crate::{
    tables::Attachment,
    volume::model::{Use, names},
};
use serde::{Deserialize, Serialize};

names! {
    /// As Cinder spells `attach_status`.
    AttachStatus {
        Reserved = "reserved", Attaching = "attaching", Attached = "attached", Detaching = "detaching",
        ErrorAttaching = "error_attaching", ErrorDetaching = "error_detaching",
    }
}

/// How all attachments of a volume together use it.
pub fn used<'a>(attachments: impl IntoIterator<Item = &'a Attachment>) -> Use {
    let of = |a: &Attachment| match a.status {
        AttachStatus::Attached | AttachStatus::Detaching | AttachStatus::ErrorDetaching => Use::Attached,
        AttachStatus::Reserved | AttachStatus::Attaching | AttachStatus::ErrorAttaching => Use::Reserved,
    };
    attachments.into_iter().map(of).max().unwrap_or(Use::Nobody)
}
