//! Linux on a disk with several queues: each processor has its own, each queue its own worker.

use crate::linux::BOOT;
use crate::rig::{Running, until};
use crate::snapshot;
use crate::vhost_linux::linux;
use serde_json::json;
use std::path::{Path, PathBuf};

/// As few processes as can be: each costs a second of emulation.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t sysfs none /sys
echo queues /sys/block/vda/mq/*
echo shell ready
exec /bin/busybox sh
";

/// Written by each of two processes.
const WRITTEN: usize = 2 << 20;

/// The names of the process' threads.
fn threads(guest: &Running) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", guest.child.id())).unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("comm"));
    tasks.filter_map(|task| name(task).ok()).map(|name| name.trim_end().to_owned()).collect()
}

/// Two processes write at once, and say so each.
fn write_by_two(guest: &mut Running, times: usize) {
    let count = WRITTEN >> 16;
    let half = |n: usize| {
        format!(
            "/bin/busybox yes pilvi-{n} | /bin/busybox taskset {} /bin/busybox dd of=/dev/vda bs=64k seek={} count={count} \
             iflag=fullblock oflag=direct conv=notrunc,fsync",
            1 << n,
            n * count
        )
    };
    let line =
        format!("for n in {}; do ({}) & {}; wait; done; echo wrote 'all'\n", "x ".repeat(times), half(0), half(1));
    guest.client().console_write(line.as_bytes()).unwrap();
}

fn check(disk: &Path) {
    let bytes = std::fs::read(disk).unwrap();
    for (n, half) in bytes.chunks(WRITTEN).enumerate() {
        assert!(half == format!("pilvi-{n}\n").repeat(WRITTEN / 8).as_bytes(), "half {n} is not whole");
    }
}

/// A guest of two processors that has come to its shell, and its disk. Where others take the machine's time Linux may find no timer
/// for the second, and leaves it off: none, then.
fn booted() -> Option<(Running, PathBuf)> {
    let mut setup = linux(INIT)?;
    let disk = setup.path("disk.raw");
    std::fs::File::create(&disk).unwrap().set_len(2 * WRITTEN as u64).unwrap();
    setup.config["disks"] = json!([{"source": {"path": disk}}]);
    setup.config["vcpus"] = json!(2);
    setup.config["user"] = json!({"uid": 65534, "gid": 65534});
    let guest = setup.start();
    const NO_TIMER: &str = "APIC timer disabled due to verification failure";
    until("the shell", BOOT, || ["shell ready", NO_TIMER].iter().any(|text| guest.console().contains(text)));
    (!guest.console().contains(NO_TIMER)).then_some((guest, disk))
}

#[test]
fn linux_has_a_queue_for_each_processor_and_each_has_a_worker() {
    let Some((mut guest, disk)) = (0..8).find_map(|_| booted()) else {
        return eprintln!("SKIPPED: this machine is so busy that Linux finds no timer for its processors");
    };
    assert!(guest.console().contains("queues /sys/block/vda/mq/0 /sys/block/vda/mq/1"), "{}", guest.console());
    let running = threads(&guest);
    assert!(["disk0-q0", "disk0-q1"].iter().all(|name| running.iter().any(|thread| thread == name)), "{running:?}");
    // Whole, while all queues are brought to rest again and again.
    write_by_two(&mut guest, 2);
    let mut client = guest.client();
    until("both to have written", BOOT, || {
        client.pause().unwrap();
        client.resume().unwrap();
        crate::rig::rest(std::time::Duration::from_millis(50));
        guest.console().contains("wrote all")
    });
    check(&disk);
    // Written down in the middle, and going on elsewhere over the same disk: without a number in the configuration it has those
    // that it had, even where there would be others by now.
    std::fs::write(&disk, vec![0; 2 * WRITTEN]).unwrap();
    write_by_two(&mut guest, 4);
    until("some of it", BOOT, || std::fs::read(&disk).unwrap().iter().filter(|byte| **byte != 0).count() > WRITTEN / 8);
    let (state, memory) = snapshot::save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut guest = snapshot::restored(&guest, &state, &memory, false).start();
    guest.expect_within("wrote all", BOOT);
    check(&disk);
    assert!(!guest.console().contains("I/O error"), "{}", guest.console());
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
