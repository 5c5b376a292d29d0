//! Starts machines for tests: builds the guest once, writes a configuration, waits for console lines.

use pilvi_vmm::control::Client;
use pilvi_vmm::state::Report;
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longest wait for anything the freestanding guest does, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The freestanding guest's kernel file, built on first use.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| {
        if let Some(path) = std::env::var_os("PILVI_TEST_GUEST") {
            return PathBuf::from(path);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guest/build");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
        let output = Command::new(script).arg(target).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the freestanding guest does not build");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    })
}

/// False, with a line that says so, where no guest can run.
pub fn kvm_is_here() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| {
        let probe = pilvi_vmm::probe::probe();
        if !probe.usable {
            eprintln!("SKIPPED: no guest can run here: {}", probe.reason);
        }
        probe.usable
    })
}

/// Waits a little without a busy loop.
pub fn rest(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Waits until `done`, or fails with `what`.
pub fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        rest(Duration::from_millis(5));
    }
}

/// A machine to be.
pub struct Setup {
    pub dir: tempfile::TempDir,
    pub config: Value,
    pub sandbox: bool,
    /// More words for the command line.
    pub arguments: Vec<std::ffi::OsString>,
    pub inherited: Vec<OwnedFd>,
}

impl Setup {
    /// 32 MiB, one processor, the freestanding guest with this command line.
    pub fn new(cmdline: &str) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| json!({"path": dir.path().join(name)});
        let config = json!({
            "id": "test", "vcpus": 1, "memory_mib": 32, "kernel": {"path": guest()}, "cmdline": cmdline,
            "control_socket": path("control"), "console": {"log": path("console.log")}, "report": path("report"),
        });
        Setup { dir, config, sandbox: true, arguments: Vec::new(), inherited: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Adds a disk of one MiB whose first sector is known. Returns its path.
    pub fn with_disk(&mut self, read_only: bool) -> PathBuf {
        let path = self.path("disk.raw");
        let mut bytes = vec![0u8; 1 << 20];
        bytes[..12].copy_from_slice(b"FIRST-SECTOR");
        std::fs::write(&path, bytes).unwrap();
        self.config["disks"] = json!([{"source": {"path": path}, "read_only": read_only}]);
        path
    }

    /// Hands a descriptor over; its number for the configuration.
    pub fn inherit(&mut self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        self.inherited.push(fd);
        number
    }

    /// Starts the program.
    pub fn start(self) -> Running {
        let config = self.path("config.json");
        std::fs::write(&config, self.config.to_string()).unwrap();
        let log = File::create(self.path("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pilvi-vmm"));
        command
            .arg("--config")
            .arg(config)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if !self.sandbox {
            command.arg("--no-sandbox");
        }
        let numbers: Vec<i32> = self.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec only fcntl is called, on descriptors that the parent holds open.
        unsafe {
            command.pre_exec(move || {
                for fd in &numbers {
                    libc::fcntl(*fd, libc::F_SETFD, 0);
                }
                Ok(())
            });
        }
        Running { child: command.spawn().unwrap(), setup: self }
    }
}

/// A running machine; it is killed when the test forgets it.
pub struct Running {
    pub child: Child,
    pub setup: Setup,
}

impl Running {
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.setup.path("console.log")).unwrap_or_default()).into_owned()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.setup.path("stderr")).unwrap_or_default()
    }

    /// Waits until the console has `text`.
    pub fn expect(&mut self, text: &str) {
        self.expect_within(text, PATIENCE);
    }

    pub fn expect_within(&mut self, text: &str, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.console().contains(text) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() && self.console().contains(text) {
                return;
            }
            let said = || format!("console:\n{}\nstderr:\n{}", self.console(), self.stderr());
            assert!(ended.is_none() && Instant::now() < end, "no {text:?} ({ended:?}); {}", said());
            rest(Duration::from_millis(5));
        }
    }

    /// A connection to the control socket, as soon as it is there.
    pub fn client(&mut self) -> Client {
        let path = self.setup.path("control");
        let end = Instant::now() + PATIENCE;
        loop {
            match Client::connect(&path) {
                Ok(client) => return client,
                Err(e) => {
                    assert!(Instant::now() < end && self.child.try_wait().unwrap().is_none(), "{e} {}", self.stderr())
                }
            }
            rest(Duration::from_millis(5));
        }
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "does not end; console:\n{}\nstderr:\n{}", self.console(), self.stderr());
            rest(Duration::from_millis(5));
        }
    }

    /// Waits for this exit code.
    pub fn ends_with(&mut self, code: i32) {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "console:\n{}\nstderr:\n{}", self.console(), self.stderr());
    }

    pub fn report(&self) -> Report {
        serde_json::from_slice(&std::fs::read(self.setup.path("report")).unwrap()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
