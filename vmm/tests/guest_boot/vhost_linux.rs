//! Linux guests with devices whose queues another process serves: a folder of the host (QEMU's virtiofsd), which the guest
//! mounts, reads and writes; and a disk whose backend is killed with many requests under way.

use crate::linux::{BOOT, COMMAND_LINE, find_kernel, initramfs};
use crate::rig::{Setup, kvm_is_here, until};
use crate::vhost::Daemon;
use pilvi_vmm::control::{ClientError, Request};
use pilvi_vmm::migrate::Terms;
use serde_json::json;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

const DAEMON: &str = "/usr/lib/qemu/virtiofsd";

/// As few processes as can be: each costs a second of emulation.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t virtiofs folder /mnt && read line < /mnt/greeting && echo \"folder says $line\"
echo written by the guest > /mnt/answer
echo > /mnt/sub/new && echo sub has /mnt/sub/*
echo shell ready
exec /bin/busybox sh
";

fn daemon(folder: &Path, shared: &Path) -> Option<Daemon> {
    let socket = folder.join("fs");
    let mut command = Command::new(DAEMON);
    command.arg(format!("--socket-path={}", socket.display()));
    command.arg("-o").arg(format!("source={}", shared.display()));
    command.stderr(std::fs::File::create(folder.join("virtiofsd.log")).unwrap());
    Daemon::start(command, &socket, "qemu-system-common")
}

/// A machine that boots the kernel with ACPI, virtio-fs and several processors. None, with a line, where there is none.
pub fn linux(init: &str) -> Option<Setup> {
    let kernel = find_kernel("PILVI_TEST_KERNEL_HOTPLUG", "vmlinux.hotplug");
    let (Some(kernel), Ok(busybox)) = (kernel, std::fs::read("/bin/busybox")) else {
        eprintln!("SKIPPED: no kernel with virtio-fs (tests/guest/kernel/build OUT hotplug) or no /bin/busybox");
        return None;
    };
    if !kvm_is_here() {
        return None;
    }
    let mut setup = Setup::new("");
    std::fs::write(setup.path("initramfs"), initramfs(&busybox, init)).unwrap();
    setup.config["memory_mib"] = json!(128);
    setup.config["transport"] = json!("pci");
    setup.config["kernel"] = json!({"path": kernel});
    setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
    setup.config["cmdline"] = json!(format!("{COMMAND_LINE} no-kvmclock"));
    setup.config["cpu_mask"] = json!(pilvi_vmm::probe::probe().cpu_mask());
    Some(setup)
}

#[test]
fn linux_mounts_a_folder_of_the_host() {
    let Some(mut setup) = linux(INIT) else { return };
    let shared = setup.path("shared");
    std::fs::create_dir_all(shared.join("sub")).unwrap();
    std::fs::write(shared.join("greeting"), "good evening\n").unwrap();
    let Some(served) = daemon(setup.dir.path(), &shared) else { return };
    setup.config["shares"] = json!([{"tag": "folder", "socket": {"path": served.socket}}]);
    setup.config["user"] = json!({"uid": 65534, "gid": 65534});
    let mut guest = setup.start();
    guest.expect_within("shell ready", BOOT);
    let console = guest.console();
    assert!(console.contains("folder says good evening") && console.contains("sub has /mnt/sub/new"), "{console}");
    assert_eq!(std::fs::read(shared.join("answer")).unwrap(), b"written by the guest\n");
    let mut client = guest.client();
    // What the host writes is seen; a pause in between loses nothing.
    client.pause().unwrap();
    std::fs::write(shared.join("later"), "good night\n").unwrap();
    // What the backend knows of open files is nowhere else.
    let files = ["state", "memory"].map(|name| std::fs::File::create(guest.setup.path(name)).unwrap());
    let Err(ClientError::Refused(reason)) = client.snapshot(&files[0], &files[1]) else { panic!() };
    assert!(reason.contains("open files"), "{reason}");
    client.resume().unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let Err(ClientError::Refused(reason)) = client.migrate(stream.as_raw_fd(), Terms::default()) else { panic!() };
    assert!(reason.contains("open files"), "{reason}");
    client.console_write(b"read line < /mnt/later; echo \"it says $line\"\n").unwrap();
    guest.expect_within("it says good night", BOOT);
    // Another folder comes while it runs, and its driver finds it.
    let (second, place) = (guest.setup.path("second"), guest.setup.path("place"));
    for folder in [&second, &place] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(second.join("greeting"), "good day\n").unwrap();
    let Some(other) = daemon(&place, &second) else { return };
    let socket = UnixStream::connect(&other.socket).unwrap();
    let add = Request::AddShare { tag: "other".into(), name: None };
    client.ask_with(&add, &[socket.as_raw_fd()]).unwrap();
    drop(socket);
    client.console_write(b"until /bin/busybox mount -t virtiofs other /proc; do :; done; read line < /proc/greeting; echo \"other says $line\"\n").unwrap();
    guest.expect_within("other says good day", BOOT);
    client.console_write(b"/bin/busybox umount /proc; echo let 'go'\n").unwrap();
    guest.expect_within("let go", BOOT);
    let remove = Request::Remove { device: "share1".into() };
    until("the guest to let go", BOOT, || client.ask_with(&remove, &[]).is_ok());
    client.kill().unwrap();
    guest.ends_with(5);
}

/// As few processes as can be.
const INIT_DISK: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
echo shell ready
exec /bin/busybox sh
";

/// Bytes that the guest writes.
const WRITTEN: usize = 4 << 20;

/// How often a thread of this process has gone to sleep.
fn switches(process: u32, thread: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap().path());
    let named = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).unwrap().trim_end() == thread;
    let task = tasks.filter(named).collect::<Vec<_>>();
    assert_eq!(task.len(), 1, "one thread is called {thread}");
    let status = std::fs::read_to_string(task[0].join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// The daemon keeps no notes of requests under way: what was not answered is told from the rings.
#[test]
fn linux_writes_on_when_the_backend_of_its_disk_was_killed_in_the_middle() {
    let Some(mut setup) = linux(INIT_DISK) else { return };
    let disk = setup.path("disk.raw");
    std::fs::File::create(&disk).unwrap().set_len(WRITTEN as u64).unwrap();
    let folder = setup.dir.path().to_owned();
    // Slow, so that requests wait in it when it is killed.
    let slow = ",iops=20";
    let Some(mut served) = Daemon::disk(&folder, "disk", &disk, slow) else { return };
    setup.config["disks"] = json!([{"source": {"path": served.socket}, "engine": "vhost_user", "queues": 2}]);
    setup.config["vcpus"] = json!(2);
    let mut guest = setup.start();
    guest.expect_within("shell ready", BOOT);
    let mut client = guest.client();
    // Interrupts do not pass through this process: its thread for the disk sleeps while the guest reads.
    let before = switches(guest.child.id(), "disk0");
    client
        .console_write(b"/bin/busybox dd if=/dev/vda of=/dev/null bs=512 count=60 iflag=direct; echo read 'them'\n")
        .unwrap();
    guest.expect_within("read them", BOOT);
    let woken = switches(guest.child.id(), "disk0") - before;
    assert!(woken < 30, "{woken} times awake for 60 requests");
    let command = format!(
        "/bin/busybox yes pilvi-- | /bin/busybox dd of=/dev/vda bs=64k count={} iflag=fullblock conv=fsync; echo wrote 'all'\n",
        WRITTEN >> 16
    );
    client.console_write(command.as_bytes()).unwrap();
    for _ in 0..3 {
        let filled = || std::fs::metadata(&disk).unwrap().blocks();
        let before = filled();
        until("some of it to be written", BOOT, || filled() > before + 64 || guest.console().contains("wrote all"));
        served.child.kill().unwrap();
        served.child.wait().unwrap();
        served = Daemon::disk(&folder, "disk", &disk, slow).unwrap();
        let again = Request::ReconnectDisk { device: "disk0".into() };
        client.ask_with(&again, &[UnixStream::connect(&served.socket).unwrap().as_raw_fd()]).unwrap();
    }
    guest.expect_within("wrote all", BOOT);
    let console = guest.console();
    assert!(!console.contains("is not a head") && !console.contains("I/O error"), "{console}");
    let bytes = std::fs::read(&disk).unwrap();
    assert!(bytes == b"pilvi--\n".repeat(WRITTEN / 8), "something was lost");
    client.kill().unwrap();
    guest.ends_with(5);
}
