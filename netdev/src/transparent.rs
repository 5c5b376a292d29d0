//! Networks whose guests may send frames with tags to each other. Such frames go by hardware address; those for many, by which
//! guests find each other there, go where all that is for many goes (`many.rs`): the cloud knows nothing of what is inside.
use crate::wanted::{Network, Port};

/// Whether a port's guest may send tags: not one that has its device by a tag itself, nor outside of the cloud.
pub(crate) fn takes(network: &Network, port: &Port) -> bool {
    network.transparent && !network.external && port.parent.is_none()
}
