//! Time since the start, near enough for protocol timers.

/// Cycles per microsecond when the processor does not say.
const DEFAULT_MHZ: u64 = 2000;

fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Milliseconds.
pub fn now_ms() -> i64 {
    (cycles() / (mhz() * 1000)) as i64
}

/// Does nothing for so many microseconds.
pub fn rest(micros: u64) {
    let begin = cycles();
    while cycles().wrapping_sub(begin) < mhz() * micros {
        core::hint::spin_loop();
    }
}

fn mhz() -> u64 {
    use core::sync::atomic::{AtomicU64, Ordering};
    static MHZ: AtomicU64 = AtomicU64::new(0);
    let known = MHZ.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let leaf = core::arch::x86_64::__cpuid(0);
    let said = if leaf.eax >= 0x16 { core::arch::x86_64::__cpuid(0x16).eax & 0xffff } else { 0 };
    let mhz = if said == 0 { DEFAULT_MHZ } else { u64::from(said) };
    MHZ.store(mhz, Ordering::Relaxed);
    mhz
}
