//! One way to the bytes for several queues, which take turns: for images whose tables only one may change at a time.

use super::file::{Backing, Transfer};
use crate::gate::lock;
use crate::memory::Memory;
use std::io;
use std::sync::{Arc, Mutex};

/// A way that is shared; clones are of the same.
pub struct Shared<B>(Arc<Mutex<B>>);

impl<B> Shared<B> {
    /// Over this one.
    pub fn new(backing: B) -> Shared<B> {
        Shared(Arc::new(Mutex::new(backing)))
    }
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Shared<B> {
        Shared(self.0.clone())
    }
}

impl<B: Backing> Backing for Shared<B> {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        lock(&self.0).run(transfers, memory)
    }

    fn flush(&mut self) -> io::Result<()> {
        lock(&self.0).flush()
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        lock(&self.0).zero(offset, bytes, discard)
    }

    fn is_away(&mut self, renew: bool) -> bool {
        lock(&self.0).is_away(renew)
    }

    fn is_remote(&self) -> bool {
        lock(&self.0).is_remote()
    }
}
