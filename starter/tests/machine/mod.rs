//! A QEMU machine for tests of the image: pure emulation, user-mode network on loopback, the console as lines in a
//! channel, QMP for the power button. It dies with its value.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How the machine finds the kernel.
pub enum Boot<'a> {
    SeaBios,
    /// Kernel, initrd, command line.
    Direct(&'a Path, &'a Path, &'a str),
}

pub struct Machine {
    qemu: Child,
    console: Receiver<String>,
    /// Everything that the console said so far.
    pub seen: Vec<String>,
    folder: PathBuf,
    port: u16,
    started: Instant,
}

/// A loopback port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Machine {
    /// Starts a machine with `disk`; `network` goes into QEMU's user network, `more` are further arguments.
    pub fn start(folder: &Path, boot: &Boot, machine: &str, disk: &Path, network: &str, more: &[String]) -> Machine {
        let port = free_port();
        let comma = if network.is_empty() { "" } else { "," };
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-machine", machine, "-cpu", "max", "-smp", "2", "-m", "256"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", folder.join("qmp").display())])
            .args(["-drive", &format!("if=none,id=root,format=raw,cache=unsafe,file={}", disk.display())])
            .args(["-device", "virtio-blk-pci,drive=root", "-device", "virtio-rng-pci"])
            .args(["-netdev", &format!("user,id=net{comma}{network},hostfwd=tcp:127.0.0.1:{port}-:22")])
            .args(["-device", "virtio-net-pci,netdev=net,romfile="])
            .args(more);
        if let Boot::Direct(kernel, initrd, line) = boot {
            command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", line]);
        }
        let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(qemu.stdout.take().unwrap());
        let (sender, console) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).trim().to_owned()).is_err() {
                    break;
                }
            }
        });
        Machine { qemu, console, seen: Vec::new(), folder: folder.to_path_buf(), port, started: Instant::now() }
    }

    /// Reads the console until a line contains `marker`; gives that line.
    pub fn wait_for(&mut self, marker: &str, seconds: u64) -> String {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            match self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(marker) {
                        eprintln!("{:6.2} s  {line}", self.started.elapsed().as_secs_f64());
                        return line;
                    }
                }
                Err(error) => panic!("no {marker:?} on the console ({error}); it said:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Runs a command in the guest. The first login notes the host key; another key later is refused by ssh.
    pub fn ssh_output(&self, command: &str) -> Output {
        let known = format!("UserKnownHostsFile={}", self.folder.join("known_hosts").display());
        Command::new("ssh")
            .arg("-i")
            .arg(self.folder.join("key"))
            .args(["-p", &self.port.to_string(), "-o", &known, "-o", "StrictHostKeyChecking=accept-new"])
            // The port differs from boot to boot, the guest does not.
            .args([
                "-o",
                "HostKeyAlias=guest",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "ConnectTimeout=10", "-o", "ConnectionAttempts=3", "cirros@127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// True if the password opens a login that can run a command.
    pub fn ssh_password(&self, password: &str, command: &str) -> bool {
        use std::os::unix::fs::PermissionsExt;
        let ask = self.folder.join("ask");
        std::fs::write(&ask, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        std::fs::set_permissions(&ask, std::fs::Permissions::from_mode(0o700)).unwrap();
        let known = format!("UserKnownHostsFile={}", self.folder.join("known_hosts").display());
        let status = Command::new("ssh")
            .args([
                "-p",
                &self.port.to_string(),
                "-o",
                &known,
                "-o",
                "HostKeyAlias=guest",
                "-o",
                "PubkeyAuthentication=no",
            ])
            .args(["-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR", "cirros@127.0.0.1", command])
            .env("SSH_ASKPASS", &ask)
            .env("SSH_ASKPASS_REQUIRE", "force")
            .stdin(Stdio::null())
            .status();
        status.unwrap().success()
    }

    /// What a command in the guest printed; it must succeed.
    pub fn ssh(&self, command: &str) -> String {
        let output = self.ssh_output(command);
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{command}: {text} {}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// One QMP command, as `"execute": ...` without the braces.
    pub fn qmp(&self, command: &str) {
        let mut stream = UnixStream::connect(self.folder.join("qmp")).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for text in ["\"execute\":\"qmp_capabilities\"", command] {
            writeln!(stream, "{{{text}}}").unwrap();
            let answer = lines
                .by_ref()
                .map(Result::unwrap)
                .find(|l| l.contains("\"return\"") || l.contains("\"error\""))
                .unwrap();
            assert!(!answer.contains("\"error\""), "{answer}");
        }
    }

    /// Waits until QEMU ends by itself (its end of the console closes).
    pub fn wait_off(mut self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while let Ok(line) = self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
        assert!(Instant::now() < end, "still running; the console said:\n{}", self.seen.join("\n"));
        assert!(self.qemu.wait().unwrap().success());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
