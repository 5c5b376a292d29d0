//! Linux whose processors and memory come and go: nobody helps it but for switching a processor on, which is a rule of the
//! system's own (udev has one). Wants the kernel that `tests/guest/kernel/build OUT hotplug` makes.

use crate::cpio::{CHARACTER_DEVICE, Cpio, SYMLINK};
use crate::linux::{BOOT, COMMAND_LINE, find_kernel};
use crate::rig::{Running, Setup, kvm_is_here, until};
use crate::{migrate, snapshot};
use pilvi_vmm::control::{ClientError, Reply, Request};
use pilvi_vmm::migrate::Terms;
use serde_json::json;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// As few processes as can be: each costs a second of emulation. The shell asks by words of its own.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t proc none /proc
cpus() { read n < /sys/devices/system/cpu/online; echo \"online <$n>\"; }
total() { read a t b < /proc/meminfo; echo \"total <$t>\"; }
on() { for cpu in /sys/devices/system/cpu/cpu[1-9]; do echo 1 > $cpu/online; done; cpus; }
cpus
total
echo shell ready
while read word; do $word; done
";

/// Types a line; what is then said between < and > after this word.
pub fn ask(guest: &mut Running, line: &str, word: &str) -> String {
    let times = guest.console().matches(&format!("{word} <")).count();
    guest.client().console_write(format!("{line}\n").as_bytes()).unwrap();
    until(line, BOOT, || guest.console().matches(&format!("{word} <")).count() > times);
    let mut found = None;
    until(line, BOOT, || {
        let console = guest.console();
        let said = console.rsplit(&format!("{word} <")).next().unwrap_or_default().split_once('>');
        found = said.map(|(said, _)| said.to_owned());
        found.is_some()
    });
    found.unwrap()
}

/// How many processors run. Which number one has is Linux's choice: it looks at several that come at once in any order.
fn online(guest: &mut Running, line: &str) -> usize {
    let said = ask(guest, line, "online");
    let number = |text: &str| text.parse::<usize>().unwrap();
    let stretch = |text: &str| text.split_once('-').map_or(1, |(first, last)| number(last) - number(first) + 1);
    said.split(',').map(stretch).sum()
}

fn total(guest: &mut Running) -> u64 {
    ask(guest, "total", "total").parse().unwrap()
}

/// Asks until the guest has come to it: it takes longer than an answer may where KVM emulates.
pub fn resize(guest: &mut Running, request: &Request) {
    let begin = Instant::now();
    until("the guest to have another size", BOOT, || match guest.client().ask(request) {
        Ok(Reply::Processors { .. } | Reply::Memory { .. }) => true,
        Err(ClientError::Refused(reason)) => {
            eprintln!("{reason}");
            assert!(reason.contains("not done so yet"), "{reason}; {}", guest.console());
            false
        }
        other => panic!("{other:?}"),
    });
    eprintln!("{request:?}: {:.1} s", begin.elapsed().as_secs_f64());
}

fn start(kernel: &std::path::Path, busybox: &[u8]) -> Running {
    let mut setup = Setup::new("");
    let mut archive = Cpio::default();
    for name in ["dev", "bin", "proc", "sys"] {
        archive.directory(name);
    }
    archive.add("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), b"");
    archive.program("bin/busybox", busybox).add("bin/sh", SYMLINK | 0o777, (0, 0), b"busybox");
    std::fs::write(setup.path("initramfs"), archive.program("init", INIT.as_bytes()).finish()).unwrap();
    setup.config["memory_mib"] = json!(128);
    (setup.config["vcpus"], setup.config["max_vcpus"]) = (json!(1), json!(3));
    setup.config["memory_hotplug"] = json!({"max_mib": 256});
    setup.config["transport"] = json!("pci");
    setup.config["kernel"] = json!({"path": kernel});
    setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
    // Memory that comes is for what can be moved away, or the kernel's own data would keep some of it for good.
    let movable = "memhp_default_state=online_movable";
    setup.config["cmdline"] = json!(format!("{COMMAND_LINE} no-kvmclock loglevel=6 {movable}"));
    setup.config["cpu_mask"] = json!(pilvi_vmm::probe::probe().cpu_mask());
    setup.start()
}

/// The guest once it has come to its shell. Where others take the machine's time, Linux measures its processors' timers against
/// the PIT, does not believe them, and has none for a second processor: then it is none, to be started again.
pub fn at_its_shell(guest: Running) -> Option<Running> {
    const NO_TIMER: &str = "APIC timer disabled due to verification failure";
    until("the shell", BOOT, || ["shell ready", NO_TIMER].iter().any(|text| guest.console().contains(text)));
    (!guest.console().contains(NO_TIMER)).then_some(guest)
}

fn booted(kernel: &std::path::Path, busybox: &[u8]) -> Option<Running> {
    (0..8).find_map(|_| at_its_shell(start(kernel, busybox)))
}

#[test]
fn linux_sees_processors_and_memory_come_and_go_wherever_it_runs() {
    let kernel = find_kernel("PILVI_TEST_KERNEL_HOTPLUG", "vmlinux.hotplug");
    let (Some(kernel), Ok(busybox)) = (kernel, std::fs::read("/bin/busybox")) else {
        eprintln!("SKIPPED: no kernel with ACPI (tests/guest/kernel/build OUT hotplug), or no /bin/busybox");
        return;
    };
    if !kvm_is_here() {
        return;
    }
    let Some(mut guest) = booted(&kernel, &busybox) else {
        eprintln!("SKIPPED: this machine is so busy that Linux finds no timer for its processors");
        return;
    };
    assert!(guest.console().contains("online <0>"), "{}", guest.console());
    let before = total(&mut guest);

    resize(&mut guest, &Request::ResizeVcpus { count: 3 });
    assert_eq!((online(&mut guest, "cpus"), online(&mut guest, "on")), (1, 3));
    resize(&mut guest, &Request::ResizeMemory { mib: 192 });
    // It has the blocks before it has made pages of them.
    let mut grown = 0;
    until("memory to be counted", BOOT, || {
        grown = total(&mut guest);
        grown >= before + 64 * 1024
    });
    eprintln!("memory: {before} KiB became {grown}");

    let (state, memory) = snapshot::save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut guest = snapshot::restored(&guest, &state, &memory, false).start();
    assert_eq!(online(&mut guest, "cpus"), 3);
    assert_eq!(total(&mut guest), grown);
    resize(&mut guest, &Request::ResizeVcpus { count: 2 });
    assert_eq!(online(&mut guest, "cpus"), 2);

    let mut next = migrate::target(&guest);
    guest.client().migrate(migrate::stream(&next).as_raw_fd(), Terms::default()).unwrap();
    guest.ends_with(7);
    std::mem::swap(&mut guest, &mut next);
    assert_eq!(total(&mut guest), grown);
    resize(&mut guest, &Request::ResizeMemory { mib: 128 });
    assert!(total(&mut guest) < before + 8 * 1024);
    resize(&mut guest, &Request::ResizeVcpus { count: 3 });
    assert_eq!(online(&mut guest, "on"), 3);
    resize(&mut guest, &Request::ResizeVcpus { count: 1 });
    assert_eq!(online(&mut guest, "cpus"), 1);
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
