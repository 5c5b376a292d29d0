//! What guests ask and the agent answers, one frame at a time and without a socket: the way in for fuzz targets.
use crate::ask6::{self, Binding6};
use crate::dhcp::{self, Binding};
use crate::packet::Told;
use crate::resolver::{self, Spoken};
use crate::wanted::Wanted;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Answers to one port's questions about names, of what is known here.
pub struct Names {
    told: Told,
    vni: u32,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    /// What `port`, on the network of number `vni`, may be told.
    #[must_use]
    pub fn new(wanted: &Wanted, port: &str, vni: u32) -> Self {
        let told = Told::default();
        *told.names.write() = Arc::new(resolver::book(wanted, &BTreeMap::from([(port.to_owned(), 1)])));
        Self { told, vni }
    }

    /// What the packet socket's thread makes of a frame: the frame of its answer, or what others would be asked.
    #[must_use]
    pub fn to(&self, frame: &[u8]) -> Option<Vec<u8>> {
        resolver::spoken(&self.told.names, Spoken::Frame(frame))
    }

    /// The same of a question on a connection.
    #[must_use]
    pub fn by_connection(&self, question: &[u8]) -> Option<Vec<u8>> {
        resolver::spoken(&self.told.names, Spoken::Connection(1, question))
    }

    /// What a guest is told when a server of the outside says `answer` to what others are asked about `question`; `None`:
    /// it is not taken for an answer.
    #[must_use]
    pub fn from_outside(&self, question: &[u8], answer: &[u8]) -> Option<Vec<u8>> {
        resolver::heard(question, answer)
    }

    /// The hardware address that questions go to.
    #[must_use]
    pub fn station(&self) -> [u8; 6] {
        resolver::station(self.vni)
    }
}

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
