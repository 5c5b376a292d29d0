//! Many transfers at once by a few threads, where there is no io_uring.

use super::file::{Backing, RawFile, Transfer};
use crate::gate::lock;
use crate::machine::Stop;
use crate::memory::Memory;
use crate::sandbox::Threads;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Transfers at once.
const THREADS: usize = 4;

struct Work {
    number: usize,
    transfer: Transfer,
    memory: Memory,
    tell: Sender<(usize, io::Result<()>)>,
}

/// A file behind a pool. Clones use the same threads.
#[derive(Clone)]
pub struct Pool {
    file: RawFile,
    crew: Arc<Crew>,
}

struct Crew {
    /// None only while it is dropped: that ends the threads.
    give: Option<Sender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads, with the filter of device workers.
    pub fn new(file: RawFile, name: &str, threads: &Threads, stop: &Arc<Stop>) -> io::Result<Pool> {
        let (give, take) = mpsc::channel();
        let take = Arc::new(Mutex::new(take));
        let mut crew = Crew { give: Some(give), threads: Vec::new() };
        for number in 0..THREADS {
            let (file, take) = (file.clone(), take.clone());
            let name = format!("{name}-{number}");
            crew.threads.push(threads.spawn(&name, Threads::WORKER, stop.clone(), move || serve(&file, &take))?);
        }
        Ok(Pool { file, crew: Arc::new(crew) })
    }
}

fn serve(file: &RawFile, take: &Mutex<Receiver<Work>>) {
    loop {
        let next = lock(take).recv();
        let Ok(work) = next else { return };
        let _ = work.tell.send((work.number, file.transfer(&work.transfer, &work.memory)));
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        drop(self.give.take());
        for thread in self.threads.drain(..) {
            // One that panicked has ended the machine already.
            let _ = thread.join();
        }
    }
}

impl Backing for Pool {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let (Some(give), 2..) = (&self.crew.give, transfers.len()) else { return self.file.run(transfers, memory) };
        let (tell, told) = mpsc::channel();
        for (number, transfer) in transfers.iter().enumerate() {
            let work = Work { number, transfer: transfer.clone(), memory: memory.clone(), tell: tell.clone() };
            let _ = give.send(work);
        }
        drop(tell);
        let mut out: Vec<io::Result<()>> = transfers.iter().map(|_| Err(io::ErrorKind::BrokenPipe.into())).collect();
        for (number, result) in told {
            out[number] = result;
        }
        out
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        self.file.zero(offset, bytes, discard)
    }
}
