//! Snapshots: a machine goes on in another process as if nothing had happened, and what is no whole snapshot is refused.

use crate::migrate::written;
use crate::rig::{PATIENCE, Running, Setup, kvm_is_here, until};
use pilvi_vmm::control::ClientError;
use pilvi_vmm::state::RunState;
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

fn new_file(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

/// Pauses the machine and writes it down; the paths.
pub fn save(guest: &mut Running) -> (PathBuf, PathBuf) {
    let (state, memory) = (guest.setup.path("state"), guest.setup.path("memory"));
    let mut client = guest.client();
    client.pause().unwrap();
    let begin = Instant::now();
    client.snapshot(&new_file(&state), &new_file(&memory)).unwrap();
    eprintln!("snapshot written in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    (state, memory)
}

/// The same machine in another process, going on from these files.
pub fn restored(guest: &Running, state: &Path, memory: &Path, verify: bool) -> Setup {
    let mut next = Setup::new("");
    let own = next.config.clone();
    next.config = guest.setup.config.clone();
    for field in ["control_socket", "console", "report"] {
        next.config[field] = own[field].clone();
    }
    inherit_from(&mut next, guest);
    // However that one had begun.
    next.config["incoming"] = json!(null);
    next.config["restore"] = json!({"state": {"path": state}, "memory": {"path": memory}, "verify": verify});
    next
}

/// The same descriptors for another process: duplicates have other numbers.
pub fn inherit_from(setup: &mut Setup, guest: &Running) {
    setup.inherited = guest.setup.inherited.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let nics = setup.config.get_mut("nics").and_then(|nics| nics.as_array_mut());
    for (nic, fd) in nics.into_iter().flatten().zip(&setup.inherited) {
        nic["tap"] = json!({"fd": fd.as_raw_fd()});
    }
}

fn last_tick(console: &str) -> u64 {
    // The last line may be half written.
    let whole = &console[..console.rfind('\n').unwrap_or(0)];
    whole.rsplit("tick ").next().unwrap().trim().parse().unwrap()
}

#[test]
fn a_machine_goes_on_where_it_was_and_the_first_one_too() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("spin");
    setup.config["vcpus"] = json!(2);
    let mut guest = setup.start();
    guest.expect("tick 5");
    let (state, memory) = save(&mut guest);
    let at = last_tick(&guest.console());
    for verify in [true, false] {
        let begin = Instant::now();
        let mut copy = restored(&guest, &state, &memory, verify).start();
        copy.expect("tick ");
        eprintln!(
            "exec to the restored guest's output (verify {verify}): {:.1} ms",
            begin.elapsed().as_secs_f64() * 1e3
        );
        until("more ticks", PATIENCE, || copy.console().matches("tick").count() > 5);
        let console = copy.console();
        let next = console.lines().find_map(|line| line.strip_prefix("tick ")).unwrap();
        let next: u64 = next.parse().unwrap();
        assert!((at + 1..at + 3).contains(&next), "{at} {next}");
        assert!(!console.contains("PILVI-GUEST up"), "{console}");
        let status = copy.client().status().unwrap();
        assert_eq!((status.state, status.vcpus), (RunState::Running, 2));
        copy.client().kill().unwrap();
        copy.ends_with(5);
    }
    assert_eq!(last_tick(&guest.console()), at);
    guest.client().resume().unwrap();
    until("the first machine to go on", PATIENCE, || last_tick(&guest.console()) > at + 3);
}

#[test]
fn devices_work_in_the_restored_machine_and_a_reset_starts_the_kernel() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("acpi disk rng idle");
    let disk = setup.with_disk(false);
    let mut guest = setup.start();
    guest.expect("idle");
    let (state, memory) = save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut copy = restored(&guest, &state, &memory, true).start();
    until("its status", PATIENCE, || copy.client().status().is_ok_and(|s| s.state == RunState::Running));
    // The serial line's interrupt, the timer behind `idle`, and typed input.
    copy.client().console_write(b"x").unwrap();
    copy.expect("typed 'x'");
    copy.client().reset().unwrap();
    copy.expect("PILVI-GUEST up");
    copy.expect("disk verified");
    until("idle again", PATIENCE, || copy.console().contains("idle"));
    copy.client().power_button().unwrap();
    copy.ends_with(0);
    assert!(std::fs::metadata(disk).unwrap().len() == 1 << 20);
}

#[test]
fn running_machines_and_missing_files_are_refused() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("spin").start();
    guest.expect("tick 1");
    let (state, memory) = (new_file(&guest.setup.path("s")), new_file(&guest.setup.path("m")));
    let mut client = guest.client();
    let Err(ClientError::Refused(reason)) = client.snapshot(&state, &memory) else { panic!() };
    assert!(reason.contains("pause"), "{reason}");
    client.pause().unwrap();
    let Err(ClientError::Refused(reason)) = client.ask(&pilvi_vmm::control::Request::Snapshot {}) else { panic!() };
    assert!(reason.contains("two open files"), "{reason}");
    // A full disk: the machine is as before.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let Err(ClientError::Refused(reason)) = client.snapshot(&state, &full) else { panic!() };
    assert!(reason.contains("memory image"), "{reason}");
    client.snapshot(&state, &memory).unwrap();
    let ticks = guest.console().matches("tick").count();
    client.resume().unwrap();
    until("more ticks", PATIENCE, || guest.console().matches("tick").count() > ticks + 2);
}

#[test]
fn what_is_no_whole_snapshot_of_this_machine_is_refused() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("spin");
    setup.config["memory_mib"] = json!(16);
    setup.with_disk(false);
    let mut guest = setup.start();
    guest.expect("tick 1");
    let (state, memory) = save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let refused = |word: &str, change: &dyn Fn(&mut Setup)| {
        let mut next = restored(&guest, &state, &memory, true);
        change(&mut next);
        let mut next = next.start();
        next.ends_with(1);
        assert!(next.stderr().contains(word), "{word:?} is not in {}", next.stderr());
        assert!(!next.stderr().contains("panicked"));
    };
    let whole = std::fs::read(&state).unwrap();
    let mut cuts: Vec<usize> = (0..whole.len()).step_by(4096).collect();
    cuts.push(whole.len() - 1);
    for end in cuts {
        std::fs::write(&state, &whole[..end]).unwrap();
        refused(if end < 24 { "no state file" } else { "cut off" }, &|_| {});
    }
    let mut altered = whole.clone();
    altered[5000] ^= 1;
    std::fs::write(&state, &altered).unwrap();
    refused("altered", &|_| {});
    std::fs::write(&state, &whole).unwrap();
    refused("16 MiB of memory", &|s| s.config["memory_mib"] = json!(32));
    refused("1 processors", &|s| s.config["vcpus"] = json!(2));
    refused("devices", &|s| s.config["rng"] = json!(false));
    refused("disk0 is: other features", &|s| s.config["disks"][0]["read_only"] = json!(true));
    let image = File::options().write(true).read(true).open(&memory).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, b"altered", 0x10_0000).unwrap();
    refused("memory image (MiB 1) was altered", &|_| {});
    image.set_len(15 << 20).unwrap();
    refused("cut off", &|s| s.config["restore"]["verify"] = json!(false));
}

#[test]
fn by_hand() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = Setup::new("spin").start();
    guest.expect("tick 1");
    let ctl = |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pilvi-vmm"));
        command.arg("ctl").arg(guest.setup.path("control")).args(words);
        command.output().unwrap()
    };
    let (state, memory) = (guest.setup.path("s"), guest.setup.path("m"));
    let files = [state.to_str().unwrap(), memory.to_str().unwrap()];
    let saved = ctl(&["snapshot", files[0], files[1]]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    // It was running and runs on; a second snapshot does not overwrite the first.
    assert!(String::from_utf8_lossy(&ctl(&["status"]).stdout).contains("\"state\": \"running\""));
    assert_eq!(ctl(&["snapshot", files[0], files[1]]).status.code(), Some(1));
    assert_eq!(ctl(&["balloon", "4"]).status.code(), Some(1));
    assert_eq!(ctl(&["rate", "disk0", "x", "0"]).status.code(), Some(1));
    assert_eq!(ctl(&["explode"]).status.code(), Some(1));
    assert!(ctl(&["kill"]).status.success());
    let mut again = Setup::new("spin");
    again.arguments.extend(["--restore".into(), state.into(), memory.into()]);
    let mut again = again.start();
    again.expect("tick ");
    assert!(!again.console().contains("PILVI-GUEST up"));
    drop(guest);
}

#[test]
fn memory_is_brought_and_checked_as_it_is_touched() {
    if !kvm_is_here() {
        return;
    }
    if let Err(e) = pilvi_vmm::fault::uffd::Uffd::open() {
        eprintln!("SKIPPED: no userfaultfd that sees the kernel's faults: {e}");
        return;
    }
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 3");
    let (state, memory) = save(&mut guest);
    guest.client().kill().unwrap();
    let by_fault = |guest: &Running| {
        let mut setup = restored(guest, &state, &memory, true);
        setup.config["restore"]["lazy"] = json!("fault");
        setup
    };
    let rounds = |running: &Running| running.console().matches("round ").count();
    let mut copy = by_fault(&guest).start();
    until("more rounds", PATIENCE, || rounds(&copy) > 3);
    assert!(!copy.console().contains("LOST"), "{}", copy.console());
    let missing = copy.client().status().unwrap().missing.unwrap();
    // 4 of 32 MiB and the kernel, no MiB more than once.
    assert!(missing.pages > 20 << 8 && (4..12).contains(&missing.faults), "{missing:?}");
    // It can be written down and moves, as it stands: both bring the rest.
    let (second, its_memory) = save(&mut copy);
    assert_eq!(copy.client().status().unwrap().missing.unwrap().pages, 0);
    copy.client().resume().unwrap();
    let mut target = crate::migrate::target(&copy);
    let stream = crate::migrate::stream(&target);
    copy.client().migrate(stream.as_raw_fd(), pilvi_vmm::migrate::Terms::default()).unwrap();
    until("more rounds", PATIENCE, || rounds(&target) > 3);
    assert!(!target.console().contains("LOST"), "{}", target.console());
    target.client().kill().unwrap();
    let mut again = restored(&guest, &second, &its_memory, true).start();
    until("more rounds", PATIENCE, || rounds(&again) > 3);
    again.client().kill().unwrap();

    // A page that the guest comes to, in the middle of what it changes: the mapping would not have seen it.
    use std::os::unix::fs::FileExt;
    let image = File::options().write(true).open(&memory).unwrap();
    image.write_all_at(&[0xff], (18 << 20) + 5).unwrap();
    let mut altered = by_fault(&guest).start();
    altered.ends_with(4);
    assert!(format!("{:?}", altered.report().reason).contains("MiB 18"), "{:?}", altered.report().reason);
    // Everything is altered: seen while the machine is built, or at the first instruction.
    for mib in 0..32 {
        image.write_all_at(&[0x5a], (mib << 20) + 9).unwrap();
    }
    let mut altered = by_fault(&guest).start();
    altered.ends_with(4);
    assert!(altered.stderr().contains("altered") && !altered.console().contains("round"), "{}", altered.stderr());
    // Cut off while it runs.
    let mut guest = Setup::new("dirty").start();
    guest.expect("round 1");
    let (state, memory) = save(&mut guest);
    let mut setup = restored(&guest, &state, &memory, true);
    setup.config["restore"]["lazy"] = json!("fault");
    let mut copy = setup.start();
    copy.expect("round");
    File::options().write(true).open(&memory).unwrap().set_len(1 << 20).unwrap();
    let mut client = copy.client();
    client.pause().unwrap();
    let files = (new_file(&copy.setup.path("a")), new_file(&copy.setup.path("b")));
    assert!(client.snapshot(&files.0, &files.1).is_err());
    copy.ends_with(4);
}

/// An empty file of a file system that has room for so many bytes.
fn file_with_room(bytes: u64) -> File {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    let made = std::thread::spawn(move || {
        let c = |text: &str| std::ffi::CString::new(text).unwrap();
        let (kind, at, room) = (c("tmpfs"), c(place.to_str().unwrap()), c(&format!("size={bytes}")));
        // SAFETY: a name space of mounts for this thread alone, where nothing that is mounted is seen elsewhere; the strings live.
        let codes = unsafe {
            [
                libc::unshare(libc::CLONE_NEWNS),
                libc::mount(
                    std::ptr::null(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ),
                libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, room.as_ptr().cast()),
            ]
        };
        assert_eq!(codes, [0; 3], "{}", std::io::Error::last_os_error());
        new_file(&place.join("file"))
    });
    made.join().unwrap()
}

#[test]
fn a_snapshot_that_does_not_fit_is_refused_and_the_guest_goes_on() {
    if !kvm_is_here() {
        return;
    }
    let mut setup = Setup::new("scribble");
    setup.with_disk(false);
    let mut guest = setup.start();
    until("some writes", PATIENCE, || written(&guest.console()).len() > 20);
    let mut client = guest.client();
    let file = |name: &str| new_file(&guest.setup.path(name));
    for (state, memory) in [(file("state"), file_with_room(64 << 10)), (file_with_room(4096), file("memory"))] {
        client.pause().unwrap();
        let Err(ClientError::Refused(reason)) = client.snapshot(&state, &memory) else { panic!("it cannot fit") };
        assert!(reason.contains("No space left") || reason.contains("os error 28"), "{reason}");
        client.resume().unwrap();
        let before = written(&guest.console()).len();
        until("writes after it", PATIENCE, || written(&guest.console()).len() > before + 20);
    }
    // One that fits is good all the same.
    let (state, memory) = save(&mut guest);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut guest = restored(&guest, &state, &memory, true).start();
    until("it to write on", PATIENCE, || written(&guest.console()).len() > 20);
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
