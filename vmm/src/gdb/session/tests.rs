//! A talk, packet by packet, about a machine that is a piece of memory.
use super::*;

struct Machine {
    memory: Vec<u8>,
    processors: Vec<Registers>,
    gone: Vec<(Vec<Next>, Vec<Point>, Vec<u64>)>,
}

impl Machine {
    fn new() -> Machine {
        let memory = (0..0x4000_u32).map(|at| at as u8).collect();
        Machine { memory, processors: vec![Registers::default(); 2], gone: Vec::new() }
    }
}

impl Target for Machine {
    fn processors(&self) -> usize {
        self.processors.len()
    }
    fn registers(&self, processor: usize) -> Option<Registers> {
        self.processors.get(processor).copied()
    }
    fn set_registers(&mut self, processor: usize, registers: &Registers) -> bool {
        self.processors[processor] = *registers;
        true
    }
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let piece = usize::try_from(address).ok().and_then(|at| self.memory.get(at..at.checked_add(bytes.len())?));
        piece.map(|piece| bytes.copy_from_slice(piece)).is_some()
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let piece = usize::try_from(address).ok().and_then(|at| self.memory.get_mut(at..at.checked_add(bytes.len())?));
        piece.map(|piece| piece.copy_from_slice(bytes)).is_some()
    }
    fn go(&mut self, next: &[Next], hardware: &[Point], planted: &[u64]) -> bool {
        self.gone.push((next.to_vec(), hardware.to_vec(), planted.to_vec()));
        true
    }
    fn stop(&mut self) -> bool {
        true
    }
}

/// What a packet is answered with.
fn ask(session: &mut Session, machine: &mut Machine, packet: &str) -> String {
    let (out, ended) = session.take(&frame(packet.as_bytes()), machine);
    assert_eq!(ended, None);
    let text = String::from_utf8(out).unwrap();
    let content = text.trim_start_matches('+').trim_start_matches('$');
    content.split('#').next().unwrap_or_default().to_owned()
}

#[test]
fn a_debugger_looks_and_changes() {
    let (mut session, mut machine) = (Session::default(), Machine::new());
    let mut say = |packet: &str| ask(&mut session, &mut machine, packet);
    assert!(say("qSupported:swbreak+").contains("qXfer:features:read+"));
    assert_eq!(say("?"), "T02thread:1;");
    assert_eq!((say("qfThreadInfo"), say("qsThreadInfo")), ("m1,2".into(), "l".into()));
    assert_eq!(
        (say("T2"), say("T3"), say("qC"), say("Hg2"), say("qC")),
        ("OK".into(), "E01".into(), "QC1".into(), "OK".into(), "QC2".into())
    );
    assert_eq!((say("P10=0010000000000000"), say("p10")), ("OK".into(), "0010000000000000".into()));
    assert_eq!((say("Hg1"), say("p10"), say("p40")), ("OK".into(), "0000000000000000".into(), "E01".into()));
    assert_eq!((say("M100,2:abcd"), say("m100,4")), ("OK".into(), "abcd0203".into()));
    assert_eq!(say("m3ffe,4"), "feff", "as far as there is something");
    assert_eq!((say("m4000,4"), say("M3fff,2:0000")), ("E01".into(), "E01".into()));
    assert!(say("qXfer:features:read:target.xml:0,40").starts_with("m<?xml"));
    assert_eq!((say("vMustReplyEmpty"), say("qXfer:features:read:target.xml:ffff,1")), (String::new(), "E01".into()));
    let (all, length) = (say("g"), registers::count());
    assert!(length == 64 && say(&format!("G{all}")) == "OK" && say("G00") == "E01");
}

#[test]
fn instructions_that_are_put_in_are_seen_by_nobody_and_taken_out() {
    let (mut session, mut machine) = (Session::default(), Machine::new());
    assert_eq!(ask(&mut session, &mut machine, "Z0,1080,1"), "OK");
    assert_eq!(ask(&mut session, &mut machine, "Z0,1080,1"), "OK");
    assert_eq!((machine.memory[0x1080], ask(&mut session, &mut machine, "m107f,3")), (TRAP, "7f8081".into()));
    // A write through it is there once it is gone.
    assert_eq!(ask(&mut session, &mut machine, "M1080,1:11"), "OK");
    assert_eq!((machine.memory[0x1080], ask(&mut session, &mut machine, "m1080,1")), (TRAP, "11".into()));
    assert_eq!(ask(&mut session, &mut machine, "z0,1080,1"), "OK");
    assert_eq!((machine.memory[0x1080], ask(&mut session, &mut machine, "z0,1080,1")), (0x11, "OK".into()));
    assert_eq!(ask(&mut session, &mut machine, "Z0,9999999,1"), "E01");
    ask(&mut session, &mut machine, "Z0,2000,1");
    let (out, ended) = session.take(&frame(b"D"), &mut machine);
    assert_eq!((out, ended, machine.memory[0x2000]), (b"+$OK#9a".to_vec(), Some(Ended::Detached), 0));
}

#[test]
fn processors_run_and_step_one_by_one() {
    let (mut session, mut machine) = (Session::default(), Machine::new());
    for (packet, next) in [
        ("vCont;s:2;c", [Next::Run, Next::Step]),
        ("vCont;s:2", [Next::Hold, Next::Step]),
        ("vCont;c", [Next::Run, Next::Run]),
        ("c", [Next::Run, Next::Run]),
    ] {
        assert_eq!(ask(&mut session, &mut machine, packet), "", "the answer comes when it stops");
        assert_eq!(machine.gone.last().unwrap().0, next);
        assert!(session.is_running());
        assert_eq!(ask(&mut session, &mut machine, "g"), "", "nobody looks at what runs");
        let said = String::from_utf8(session.stopped(1, Why::Stepped)).unwrap();
        assert!(said.starts_with("$T05thread:2;"), "{said}");
        assert_eq!(session.stopped(0, Why::Stepped), b"", "told once");
    }
    ask(&mut session, &mut machine, "s");
    assert_eq!(machine.gone.last().unwrap().0, [Next::Hold, Next::Step], "the one that stopped last");
    let (out, _) = session.take(&[3], &mut machine);
    assert!(out.starts_with(b"$T02thread:1;"));
    assert_eq!(ask(&mut session, &mut machine, "vCont;s:7"), "E01");
}

#[test]
fn four_points_of_the_processors_own() {
    let (mut session, mut machine) = (Session::default(), Machine::new());
    for packet in ["Z1,1000,1", "Z2,2000,8", "Z4,2008,4", "Z1,3000,1"] {
        assert_eq!(ask(&mut session, &mut machine, packet), "OK");
    }
    for packet in ["Z1,4000,1", "Z2,2001,8", "Z3,2000,8", "Z2,2000,3"] {
        assert_ne!(ask(&mut session, &mut machine, packet), "OK", "{packet}");
    }
    assert_eq!(ask(&mut session, &mut machine, "z1,1000,1"), "OK");
    ask(&mut session, &mut machine, "c");
    assert_eq!(machine.gone[0].1.len(), 3);
    let said = session.stopped(0, Why::Watched(0x2000, PointKind::Write));
    assert!(said.starts_with(b"$T05watch:2000;thread:1;"));
    ask(&mut session, &mut machine, "c");
    assert!(session.stopped(0, Why::Software).starts_with(b"$T05swbreak:;thread:1;"));
}

#[test]
fn whoever_sends_rubbish_is_asked_again() {
    let (mut session, mut machine) = (Session::default(), Machine::new());
    assert_eq!(session.take(b"$?#00", &mut machine).0, b"-");
    let (first, _) = session.take(&frame(b"?"), &mut machine);
    assert_eq!(session.take(b"-", &mut machine).0, first[1..]);
    assert_eq!(ask(&mut session, &mut machine, "QStartNoAckMode"), "OK");
    assert_eq!(session.take(&frame(b"?"), &mut machine).0[0], b'$');
    assert_eq!(session.take(&frame(b"k"), &mut machine).1, Some(Ended::Killed));
}
