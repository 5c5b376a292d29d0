//! What a debugger says: packets of any kind about a machine that is a piece of memory with tables in it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::gdb::command::Point;
use pilvi_vmm::gdb::packet::{PACKET_MAX, frame};
use pilvi_vmm::gdb::registers::Registers;
use pilvi_vmm::gdb::session::{Next, Session, Target, Why};

struct Machine {
    memory: Vec<u8>,
    registers: [Registers; 2],
}

impl Machine {
    fn piece(&self, address: u64, length: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(address).ok()?;
        let end = start.checked_add(length)?;
        (end <= self.memory.len()).then_some(start..end)
    }
}

impl Target for Machine {
    fn processors(&self) -> usize {
        2
    }
    fn registers(&self, processor: usize) -> Option<Registers> {
        self.registers.get(processor).copied()
    }
    fn set_registers(&mut self, processor: usize, registers: &Registers) -> bool {
        self.registers.get_mut(processor).map(|known| *known = *registers).is_some()
    }
    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let piece = self.piece(address, bytes.len());
        piece.map(|piece| bytes.copy_from_slice(&self.memory[piece])).is_some()
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let piece = self.piece(address, bytes.len());
        piece.map(|piece| self.memory[piece].copy_from_slice(bytes)).is_some()
    }
    fn go(&mut self, next: &[Next], hardware: &[Point], _planted: &[u64]) -> bool {
        assert!(next.len() == 2 && hardware.len() <= 4);
        true
    }
    fn stop(&mut self) -> bool {
        true
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let mut machine = Machine { memory: vec![0; 1 << 16], registers: Default::default() };
    if first & 1 == 1 {
        // Paging, with tables that the input may write: each entry leads to the table itself.
        let special = &mut machine.registers[0].special;
        (special.cr0, special.cr3, special.efer) = (1 << 31, 0x1000, 1 << 10);
        for entry in machine.memory[0x1000..0x2000].chunks_mut(8) {
            entry.copy_from_slice(&0x1001_u64.to_le_bytes());
        }
    }
    let mut session = Session::default();
    let before = machine.memory.clone();
    let mut wrote = false;
    for line in rest.split(|byte| *byte == b'\n') {
        wrote |= matches!(line.first(), Some(b'M' | b'X'));
        let packet = if first & 2 == 0 { frame(line) } else { line.to_vec() };
        let (out, ended) = session.take(&packet, &mut machine);
        assert!(out.len() <= (PACKET_MAX + 16) * (line.len() + 1));
        if ended.is_some() {
            break;
        }
        session.stopped(usize::from(first >> 7), Why::Stepped);
    }
    session.clear(&mut machine);
    // Nothing of the debugger stays, unless it wrote.
    assert!(wrote || first & 2 != 0 || machine.memory == before);
});
