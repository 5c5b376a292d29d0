//! What guests ask and the agent answers, one frame at a time and without a socket: the way in for fuzz targets.
use crate::ask6::{self, Binding6};
use crate::dhcp::{self, Binding};
use crate::wanted::Wanted;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Answers to one port's questions.
#[derive(Debug)]
pub struct Answers {
    v4: Option<Arc<Binding>>,
    v6: Option<Arc<Binding6>>,
}

impl Answers {
    /// What `port` of `wanted` may be told.
    #[must_use]
    pub fn new(wanted: &Wanted, port: &str) -> Self {
        let devices = BTreeMap::from([(port.to_owned(), 1)]);
        let v4 = dhcp::bindings(wanted, &devices).remove(&1);
        Self { v4, v6: ask6::bindings(wanted, &devices).remove(&1) }
    }

    /// The answer to a frame, as the packet socket's thread finds it.
    #[must_use]
    pub fn to(&self, frame: &[u8]) -> Option<Vec<u8>> {
        if frame.get(12..14) == Some(&[0x86, 0xdd]) {
            return ask6::answer(self.v6.as_ref()?, frame);
        }
        dhcp::answer(self.v4.as_ref()?, dhcp::payload(frame)?)
    }
}
