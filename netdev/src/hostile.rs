//! What guests ask and the agent answers, and what the provider's wire says to it, one frame at a time and without a socket: the
//! way in for fuzz targets.
use crate::ask6::{self, Binding6};
use crate::bfd::{self, Control, Session, Verdict};
use crate::delegation::{Client, Identity, frame};
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

/// A client of prefix delegation, with a clock that goes to when it next has something to say.
pub struct Borrower {
    client: Client,
    now: u64,
    rolled: u32,
}

impl std::fmt::Debug for Borrower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Borrower")
    }
}

impl Default for Borrower {
    fn default() -> Self {
        Self { client: Client::new(Identity::new([1, 2], 3), 0, &mut || 1), now: 0, rolled: 1 }
    }
}

impl Borrower {
    fn turn<T>(&mut self, act: impl FnOnce(&mut Client, u64, &mut dyn FnMut() -> u32) -> T) -> T {
        let Self { client, now, rolled } = self;
        act(client, *now, &mut || {
            *rolled = rolled.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *rolled >> 4
        })
    }

    /// Its next message; `None`: it has nothing to say, now or ever.
    pub fn speak(&mut self) -> Option<Vec<u8>> {
        match self.client.due() {
            u64::MAX => None,
            due => {
                self.now = self.now.max(due);
                self.turn(|client, now, dice| client.step(now, dice))
            }
        }
    }

    /// Does it want to speak once more at once?
    #[must_use]
    pub fn is_restless(&self) -> bool {
        self.client.due() <= self.now
    }

    /// What the packet socket's thread makes of a frame. Whether it was an answer.
    pub fn hear(&mut self, bytes: &[u8]) -> bool {
        frame::read(bytes).is_some_and(|(_, message)| self.turn(|client, now, dice| client.hear(message, now, dice)))
    }

    /// It needs its prefix no more.
    pub fn release(&mut self) {
        self.turn(|client, now, dice| client.release(now, dice));
    }

    /// The prefix that it has.
    #[must_use]
    pub fn prefix(&self) -> Option<ipnet::Ipv6Net> {
        self.client.lease().map(|lease| lease.prefix)
    }
}

/// A session with a next hop, with a clock that goes to when it next has something to do.
pub struct Neighbour {
    session: Session,
    now: u64,
    rolled: u32,
}

impl std::fmt::Debug for Neighbour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Neighbour")
    }
}

impl Default for Neighbour {
    fn default() -> Self {
        Self { session: Session::new(Self::NUMBER, 0), now: 0, rolled: 1 }
    }
}

impl Neighbour {
    /// The discriminator of its side.
    pub const NUMBER: u32 = 5;

    /// What it does next, after some time that is not over before: its packet, if it has something to say.
    pub fn step(&mut self) -> Option<[u8; 24]> {
        match self.session.due() {
            u64::MAX => None,
            due => {
                self.now = self.now.max(due);
                self.rolled = self.rolled.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                self.session.step(self.now, self.rolled >> 4).map(|said| said.write())
            }
        }
    }

    /// As long passes as a next hop may ask to be believed without a word.
    pub fn wait_long(&mut self) {
        self.now += 255 * u64::from(u32::MAX) + 1;
    }

    /// Does it want to do one more thing at once?
    #[must_use]
    pub fn is_restless(&self) -> bool {
        self.session.due() <= self.now
    }

    /// What the thread of the sessions makes of a frame that the programs let through. Whether it was a word for this one.
    pub fn hear(&mut self, frame: &[u8]) -> bool {
        let said = bfd::frame::read(frame).and_then(|(_, message)| Control::read(message));
        said.is_some_and(|said| self.session.hear(&said, self.now))
    }

    /// Routes lead to the next hop.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.session.verdict() != Verdict::Lost
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
