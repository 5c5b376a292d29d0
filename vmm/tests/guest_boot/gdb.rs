//! A debugger looks into a guest: by packets that are written out here, and with the real gdb where it is installed.

use crate::rig::{PATIENCE, Running, Setup, guest, kvm_is_here, rest};
use pilvi_vmm::gdb::packet::{Framer, Input, frame, unhex};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

/// Addresses of the guest's symbols; none where there is no `nm`.
fn symbols() -> Option<BTreeMap<String, u64>> {
    let out = Command::new("nm").arg(guest()).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let symbol = |line: &str| {
        let (address, rest) = line.split_once(' ')?;
        Some((rest.get(2..)?.to_owned(), u64::from_str_radix(address, 16).ok()?))
    };
    Some(text.lines().filter_map(symbol).collect())
}

/// A debugger by hand.
struct Debugger {
    stream: UnixStream,
    framer: Framer,
}

impl Debugger {
    fn at(guest: &mut Running) -> Debugger {
        guest.client();
        let stream = UnixStream::connect(guest.setup.path("gdb")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut debugger = Debugger { stream, framer: Framer::default() };
        assert!(debugger.ask("qSupported:swbreak+;hwbreak+").contains("swbreak+"));
        debugger
    }

    fn send(&mut self, packet: &str) {
        self.stream.write_all(&frame(packet.as_bytes())).unwrap();
    }

    fn hear(&mut self) -> String {
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            if let Some(Input::Packet(packet)) = self.framer.feed(&byte).pop() {
                // Whoever has said its last word is gone.
                let _ = self.stream.write_all(b"+");
                return String::from_utf8(packet).unwrap();
            }
        }
    }

    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.hear()
    }

    fn register(&mut self, number: usize) -> u64 {
        let said = self.ask(&format!("p{number:x}"));
        let mut bytes = unhex(said.as_bytes()).unwrap_or_else(|| panic!("{said}"));
        bytes.resize(8, 0);
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    fn memory(&mut self, address: u64, length: usize) -> Vec<u8> {
        let said = self.ask(&format!("m{address:x},{length:x}"));
        unhex(said.as_bytes()).unwrap_or_else(|| panic!("{said}"))
    }
}

const RSP: usize = 7;
const RIP: usize = 16;
const CR0: usize = 59;

fn debugged(words: &str, vcpus: u16, wait: bool) -> Running {
    let mut setup = Setup::new(words);
    setup.config["vcpus"] = vcpus.into();
    setup.arguments = vec![if wait { "--gdb-wait" } else { "--gdb" }.into(), setup.path("gdb").into()];
    setup.start()
}

#[test]
fn a_guest_is_stepped_from_its_first_instruction_and_stops_at_points() {
    let Some(symbols) = symbols().filter(|_| kvm_is_here()) else { return };
    let (start, long, stack) = (symbols["start32"], symbols["start64"], symbols["stack_top"]);
    let mut guest = debugged("idle", 1, true);
    let mut gdb = Debugger::at(&mut guest);
    assert_eq!((gdb.ask("?"), gdb.register(RIP)), ("T02thread:1;".into(), start));
    assert_eq!(guest.client().status().unwrap().state, pilvi_vmm::state::RunState::Paused);
    assert!(guest.client().resume().is_err(), "the debugger has it");
    assert_eq!(gdb.memory(start, 1), [0xfc], "cld");
    for (after, next) in [(1, start + 1), (6, start + 6)] {
        assert_eq!(gdb.ask("vCont;s:1;c"), "T05thread:1;", "{after}");
        assert_eq!(gdb.register(RIP), next);
    }
    assert_eq!(gdb.register(RSP), stack);

    assert_eq!(gdb.ask(&format!("Z1,{long:x},1")), "OK");
    assert_eq!(gdb.ask("c"), "T05hwbreak:;thread:1;");
    assert_eq!(gdb.register(RIP), long);
    assert_ne!(gdb.register(CR0) & 1 << 31, 0, "behind the guest's own tables");
    assert_eq!(gdb.ask(&format!("z1,{long:x},1")), "OK");

    // An instruction in memory: nobody sees it, and the guest goes on through it.
    let before = gdb.memory(long, 16);
    let after = long + 4; // mov ax, 16
    assert_eq!(gdb.ask(&format!("Z0,{after:x},1")), "OK");
    assert_eq!(gdb.memory(long, 16), before);
    assert_eq!(gdb.ask("vCont;c"), "T05swbreak:;thread:1;");
    assert_eq!(gdb.register(RIP), after);
    assert_eq!(gdb.ask(&format!("z0,{after:x},1")), "OK");
    assert_eq!(gdb.ask("s"), "T05thread:1;");
    assert_eq!(gdb.register(RIP), after + 3, "mov ds, ax");

    // Left at an instruction of its own: all is taken out, and the guest does what it does without anybody.
    assert_eq!(gdb.ask(&format!("Z0,{:x},1", after + 3)), "OK");
    drop(gdb);
    guest.expect("idle");
    guest.client().console_write(b"q").unwrap();
    guest.ends_with(0);
}

#[test]
fn a_guest_that_runs_is_interrupted_and_each_processor_is_looked_at() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = debugged("smp idle", 2, false);
    guest.expect("idle");
    let mut gdb = Debugger::at(&mut guest);
    assert_eq!(gdb.ask("qfThreadInfo"), "m1,2");
    // The second one sleeps where it was woken: real mode, segment 0x800.
    assert_eq!((gdb.ask("Hg2"), gdb.register(18)), ("OK".into(), 0x800));
    let at = gdb.register(RIP);
    assert!((6..9).contains(&at), "{at:#x}");
    assert_eq!(gdb.ask("Hg1"), "OK");
    let client = &mut guest.client();
    assert!(
        client
            .snapshot(&std::fs::File::open("/dev/null").unwrap(), &std::fs::File::open("/dev/null").unwrap())
            .is_err()
    );
    gdb.send("vCont;c");
    let end = Instant::now() + PATIENCE;
    while guest.client().status().unwrap().state != pilvi_vmm::state::RunState::Running {
        assert!(Instant::now() < end);
        rest(std::time::Duration::from_millis(5));
    }
    gdb.stream.write_all(&[3]).unwrap();
    assert_eq!(gdb.hear(), "T02thread:1;");
    // One more is turned away.
    let mut second = UnixStream::connect(guest.setup.path("gdb")).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap(), 0);
    // Memory is changed, in the middle of what the guest uses: its counter of woken processors.
    assert_eq!((gdb.ask("M8ff0,2:0700"), gdb.memory(0x8ff0, 2)), ("OK".into(), vec![7, 0]));
    assert_eq!(gdb.ask("D"), "OK");
    guest.client().console_write(b"q").unwrap();
    guest.ends_with(0);
}

#[test]
fn a_guest_ends_under_its_debugger_and_by_it() {
    if !kvm_is_here() {
        return;
    }
    let mut guest = debugged("idle", 1, false);
    guest.expect("idle");
    let mut gdb = Debugger::at(&mut guest);
    gdb.send("c");
    guest.client().console_write(b"q").unwrap();
    assert_eq!(gdb.hear(), "W00");
    guest.ends_with(0);
    let mut guest = debugged("idle", 1, true);
    let mut gdb = Debugger::at(&mut guest);
    assert_eq!(gdb.ask("k"), "OK");
    guest.ends_with(5);
}

#[test]
fn the_real_gdb_understands_it() {
    let Some(symbols) = symbols().filter(|_| kvm_is_here()) else { return };
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("SKIPPED: gdb is not installed");
        return;
    }
    let mut guest = debugged("idle", 2, true);
    guest.client();
    let socket = guest.setup.path("gdb");
    let mut gdb = Command::new("timeout");
    gdb.args(["120", "gdb", "-nx", "-batch"]).arg(crate::rig::guest());
    for line in [
        "set pagination off".to_owned(),
        "set confirm off".to_owned(),
        format!("target remote {}", socket.display()),
        "info threads".to_owned(),
        "stepi".to_owned(),
        format!("hbreak *{:#x}", symbols["start64"]),
        "continue".to_owned(),
        "info registers rip cr0 eflags".to_owned(),
        "x/2i $rip".to_owned(),
        "stepi".to_owned(),
        "detach".to_owned(),
    ] {
        gdb.args(["-ex", &line]);
    }
    let out = gdb.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    for part in ["Thread 1", "Thread 2", "Breakpoint 1,", "start64", "mov    $0x10,%ax", "detached]"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    guest.expect("idle");
    guest.client().console_write(b"q").unwrap();
    guest.ends_with(0);
}
