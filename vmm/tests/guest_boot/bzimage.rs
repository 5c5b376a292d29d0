//! A Linux kernel as boot loaders want it (bzImage), out of the ELF file that the tests start directly: in place of what
//! unpacks a compressed one (minutes, where KVM emulates) stands a stub that goes from 32-bit to 64-bit mode.
//!
//! ```text
//!   setup header │ stub, page tables │ the kernel's segments as they lie in memory
//!                └ pref_address      └ startup_64
//! ```

const KERNEL: u64 = 0x100_0000;
const STUB_BYTES: usize = 0x8000;
const STUB: u64 = KERNEL - STUB_BYTES as u64;
const TABLES: usize = 0x1000;
const HEADER_BYTES: usize = 1024;
/// Where loaders put kernels that do not say otherwise; the entry is told relative to it.
const OLD_PLACE: u32 = 0x10_0000;
const LOADED: u32 = 1;

/// For address ff8000h: cli; lgdt; PAE on; the tables' address into cr3; long mode on; paging on; far into 64-bit code;
/// data segments; the zero page's address cut to 32 bits; to the kernel. Then its descriptors.
const CODE: &[u8] = b"\
\xfa\x0f\x01\x15\x50\x80\xff\x00\x0f\x20\xe0\x83\xc8\x20\x0f\x22\xe0\xb8\x00\x90\xff\x00\x0f\x22\xd8\
\xb9\x80\x00\x00\xc0\x0f\x32\x0d\x00\x01\x00\x00\x0f\x30\x0f\x20\xc0\x0d\x00\x00\x00\x80\x0f\x22\xc0\
\xea\x39\x80\xff\x00\x10\x00\xb8\x18\x00\x00\x00\x8e\xd8\x8e\xc0\x8e\xd0\x89\xf6\xb8\x00\x00\x00\x01\xff\xe0\
\x90\x90\x90\x1f\x00\x58\x80\xff\x00\x90\x90\
\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\x9b\xaf\0\xff\xff\0\0\0\x93\xcf\0";

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The kernel's memory from its first address on, and how long it is with what it clears itself.
fn flat(elf: &[u8]) -> (Vec<u8>, u64) {
    let (first, count) = (word(elf, 32) as usize, usize::from(elf[56]));
    let (mut memory, mut end) = (Vec::new(), 0);
    for head in (0..count).map(|n| first + n * 56).filter(|head| half(elf, *head) == LOADED) {
        let (offset, bytes) = (word(elf, head + 8) as usize, word(elf, head + 32) as usize);
        let address = (word(elf, head + 24).checked_sub(KERNEL)).expect("a kernel below 16 MiB") as usize;
        memory.resize(memory.len().max(address + bytes), 0);
        memory[address..address + bytes].copy_from_slice(&elf[offset..offset + bytes]);
        end = end.max(address as u64 + word(elf, head + 40));
    }
    (memory, end)
}

/// Packs a kernel.
pub fn of(elf: &[u8]) -> Vec<u8> {
    let (memory, end) = flat(elf);
    let mut stub = CODE.to_vec();
    stub.resize(STUB_BYTES, 0);
    let mut entry = |at: usize, value: u64| stub[TABLES + at..TABLES + at + 8].copy_from_slice(&value.to_le_bytes());
    let table = |number: u64| (STUB + TABLES as u64 + number * 0x1000) | 3;
    entry(0, table(1));
    for gib in 0..4 {
        entry(0x1000 + gib * 8, table(2 + gib as u64));
        for n in 0..512 {
            entry(0x2000 + gib * 0x1000 + n * 8, (gib as u64) << 30 | (n as u64) << 21 | 0x83);
        }
    }
    let mut header = vec![0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // sectors of setup code after the first
    put(0x1f4, &(((STUB_BYTES + memory.len()) / 16) as u32).to_le_bytes());
    put(0x1fe, b"\x55\xaa\xeb\x6aHdrS\x0c\x02");
    put(0x211, &[1]); // loaded high
    put(0x214, &OLD_PLACE.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes()); // highest initramfs
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1, 12]); // can be placed, where it prefers
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &STUB.to_le_bytes());
    put(0x260, &((STUB_BYTES as u64 + end) as u32).to_le_bytes());
    [header, stub, memory].concat()
}
