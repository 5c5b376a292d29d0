//! Snapshots: the state is taken here, at once; the memory is written by a job, and the client is answered when it is
//! done. Until then the machine stays paused.

use super::answer::refused;
use super::{JOB, Monitor, watch};
use crate::control::Reply;
use crate::job::Job;
use crate::snapshot::{self, Snapshot};
use crate::state::RunState;
use std::os::fd::AsRawFd;
use vmm_sys_util::epoll::{ControlOperation, EpollEvent};

impl Monitor {
    pub(super) fn snapshot(&mut self, key: u64) -> Option<Reply> {
        let files = <[std::fs::File; 2]>::try_from(self.server.take_files(key));
        let Ok([state_file, memory_file]) = files else {
            return Some(refused("a snapshot needs two open files with the request: state, memory"));
        };
        let machine = match &self.machine {
            Some(machine) if self.state == RunState::Paused => machine,
            _ => return Some(refused("only a paused machine can be written down: pause it first")),
        };
        if self.job.is_some() {
            return Some(refused("another snapshot is being written"));
        }
        let state = match machine.capture(&self.parts.kvm, &self.config) {
            Ok(state) => state,
            Err(e) => return Some(refused(&e.to_string())),
        };
        let memory = machine.memory.clone();
        let job = Job::start(&self.threads, "snapshot", key, machine.stop.clone(), move |cancelled| {
            let digest = snapshot::memory::write(&memory, &memory_file, cancelled)?;
            snapshot::file::write(&state_file, &Snapshot { machine: state, memory: digest })
        });
        self.keep_job(job)
    }

    fn keep_job(&mut self, job: std::io::Result<Job>) -> Option<Reply> {
        let watched = job.and_then(|job| watch(&self.epoll, job.done.as_raw_fd(), JOB).map(|()| job));
        match watched {
            Ok(job) => self.job = Some(job),
            Err(e) => return Some(refused(&format!("no thread for it: {e}"))),
        }
        None
    }

    /// The job has ended: whoever asked for it hears how.
    pub(super) fn job_done(&mut self) {
        let Some(job) = self.job.take() else { return };
        let _ = self.epoll.ctl(ControlOperation::Delete, job.done.as_raw_fd(), EpollEvent::default());
        let key = job.requester;
        let reply = match job.end() {
            Ok(()) => Reply::Done,
            Err(reason) => refused(&reason),
        };
        self.server.reply(key, &reply);
    }

    /// The machine ends under the job.
    pub(super) fn drop_job(&mut self) {
        if let Some(job) = &self.job {
            job.cancel();
            self.job_done();
        }
    }
}
