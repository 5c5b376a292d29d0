//! One running `pilvi`: its output in a file, its process id, its signals.
//!
//! ```text
//!  start --> running --SIGINT--> ended (exit status)
//!               |  ^--SIGCONT--- frozen (SIGSTOP)
//!               '--SIGKILL--> gone, as at a crash
//! ```
use crate::pause;
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

#[derive(Debug)]
pub struct Program {
    child: Child,
    started: Instant,
    /// Output of this and earlier starts under the same name.
    pub log: PathBuf,
    /// Where in the log this start begins.
    from: usize,
}

impl Program {
    /// Starts `program` with its output appended to `log`.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let from = fs::metadata(log).map_or(0, |m| usize::try_from(m.len()).unwrap_or(0));
        let file = File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| program.display().to_string())?;
        Ok(Program { child, started: Instant::now(), log: log.to_owned(), from })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written since it started.
    #[must_use]
    pub fn said(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.from..).unwrap_or_default()).into_owned()
    }

    /// Waits for a line that holds `text`; gives the line and the time since the start.
    pub fn wait_line(&mut self, text: &str, patience: Duration) -> Result<(String, Duration)> {
        let end = Instant::now() + patience;
        loop {
            if let Some(line) = self.said().lines().find(|l| l.contains(text)) {
                return Ok((line.to_owned(), self.started.elapsed()));
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) before it said {text:?}:\n{}", self.said());
            }
            if Instant::now() > end {
                bail!("it did not say {text:?} in {} s:\n{}", patience.as_secs(), self.said());
            }
            pause(Duration::from_millis(30));
        }
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, as Ctrl-C does, and waits.
    pub fn interrupt(mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGINT)?;
        self.wait_exit(patience)
    }

    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("it did not end in {} s:\n{}", patience.as_secs(), self.said());
            }
            pause(Duration::from_millis(30));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
