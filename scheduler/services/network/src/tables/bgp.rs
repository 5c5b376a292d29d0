//! Speakers, found by what they have, and their peers.
use crate::bgp::model::{BgpPeer, BgpSpeaker};
use pilvi_store::Record;

impl Record for BgpSpeaker {
    const KIND: &'static str = "bgp_speaker";
    named!();
    const LABELLED: bool = true;
    fn labels(&self) -> Vec<String> {
        self.peers.iter().chain(&self.networks).cloned().collect()
    }
}

impl Record for BgpPeer {
    const KIND: &'static str = "bgp_peer";
    named!();
}
