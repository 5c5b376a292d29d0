//! A running guest moves into another process of its host: one of the build of pilvi-vmm that is installed now.
//!
//! ```text
//!  upgrade   mark (which process is the former) -> spawn the next, which waits -> the former hands the guest over, or
//!            copies its memory where that cannot be handed -> settle
//!  settle    former      next
//!            runs        any       stays      the next one is ended
//!            stands      runs      switched   the former one is ended; names, record: the next one's
//!            stands      gone      ended      it was told to run the guest, and whether it did nobody knows
//!            gone        runs      switched
//!            gone        waits     (hung up on, it ends)
//!            gone        gone      ended      as whoever had it last says
//! ```
//! The mark stays until all that is done, so whoever comes after an agent that was killed just settles. The VMM has the
//! last word, as in any migration: the former one goes on by itself until the next one has said that it could run the guest, and
//! stands still for good once it has told it to.
use super::{CONFIG, Kvm, Names, REPORT, SOCKET, START_LIMIT, ask, ask_at, failed, io, moving, report};
use crate::runtime::{Guest, Machine, Program, RuntimeError, Settled};
use crate::socket::Short;
use crate::{durable, process};
use nix::sys::signal::Signal;
use pilvi_vmm::control::{Client, Status};
use pilvi_vmm::migrate::Terms;
use pilvi_vmm::state::{RunState, StopReason};
use process::Identity;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Names of the process that the guest moves into, until it has.
const NEXT: Names = Names {
    socket: "vmm.next",
    config: "vmm.json.next",
    report: "vmm-report.next",
    output: "output.next",
    incoming: true,
};
const MARK: &str = "upgrading";
const LOOK: Duration = Duration::from_millis(20);
/// How long two processes may take to be one again, once none of them sends.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long it is believed which build is installed.
const NEWEST_KEPT: Duration = Duration::from_secs(30);
const VERSION_LIMIT: Duration = Duration::from_secs(20);
/// What a copy may take beside the guest's memory.
const COPY_MARGIN_MIB: u64 = 64;

/// Whether an upgrade was begun in this folder and is not settled.
pub(super) fn is_begun(dir: &Path) -> bool {
    dir.join(MARK).exists()
}

/// Removes all that an upgrade may have left. There must be no process.
pub(super) fn forget(dir: &Path) -> std::io::Result<()> {
    [NEXT.socket, NEXT.config, NEXT.report, NEXT.output, moving::INCOMING, MARK]
        .iter()
        .try_for_each(|name| durable::remove(&dir.join(name)))
}

/// Whether memory that can be handed over costs a guest nothing: the kernel gives it huge pages where it is asked to.
pub(super) fn shared_is_as_good() -> bool {
    let told = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    ["[always]", "[within_size]", "[advise]", "[force]"].iter().any(|word| told.contains(word))
}

/// The build that is installed, as it was found last.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<Option<(Instant, String)>>);

/// What is seen of the former process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Former {
    Gone,
    /// The guest is on its way.
    Sends,
    Runs,
    /// The next one was told to run the guest, and did not answer.
    Stands,
    Mute,
}

/// And of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Gone,
    Runs,
    /// It waits for the guest, or is about to run it or to end.
    Mute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Stays,
    Switched,
    /// Nobody has the guest, and nobody may go on with it.
    Ended,
    /// It will be seen.
    Wait,
    /// The next one may wait for somebody who will not come.
    HangUp,
}

/// See the head of this file.
fn judge(former: Former, next: Next) -> Verdict {
    match (former, next) {
        (Former::Runs, _) => Verdict::Stays,
        (Former::Stands | Former::Gone, Next::Runs) => Verdict::Switched,
        (Former::Stands | Former::Gone, Next::Gone) => Verdict::Ended,
        (Former::Gone, Next::Mute) => Verdict::HangUp,
        (Former::Sends | Former::Mute, _) | (Former::Stands, Next::Mute) => Verdict::Wait,
    }
}

fn former_of(status: &Status) -> Former {
    match status.state {
        RunState::Stopped => Former::Mute,
        _ if status.migration.is_some() => Former::Sends,
        RunState::Paused => Former::Stands,
        // One that begins anew has dropped the move.
        RunState::Running | RunState::Starting => Former::Runs,
    }
}

fn named(version: &str, build: &str) -> String {
    format!("pilvi-vmm {version} ({build})")
}

impl Kvm {
    /// What `--version` of the installed VMM says.
    async fn newest(&self) -> Result<String, RuntimeError> {
        let kept = self.newest.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some((_, name)) = kept.filter(|(at, _)| at.elapsed() < NEWEST_KEPT) {
            return Ok(name);
        }
        let (program, arguments) = self.command.split_first().ok_or_else(|| failed("pilvi-vmm is not configured"))?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(VERSION_LIMIT, command.output()).await;
        let output = output.map_err(|_| failed("pilvi-vmm --version did not end"))?.map_err(io("pilvi-vmm"))?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || name.is_empty() || name.len() > 200 {
            return Err(failed(format!("pilvi-vmm --version ended with {}", output.status)));
        }
        *self.newest.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some((Instant::now(), name.clone()));
        Ok(name)
    }

    pub(super) async fn program_of(&self, guest: &Guest) -> Result<Program, RuntimeError> {
        let status = ask(guest, Client::status).await?;
        let (name, newest) = (named(&status.version, &status.build), self.newest().await?);
        let newer = (name != newest).then_some(newest);
        Ok(Program { name, newer })
    }

    pub(super) async fn move_up(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let former = process::recall(&guest.dir).ok_or_else(|| failed("the guest does not run"))?;
        let status = ask(guest, Client::status).await?;
        if status.state != RunState::Running || status.migration.is_some() {
            return Err(failed("only a guest that runs and is on no way can move into another process"));
        }
        let mark = serde_json::to_vec(&former).map_err(|e| failed(e.to_string()))?;
        durable::save(&guest.dir.join(MARK), &mark).map_err(io("mark"))?;
        let handed = self.hand_over(guest, machine, &former).await;
        match (self.settle(guest).await?, handed) {
            (Settled::Switched | Settled::Ended, _) => Ok(()),
            (Settled::Stays, Err(error)) => Err(error),
            (Settled::Stays, Ok(())) => Err(failed("the guest did not move")),
        }
    }

    async fn hand_over(&self, guest: &Guest, machine: Machine, former: &Identity) -> Result<(), RuntimeError> {
        let handed = is_shared(&guest.dir);
        if !handed {
            let resident = process::stat(former.pid).map_or(0, |stat| (stat.pages * page_bytes()) >> 20);
            has_room(resident.min(machine.memory_mib) + COPY_MARGIN_MIB)?;
        }
        let next = self.spawn_as(guest, machine, &NEXT, self.shared || handed)?;
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        // The last of its doors that opens.
        while !guest.dir.join(NEXT.socket).exists() {
            if !next.alive() || tokio::time::Instant::now() > deadline {
                let said = process::output_in(&guest.dir, NEXT.output);
                return Err(failed(format!("the other pilvi-vmm does not wait for the guest: {said}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        let door = Short::to(&guest.dir, moving::INCOMING).map_err(io("instance folder"))?;
        let stream = UnixStream::connect(door.path()).map_err(io("the other pilvi-vmm"))?;
        ask(guest, move |client| match handed {
            true => client.hand_over(stream.as_raw_fd()),
            false => client.migrate(stream.as_raw_fd(), Terms::default()),
        })
        .await
    }

    /// Looks until it is clear who has the guest, then has nothing left of the other.
    pub(super) async fn settle(&self, guest: &Guest) -> Result<Settled, RuntimeError> {
        let durable::Loaded::Sound(mark) = durable::load(&guest.dir.join(MARK)).map_err(io("mark"))? else {
            return self.settle_without_mark(guest).await;
        };
        let former: Identity = serde_json::from_slice(&mark).map_err(|e| failed(e.to_string()))?;
        let mut deadline = Instant::now() + SETTLE_LIMIT;
        loop {
            let seen = look(guest, &former).await?;
            match judge(seen.0, seen.1) {
                Verdict::Stays => return stays(guest, &former).await,
                Verdict::Switched => return switched(guest, &former).await,
                Verdict::Ended => return ended(guest, &former).await,
                Verdict::HangUp => {
                    let door = Short::to(&guest.dir, moving::INCOMING).map_err(io("instance folder"))?;
                    drop(UnixStream::connect(door.path()));
                }
                Verdict::Wait if seen.0 == Former::Sends => deadline = Instant::now() + SETTLE_LIMIT,
                Verdict::Wait => {}
            }
            if Instant::now() > deadline {
                return Err(failed(format!("two processes of the guest do not come to terms: {seen:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A mark that says nothing was damaged: only one process may have the guest, and the record says which it was.
    async fn settle_without_mark(&self, guest: &Guest) -> Result<Settled, RuntimeError> {
        match process::recall(&guest.dir) {
            Some(former) => {
                let mark = serde_json::to_vec(&former).map_err(|e| failed(e.to_string()))?;
                durable::save(&guest.dir.join(MARK), &mark).map_err(io("mark"))?;
            }
            None => forget(&guest.dir).map_err(io("mark"))?,
        }
        Err(failed("the note about an upgrade was damaged"))
    }
}

/// The processes as they are now. The former one is looked at first: what it is then, decides what the next can be.
async fn look(guest: &Guest, former: &Identity) -> Result<(Former, Next), RuntimeError> {
    let first = if former.alive() {
        match ask(guest, Client::status).await {
            Ok(status) => former_of(&status),
            Err(_) if former.alive() => Former::Mute,
            Err(_) => Former::Gone,
        }
    } else {
        Former::Gone
    };
    if !matches!(first, Former::Stands | Former::Gone) {
        return Ok((first, Next::Mute));
    }
    let next = others(guest, former).await?;
    if next.is_empty() {
        return Ok((first, Next::Gone));
    }
    // Its socket may have been given its name already.
    let name = if guest.dir.join(NEXT.socket).exists() { NEXT.socket } else { SOCKET };
    let question = tokio::time::timeout(Duration::from_secs(2), ask_at(guest, name, Client::status)).await;
    let answers = matches!(question, Ok(Ok(status)) if next.iter().any(|p| p.pid.unsigned_abs() == status.pid));
    Ok((first, if answers { Next::Runs } else { Next::Mute }))
}

/// The guest's processes but the former one.
async fn others(guest: &Guest, former: &Identity) -> Result<Vec<Identity>, RuntimeError> {
    let folder = guest.dir.clone();
    let found = tokio::task::spawn_blocking(move || process::find(&folder)).await;
    let found = found.map_err(|e| failed(e.to_string()))?;
    Ok(found.into_iter().filter(|process| process != former).collect())
}

async fn end(processes: Vec<Identity>) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + START_LIMIT;
    for process in processes {
        while process.alive() {
            process.signal(Signal::SIGKILL).map_err(io("kill"))?;
            if Instant::now() > deadline {
                return Err(failed(format!("process {} cannot be ended", process.pid)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

async fn stays(guest: &Guest, former: &Identity) -> Result<Settled, RuntimeError> {
    end(others(guest, former).await?).await?;
    forget(&guest.dir).map_err(io("its files"))?;
    Ok(Settled::Stays)
}

async fn switched(guest: &Guest, former: &Identity) -> Result<Settled, RuntimeError> {
    let next = others(guest, former).await?;
    let next = next.first().ok_or_else(|| failed("the other pilvi-vmm has just ended"))?;
    process::record(&guest.dir, next).map_err(io("process record"))?;
    // It ends by itself, but for one that waits for an answer which it has missed.
    for _ in 0..50 {
        if !former.alive() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    end(vec![former.clone()]).await?;
    take_names(&guest.dir).map_err(io("its files"))?;
    forget(&guest.dir).map_err(io("its files"))?;
    Ok(Settled::Switched)
}

/// What the next one has is what the guest has.
fn take_names(dir: &Path) -> std::io::Result<()> {
    let pairs = [(NEXT.report, REPORT), (NEXT.config, CONFIG), (NEXT.output, process::OUTPUT), (NEXT.socket, SOCKET)];
    for (from, to) in pairs {
        match std::fs::rename(dir.join(from), dir.join(to)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

async fn ended(guest: &Guest, former: &Identity) -> Result<Settled, RuntimeError> {
    end(vec![former.clone()]).await?;
    let told = guest.dir.join(NEXT.report).metadata().is_ok_and(|file| file.len() > 0);
    if told || report(guest) == Some(StopReason::Moved) {
        // The next one had it, and says how it ended; if it could not, it was killed.
        take_names(&guest.dir).map_err(io("its files"))?;
    }
    forget(&guest.dir).map_err(io("its files"))?;
    Ok(Settled::Ended)
}

/// Whether the memory of the guest that runs can be handed over, as its VMM was told. Of another version's configuration no more is read.
fn is_shared(dir: &Path) -> bool {
    let told = std::fs::read(dir.join(CONFIG)).unwrap_or_default();
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
    told["shared_memory"] == true
}

fn page_bytes() -> u64 {
    let bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

/// Refuses a copy that would push the host's guests out of its memory.
fn has_room(mib: u64) -> Result<(), RuntimeError> {
    let told = std::fs::read_to_string("/proc/meminfo").map_err(io("meminfo"))?;
    match available_mib(&told) {
        Some(there) if there < mib => Err(failed(format!(
            "its memory cannot be handed over, and for a copy of {mib} MiB the host has {there} MiB left: with \
             vmm_shared_memory = true guests need none from their next start on"
        ))),
        _ => Ok(()),
    }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_has_the_guest_or_none() {
        use Former as F;
        for next in [Next::Gone, Next::Runs, Next::Mute] {
            // Whoever runs it keeps it, and nothing is done to one that is about to.
            assert_eq!(judge(F::Runs, next), Verdict::Stays);
            assert_eq!(judge(F::Sends, next), Verdict::Wait);
            assert_eq!(judge(F::Mute, next), Verdict::Wait);
        }
        for former in [F::Stands, F::Gone] {
            assert_eq!(judge(former, Next::Runs), Verdict::Switched);
            assert_eq!(judge(former, Next::Gone), Verdict::Ended, "it may have run there");
        }
        // Nobody who may be about to run it is sent away while there is somebody who could have told it to.
        assert_eq!(judge(F::Stands, Next::Mute), Verdict::Wait);
        assert_eq!(judge(F::Gone, Next::Mute), Verdict::HangUp);
    }

    #[test]
    fn a_copy_needs_room() {
        assert_eq!(available_mib("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2));
        assert_eq!(available_mib("MemTotal: 9 kB\n"), None);
        has_room(1).unwrap();
        assert!(has_room(u64::MAX >> 24).unwrap_err().to_string().contains("vmm_shared_memory"));
    }

    #[test]
    fn what_is_shared_is_read_of_any_version() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_shared(dir.path()));
        for (text, shared) in [("{\"shared_memory\": true, \"new\": 1}", true), ("{}", false), ("rubbish", false)] {
            std::fs::write(dir.path().join(CONFIG), text).unwrap();
            assert_eq!(is_shared(dir.path()), shared);
        }
    }

    #[test]
    fn nothing_is_left_when_names_were_taken() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(SOCKET, "old");
        write(NEXT.socket, "new");
        write(MARK, "");
        for _ in 0..2 {
            take_names(dir.path()).unwrap();
        }
        assert!(is_begun(dir.path()));
        forget(dir.path()).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [SOCKET]);
        assert_eq!(std::fs::read(dir.path().join(SOCKET)).unwrap(), b"new");
    }
}
