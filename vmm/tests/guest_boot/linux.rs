//! A real Linux guest, where a kernel is at hand: PILVI_TEST_KERNEL names it, or `tests/guest/kernel/build` has left one
//! in the cache directory. It boots to a shell on the console, sees its disk and card, and answers ping.

use crate::cpio::{CHARACTER_DEVICE, Cpio, SYMLINK};
use crate::peer::{GUEST, HOST, in_own_network, ping};
use crate::rig::{Setup, kvm_is_here};
use crate::{migrate, snapshot};
use pilvi_vmm::control::{Reply, Request};
use pilvi_vmm::migrate::Terms;
use serde_json::json;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Booting takes about 20 s where KVM emulates, and ten times that on a loaded machine.
pub const BOOT: Duration = Duration::from_secs(480);

/// Hides from the kernel what an emulating KVM cannot do; harmless elsewhere.
pub const COMMAND_LINE: &str = "console=ttyS0 panic=-1 reboot=k nokaslr mitigations=off no_timer_check tsc=reliable \
    lpj=10000000 highres=off nohz=off rodata=off noxsave nosmap nosmep clearcpuid=cx16,popcnt,erms,fsrm,rep_good,rdrand,\
    rdseed,umip,smap,smep,fsgsbase,xsave,avx,invpcid,pcid,rdtscp,rdpid";

/// As few processes as can be: each costs a second of emulation.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t ext4 /dev/vda /mnt && read line < /mnt/greeting && echo \"disk says $line\"
echo written by the guest > /mnt/answer
/bin/busybox umount /mnt && echo unmounted
echo shell ready
exec /bin/busybox sh
";

fn kernel() -> Option<PathBuf> {
    find_kernel("PILVI_TEST_KERNEL", "vmlinux.full")
}

/// By the variable, or as `tests/guest/kernel/build` leaves it.
pub fn find_kernel(variable: &str, name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let candidates = [std::env::var_os(variable).map(PathBuf::from), cache.map(|cache| cache.join("pilvi").join(name))];
    candidates.into_iter().flatten().find(|path| path.exists())
}

pub fn initramfs(busybox: &[u8], init: &str) -> Vec<u8> {
    let mut archive = Cpio::default();
    for name in ["dev", "bin", "mnt", "proc", "sys"] {
        archive.directory(name);
    }
    archive.add("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), b"");
    archive.program("bin/busybox", busybox).add("bin/sh", SYMLINK | 0o777, (0, 0), b"busybox");
    archive.program("init", init.as_bytes()).finish()
}

/// An ext4 image with one file; None where mkfs is missing.
fn disk(dir: &Path) -> Option<PathBuf> {
    let (content, image) = (dir.join("content"), dir.join("ext4.raw"));
    std::fs::create_dir(&content).unwrap();
    std::fs::write(content.join("greeting"), "good morning\n").unwrap();
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal", "-d"]).arg(&content).arg(&image).status();
    made.is_ok_and(|status| status.success()).then_some(image)
}

/// A program of 120 bytes of head and a few instructions: says that it is there, and waits for ever. A shell takes minutes
/// to unpack and start where KVM emulates the kernel.
fn smallest_init(text: &str) -> Vec<u8> {
    const ADDRESS: u64 = 0x40_0000;
    const HEAD: u64 = 64 + 56;
    let mut code = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]; // mov eax, 1 (write); mov edi, 1
    code.extend([0x48, 0x8d, 0x35, 16, 0, 0, 0]); // lea rsi, [rip + 16]: the text
    code.push(0xba); // mov edx, length
    code.extend((text.len() as u32).to_le_bytes());
    code.extend([0x0f, 0x05, 0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]); // syscall; mov eax, 34 (pause); syscall; again
    code.extend(text.as_bytes());
    let size = HEAD + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    [ADDRESS + HEAD, 64, 0].iter().for_each(|word| out.extend(word.to_le_bytes()));
    out.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([1, 0, 0, 0, 5, 0, 0, 0]); // a loaded segment, read and executed
    [0, ADDRESS, ADDRESS, size, size, 4096].iter().for_each(|word: &u64| out.extend(word.to_le_bytes()));
    out.extend(code);
    out
}

/// As few processes as can be; the shell looks for devices itself.
const INIT_PCI: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t sysfs none /sys
read line < /dev/vda && echo \"first disk says $line\"
echo shell ready
exec /bin/busybox sh
";

/// A kernel with ACPI hears of what comes and is asked for what is to go: nobody types anything.
#[test]
fn linux_with_acpi_finds_a_disk_that_comes_and_lets_go_of_it_when_asked() {
    let kernel = find_kernel("PILVI_TEST_KERNEL_HOTPLUG", "vmlinux.hotplug");
    let Some(kernel) = kernel else {
        eprintln!(
            "SKIPPED: no kernel with ACPI: set PILVI_TEST_KERNEL_HOTPLUG, or run tests/guest/kernel/build OUT hotplug"
        );
        return;
    };
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("");
    let path = setup.path("plugged");
    std::fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut archive = Cpio::default();
    archive.directory("dev").add("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), b"");
    std::fs::write(setup.path("initramfs"), archive.program("init", &smallest_init("init is up\n")).finish()).unwrap();
    setup.config["memory_mib"] = json!(64);
    setup.config["transport"] = json!("pci");
    setup.config["kernel"] = json!({"path": kernel});
    setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
    // Notices are what tells of disks; everything else only takes time.
    setup.config["cmdline"] = json!(format!("{COMMAND_LINE} no-kvmclock loglevel=6"));
    setup.config["cpu_mask"] = json!(pilvi_vmm::probe::probe().cpu_mask());
    let mut guest = setup.start();
    guest.expect_within("init is up", BOOT);
    let mut client = guest.client();
    for turn in 1..=2 {
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let add = Request::AddDisk {
            read_only: false,
            serial: "plugged".into(),
            name: None,
            export: None,
            vhost_user: false,
        };
        assert_eq!(client.ask_with(&add, &[file.as_raw_fd()]).unwrap(), Reply::Added { device: "disk0".into() });
        let found = || guest.console().matches("[vda] 2048 512-byte logical blocks").count() == turn;
        crate::rig::until("the guest to find it", BOOT, found);
        let remove = Request::Remove { device: "disk0".into() };
        let begin = Instant::now();
        // It is asked again where it takes longer than an answer may.
        crate::rig::until("the guest to let go", BOOT, || client.ask_with(&remove, &[]).is_ok());
        eprintln!("let go of after {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        assert!(client.status().unwrap().devices.iter().all(|device| device.name != "disk0"));
    }
    client.kill().unwrap();
    guest.ends_with(5);
}

/// This kernel has neither ACPI nor PCIe hot-plug, so it looks at the bus when it is told to; what it then finds and lets
/// go of is the same as under a kernel that is told by hardware.
#[test]
fn linux_finds_devices_on_pci_and_sees_disks_and_memory_come_and_go() {
    let (Some(kernel), Ok(busybox)) = (kernel(), std::fs::read("/bin/busybox")) else {
        eprintln!("SKIPPED: no test kernel or no /bin/busybox");
        return;
    };
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("");
    let (first, second) = (setup.path("first"), setup.path("second"));
    for (path, text) in [(&first, "one\n"), (&second, "two\n")] {
        std::fs::write(path, text).unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    }
    std::fs::write(setup.path("initramfs"), initramfs(&busybox, INIT_PCI)).unwrap();
    setup.config["memory_mib"] = json!(128);
    setup.config["transport"] = json!("pci");
    setup.config["kernel"] = json!({"path": kernel});
    setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
    setup.config["cmdline"] = json!(COMMAND_LINE);
    setup.config["cpu_mask"] = json!(pilvi_vmm::probe::probe().cpu_mask());
    setup.config["disks"] = json!([{"source": {"path": first}}]);
    setup.config["balloon"] = json!({});
    let mut guest = setup.start();
    guest.expect_within("shell ready", BOOT);
    assert!(guest.console().contains("first disk says one"), "{}", guest.console());
    let mut client = guest.client();
    let file = std::fs::File::options().read(true).write(true).open(&second).unwrap();
    let add =
        Request::AddDisk { read_only: false, serial: "second".into(), name: None, export: None, vhost_user: false };
    assert_eq!(client.ask_with(&add, &[file.as_raw_fd()]).unwrap(), Reply::Added { device: "disk1".into() });
    drop(file);
    client
        .console_write(b"echo 1 > /sys/bus/pci/rescan; read line < /dev/vdb && echo \"second disk says $line\"\n")
        .unwrap();
    guest.expect_within("second disk says two", BOOT);
    // It grows under its driver, which hears of it: 2 MiB are 4096 sectors.
    let grow = Request::ResizeDisk { device: "disk1".into(), bytes: Some(2 << 20) };
    assert_eq!(client.ask(&grow).unwrap(), Reply::Resized { bytes: 2 << 20 });
    guest.expect_within("[vdb] new size: 4096 512-byte logical blocks", BOOT);
    assert!(client.done(&Request::Remove { device: "disk1".into() }).is_err());
    // The terminal repeats what is typed: the answer must not stand in the question.
    client
        .console_write(b"echo 1 > /sys/bus/pci/devices/0000:00:04.0/remove; [ -e /dev/vdb ] || echo let 'go'\n")
        .unwrap();
    guest.expect_within("let go", BOOT);
    client.done(&Request::Remove { device: "disk1".into() }).unwrap();
    client.done(&Request::SetBalloon { mib: 16 }).unwrap();
    crate::rig::until("the balloon", BOOT, || client.status().unwrap().balloon_mib == Some(16));
    let balloon = client.status().unwrap().devices.into_iter().find(|d| d.name == "balloon").unwrap();
    eprintln!("given back: {} MiB", balloon.counters.bytes_out >> 20);
    assert!(balloon.counters.bytes_out >= 16 << 20 && balloon.counters.errors == 0, "{balloon:?}");
    client.kill().unwrap();
    guest.ends_with(5);
}

#[test]
fn linux_boots_to_a_shell_with_disk_and_network() {
    let Some(kernel) = kernel() else {
        eprintln!("SKIPPED: no test kernel: set PILVI_TEST_KERNEL, or run tests/guest/kernel/build");
        return;
    };
    let Ok(busybox) = std::fs::read("/bin/busybox") else {
        eprintln!("SKIPPED: /bin/busybox is missing (package busybox-static)");
        return;
    };
    if !kvm_is_here() {
        return;
    }
    in_own_network(move |tap| {
        let mut setup = Setup::new("");
        let Some(image) = disk(setup.dir.path()) else {
            eprintln!("SKIPPED: mkfs.ext4 is missing (package e2fsprogs)");
            return;
        };
        std::fs::write(setup.path("initramfs"), initramfs(&busybox, INIT)).unwrap();
        let fd = setup.inherit(tap);
        setup.config["memory_mib"] = json!(128);
        setup.config["kernel"] = json!({"path": kernel});
        setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
        setup.config["cmdline"] = json!(format!("{COMMAND_LINE} ip={GUEST}::{HOST}:255.255.255.0::eth0:off"));
        setup.config["cpu_mask"] = json!(pilvi_vmm::probe::probe().cpu_mask());
        setup.config["disks"] = json!([{"source": {"path": &image}}]);
        setup.config["nics"] = json!([{"tap": {"fd": fd}, "mac": "02:00:00:00:77:09"}]);
        setup.config["user"] = json!({"uid": 65534, "gid": 65534});
        let begin = Instant::now();
        let mut guest = setup.start();
        guest.expect_within("Run /init", BOOT);
        eprintln!("exec to Linux's /init: {:.1} s", begin.elapsed().as_secs_f64());
        guest.expect_within("shell ready", BOOT);
        eprintln!("exec to the shell: {:.1} s", begin.elapsed().as_secs_f64());
        let console = guest.console();
        assert!(console.contains("disk says good morning") && console.contains("unmounted"), "{console}");
        assert!(console.contains("hwaddr=02:00:00:00:77:09"), "{console}");
        for bytes in [56, 1400] {
            eprintln!("ping of {bytes} bytes: {:?}", ping(GUEST, bytes, BOOT));
        }
        let mut client = guest.client();
        client.console_write(b"echo sum $((6 * 7))\n").unwrap();
        guest.expect_within("sum 42", BOOT);
        // The booted system goes on in another process: shell, disk and card as they were.
        let (state, memory) = snapshot::save(&mut guest);
        client.kill().unwrap();
        guest.ends_with(5);
        let setup = snapshot::restored(&guest, &state, &memory, false);
        let begin = Instant::now();
        let mut guest = setup.start();
        let mut client = guest.client();
        client.console_write(b"echo product $((6 * 9))\n").unwrap();
        guest.expect_within("product 54", BOOT);
        eprintln!("exec to the restored shell's answer: {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        eprintln!("ping after the restore: {:?}", ping(GUEST, 56, BOOT));
        assert!(!guest.console().contains("Linux version"), "{}", guest.console());
        // And moves, running, into a third one.
        let mut third = migrate::target(&guest);
        let begin = Instant::now();
        client.migrate(migrate::stream(&third).as_raw_fd(), Terms::default()).unwrap();
        eprintln!("Linux moved in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
        guest.ends_with(7);
        std::mem::swap(&mut guest, &mut third);
        let mut client = guest.client();
        eprintln!("ping after the move: {:?}", ping(GUEST, 56, BOOT));
        client
            .console_write(
                b"/bin/busybox mount -t ext4 /dev/vda /mnt && read line < /mnt/answer && echo \"it $line\"\n",
            )
            .unwrap();
        guest.expect_within("it written by the guest", BOOT);
        client.console_write(b"/bin/busybox umount /mnt\n").unwrap();
        client.console_write(b"/bin/busybox poweroff -f\n").unwrap();
        let end = Instant::now() + BOOT;
        while guest.child.try_wait().unwrap().is_none() && Instant::now() < end {
            crate::rig::rest(Duration::from_millis(50));
        }
        guest.ends_with(0);
        let answer = Command::new("debugfs").args(["-R", "cat answer"]).arg(&image).output();
        assert_eq!(answer.unwrap().stdout, b"written by the guest\n");
    });
}
