//! Networks whose guests may send frames with one tag or two to each other. Such frames go by hardware address; those for many,
//! by which guests find each other there, go where all that is for many goes (`many.rs`): the cloud knows nothing of what is inside.
//! On a wire they are within the network's own tag, so one that has none there takes none: the guests' would be the wire's.
use crate::wanted::{Network, Port};

/// Whether a port's guest may send tags: not one that has its device by a tag itself.
pub(crate) fn takes(network: &Network, port: &Port) -> bool {
    (passes(network) || (network.transparent && !network.external && network.vlan == 0)) && port.parent.is_none()
}

/// Whether guests' tags are on the network's wire, within its own.
pub(crate) fn passes(network: &Network) -> bool {
    network.transparent && network.external && network.vlan != 0
}
