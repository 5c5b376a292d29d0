//! Linux on a machine of two nodes: which processors and how much memory each has, how far they are from each other, and that what
//! comes while it runs comes to its node. Wants the kernel that `tests/guest/kernel/build OUT hotplug` makes.

use crate::cpio::{CHARACTER_DEVICE, Cpio, SYMLINK};
use crate::linux::{BOOT, COMMAND_LINE, find_kernel};
use crate::linux_grow::{ask, at_its_shell, resize};
use crate::rig::{Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::Request;
use serde_json::json;

/// As few processes as can be: each costs a second of emulation.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t sysfs none /sys
cpus() { read n < /sys/devices/system/node/node$1/cpulist; echo \"cpus <$n>\"; }
far() { read n < /sys/devices/system/node/node$1/distance; echo \"far <$n>\"; }
total() { read a b c n d < /sys/devices/system/node/node$1/meminfo; echo \"total <$n>\"; }
on() { for cpu in /sys/devices/system/cpu/cpu[1-9]; do echo 1 > $cpu/online; done; echo \"on <>\"; }
[ -d /sys/devices/system/node ] || echo knows no nodes
echo shell ready
while read word number; do $word $number; done
";

/// KiB of a node.
fn total(guest: &mut Running, node: u32) -> u64 {
    ask(guest, &format!("total {node}"), "total").parse().unwrap()
}

fn booted(kernel: &std::path::Path, busybox: &[u8]) -> Option<Running> {
    let mut setup = Setup::new("");
    let mut archive = Cpio::default();
    for name in ["dev", "bin", "sys"] {
        archive.directory(name);
    }
    archive.add("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), b"");
    archive.program("bin/busybox", busybox).add("bin/sh", SYMLINK | 0o777, (0, 0), b"busybox");
    std::fs::write(setup.path("initramfs"), archive.program("init", INIT.as_bytes()).finish()).unwrap();
    (setup.config["memory_mib"], setup.config["transport"]) = (json!(192), json!("pci"));
    (setup.config["vcpus"], setup.config["max_vcpus"]) = (json!(2), json!(3));
    setup.config["memory_hotplug"] = json!({"max_mib": 256, "node": 1});
    setup.config["numa"] = json!([
        {"vcpus": [0, 2], "memory_mib": 128},
        {"vcpus": [1], "memory_mib": 64, "distances": [17, 10]},
    ]);
    setup.config["kernel"] = json!({"path": kernel});
    setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
    let movable = "memhp_default_state=online_movable";
    setup.config["cmdline"] = json!(format!("{COMMAND_LINE} no-kvmclock loglevel=6 {movable}"));
    setup.config["cpu_mask"] = json!(pilvi_vmm::probe::probe().cpu_mask());
    at_its_shell(setup.start())
}

#[test]
fn linux_sees_nodes_and_what_comes_comes_to_its_own() {
    let kernel = find_kernel("PILVI_TEST_KERNEL_HOTPLUG", "vmlinux.hotplug");
    let (Some(kernel), Ok(busybox)) = (kernel, std::fs::read("/bin/busybox")) else {
        eprintln!("SKIPPED: no kernel with ACPI (tests/guest/kernel/build OUT hotplug), or no /bin/busybox");
        return;
    };
    if !kvm_is_here() {
        return;
    }
    let Some(mut guest) = (0..8).find_map(|_| booted(&kernel, &busybox)) else {
        eprintln!("SKIPPED: this machine is so busy that Linux finds no timer for its processors");
        return;
    };
    if guest.console().contains("knows no nodes") {
        eprintln!("SKIPPED: this kernel was made before hotplug.config had CONFIG_NUMA: build it again");
        return;
    }
    assert_eq!(["cpus 0", "cpus 1"].map(|line| ask(&mut guest, line, "cpus")), ["0", "1"]);
    assert_eq!(["far 0", "far 1"].map(|line| ask(&mut guest, line, "far")), ["10 20", "17 10"]);
    let [first, second] = [0, 1].map(|node| total(&mut guest, node));
    assert!(first <= 128 << 10 && first > second && second <= 64 << 10 && second > 48 << 10, "{first} {second}");
    resize(&mut guest, &Request::ResizeVcpus { count: 3 });
    ask(&mut guest, "on", "on");
    until("the third in its node", BOOT, || ask(&mut guest, "cpus 0", "cpus") == "0,2");
    resize(&mut guest, &Request::ResizeMemory { mib: 256 });
    until("memory to be counted", BOOT, || total(&mut guest, 1) >= second + (64 << 10));
    assert_eq!(total(&mut guest, 0), first, "the other node has what it had");
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
