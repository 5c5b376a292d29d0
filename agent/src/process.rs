//! Guest processes: started in a session of their own, never ended by the end of the agent, and
//! found again by whoever comes after it.
//!
//! ```text
//! spawn -> [ process with PILVI_GUEST=<instance folder> in its environment ] -> record in <folder>/process
//! recall: the record, if that pid still has that start time in this boot (pid reuse is noticed)
//! find:   every process that carries the mark, record or not: an agent that was killed between
//!         spawn and record leaves no orphan
//! spawn_beside: a second process of the instance, which is not the recorded one (yet)
//! ```
use crate::durable::{self, Loaded};
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const MARK: &str = "PILVI_GUEST";
const SETSID: &str = "/usr/bin/setsid";
/// How much of a process' environment is searched, in bytes.
const ENVIRONMENT_LIMIT: u64 = 64 << 10;
/// How long a killed process may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// One process, told apart from a later one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks between boot and its start.
    pub start: u64,
    /// Boot id of the host.
    pub boot: String,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, ...
    pub state: char,
    pub start: u64,
    /// Clock ticks in user and system mode.
    pub cpu_ticks: u64,
    /// Resident pages.
    pub pages: u64,
}

/// Boot id of this host: changes when it reboots.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// What the kernel says of `pid`; `None` when there is no such process.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold anything, ')' and spaces among it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        start: number(19)?,
        cpu_ticks: number(11)? + number(12)?,
        pages: number(21)?,
    })
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

impl Identity {
    fn of(pid: i32) -> Option<Self> {
        let stat = stat(pid).filter(|s| match s.state {
            // The first thread is over, but the others keep files, taps among them, open until they are.
            'Z' => threads(pid) > 1,
            state => state != 'X',
        })?;
        Some(Self { pid, start: stat.start, boot: boot_id() })
    }

    /// Whether that very process still runs (a zombie whose threads are gone does not).
    #[must_use]
    pub fn alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }

    /// Sends a signal if that very process still runs.
    ///
    /// # Errors
    /// What the kernel says, such as a missing permission.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The recorded process of the instance in `dir`, if it still runs.
#[must_use]
pub fn recall(dir: &Path) -> Option<Identity> {
    let Ok(Loaded::Sound(body)) = durable::load(&dir.join("process")) else {
        return None;
    };
    let identity: Identity = serde_json::from_slice(&body).ok()?;
    identity.alive().then_some(identity)
}

/// Looks for a process of the instance in `dir` that its record does not tell of, and records it:
/// a guest is not given up because a file was lost. Reads all of /proc.
///
/// # Errors
/// Whatever the file system says.
pub fn recover(dir: &Path) -> io::Result<Option<Identity>> {
    match find(dir).into_iter().next() {
        Some(found) => record(dir, &found).map(|()| Some(found)),
        None => Ok(None),
    }
}

/// Records which process is the instance's in `dir`.
///
/// # Errors
/// Whatever the file system says.
pub fn record(dir: &Path, identity: &Identity) -> io::Result<()> {
    let body = serde_json::to_vec(identity).map_err(io::Error::other)?;
    durable::save(&dir.join("process"), &body)
}

/// Every process that was started for the instance in `dir`, recorded or not.
#[must_use]
pub fn find(dir: &Path) -> Vec<Identity> {
    let mut mark = format!("{MARK}=").into_bytes();
    mark.extend(dir.as_os_str().as_bytes());
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let mut environment = Vec::new();
            File::open(format!("/proc/{pid}/environ"))
                .and_then(|f| f.take(ENVIRONMENT_LIMIT).read_to_end(&mut environment))
                .is_ok_and(|_| environment.split(|b| *b == 0).any(|word| word == mark))
        })
        .filter_map(Identity::of)
        .collect()
}

/// Name of the file with what a process says.
pub const OUTPUT: &str = "output";

/// Starts `argv` for the instance in `dir`, with `fds` as its file descriptors 3, 4, ..., its
/// output in `<dir>/output`, and records it.
///
/// # Errors
/// Whatever the kernel says, such as a program that is not there.
pub fn spawn(dir: &Path, argv: &[OsString], fds: Vec<OwnedFd>) -> io::Result<Identity> {
    let identity = spawn_beside(dir, argv, fds, OUTPUT)?;
    record(dir, &identity)?;
    Ok(identity)
}

/// As [`spawn`], with the output in `<dir>/<output>`, and without recording it.
///
/// # Errors
/// As of [`spawn`].
pub fn spawn_beside(dir: &Path, argv: &[OsString], fds: Vec<OwnedFd>, output: &str) -> io::Result<Identity> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::other("no program to start"));
    };
    let mut output = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(output))?;
    output.set_len(0)?;
    // setsid execs the program in the same process, out of reach of the terminal's signals.
    let mut command = if Path::new(SETSID).exists() {
        let mut command = Command::new(SETSID);
        command.arg(program);
        command
    } else {
        let mut command = Command::new(program);
        command.process_group(0);
        command
    };
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env(MARK, dir)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    let mappings = (3..).zip(fds).map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
    let mut child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let identity = pid.and_then(Identity::of);
    // Someone must wait for the child, or it stays as a zombie for the life of the agent.
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await
            && !status.success()
        {
            let _ = writeln!(output, "({status})");
        }
    });
    identity.ok_or_else(|| io::Error::other("it ended at once"))
}

/// Ends every process of the instance in `dir` for good and waits until they are gone.
///
/// # Errors
/// When one does not go within 20 seconds.
pub async fn end(dir: &Path) -> io::Result<()> {
    let deadline = tokio::time::Instant::now() + KILL_LIMIT;
    loop {
        let mut left = find(dir);
        left.extend(recall(dir));
        if left.is_empty() {
            return durable::remove(&dir.join("process"));
        }
        for identity in &left {
            identity.signal(Signal::SIGKILL)?;
        }
        if tokio::time::Instant::now() > deadline {
            let pid = left[0].pid;
            return Err(io::Error::other(format!("process {pid} cannot be ended")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The end of what the instance's process wrote to its standard output and error.
#[must_use]
pub fn output(dir: &Path) -> String {
    output_in(dir, OUTPUT)
}

/// The same of one whose output is elsewhere.
#[must_use]
pub fn output_in(dir: &Path, name: &str) -> String {
    let bytes = fs::read(dir.join(name)).unwrap_or_default();
    let from = bytes.len().saturating_sub(600);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_is_parsed() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 100 20 13 14 15 16 17 18 777 20 21 22";
        let stat = parse_stat(&format!("12 (a) b) Z 9) {tail}")).unwrap();
        assert_eq!((stat.state, stat.start, stat.cpu_ticks, stat.pages), ('S', 777, 120, 21));
        assert_eq!(parse_stat("12 (x"), None);
        assert_eq!(parse_stat("12 (x) S 1"), None);
    }

    #[tokio::test]
    async fn found_without_a_record_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let argv = ["sleep".into(), "600".into()];
        let identity = spawn(dir.path(), &argv, Vec::new()).unwrap();
        assert_eq!(recall(dir.path()), Some(identity.clone()));
        fs::remove_file(dir.path().join("process")).unwrap();
        assert_eq!(recall(dir.path()), None);
        // Between fork and exec the mark is not there yet.
        for _ in 0..100 {
            if !find(dir.path()).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(find(dir.path()), std::slice::from_ref(&identity));
        end(dir.path()).await.unwrap();
        assert!(!identity.alive() && find(dir.path()).is_empty());
        end(dir.path()).await.unwrap();
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(!Identity { start: me.start + 1, ..me.clone() }.alive());
        assert!(!Identity { boot: "other".into(), ..me }.alive());
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let gone = spawn(dir.path(), &["/nonexistent/qemu".into()], Vec::new());
        // With setsid the failure shows as a process that ends at once.
        if gone.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(recall(dir.path()), None);
            assert!(output(dir.path()).contains("nonexistent"));
        }
    }
}
