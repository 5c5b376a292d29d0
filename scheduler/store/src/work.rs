//! Work without its types.
//!
//! What callers hand over differs in what it gives, why it fails and what it has captured; what engines do with it does
//! not. So the result goes into a slot that only the caller knows, and engines see one type:
//!
//! ```text
//!  Store::write(f) ──► Transaction: |tx| f(tx) ──► slot ······► the caller, when the engine says Ok
//!                          │
//!                          └──► writer thread or PostgreSQL ──► Ok: as the slot says · Err: instead of it
//! ```
//!
//! Futures are boxed at this border and at that of [`Session`]. The body of an async function is compiled anew in every
//! unit that awaits it by name, with all it awaits; hundreds of callers of the store would each carry both engines.
use crate::{Error, Tx, session::Session};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;

/// True: it went well, what was written shall be kept. False: the slot says why not. An error: nobody asked the caller.
pub(crate) type Outcome = Result<bool, Error>;
/// May be run several times; the slot has the last result.
pub(crate) type Transaction = Arc<dyn for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Outcome> + Send + Sync>;
pub(crate) type Reading = Box<dyn for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Outcome> + Send>;

/// Where the result of a piece of work waits.
pub(crate) struct Slot<T, E>(Arc<Mutex<Option<Result<T, E>>>>);

impl<T, E: From<Error>> Slot<T, E> {
    fn new() -> (Self, Self) {
        let slot = Arc::default();
        (Slot(Arc::clone(&slot)), Slot(slot))
    }

    fn put(&self, result: Result<T, E>) -> Outcome {
        let kept = result.is_ok();
        *self.0.lock() = Some(result);
        Ok(kept)
    }

    /// What the caller gets, after what the engine said.
    pub fn take(self, done: Result<(), Error>) -> Result<T, E> {
        done?;
        self.0.lock().take().unwrap_or_else(|| Err(Error::Closed.into()))
    }
}

impl<T, E> Clone for Slot<T, E> {
    fn clone(&self) -> Self {
        Slot(self.0.clone())
    }
}

pub(crate) fn transaction<T, E, F>(f: F) -> (Transaction, Slot<T, E>)
where
    F: for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send + Sync + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (inside, outside) = Slot::new();
    let run = assert_transaction(move |tx| {
        let (work, slot) = (f(tx), inside.clone());
        Box::pin(async move { slot.put(work.await) })
    });
    (Arc::new(run), outside)
}

pub(crate) fn reading<T, F>(f: F) -> (Reading, Slot<T, Error>)
where
    F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, Error>> + Send + 'static,
    T: Send + 'static,
{
    let (inside, outside) = Slot::new();
    let run = assert_reading(move |session| {
        let work = f(session);
        Box::pin(async move { inside.put(work.await) })
    });
    (Box::new(run), outside)
}

/// Tells the compiler that the closure takes a `Tx` of any lifetime.
pub(crate) fn assert_transaction<F>(f: F) -> F
where
    F: for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Outcome> + Send + Sync + 'static,
{
    f
}

fn assert_reading<F>(f: F) -> F
where
    F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Outcome> + Send + 'static,
{
    f
}
