//! Is there a KVM that can really run guests? Asked by doing: a guest of a few bytes runs, and its speed is measured.
//!
//! Some hosts have a `/dev/kvm` on which privileged guest code is emulated instruction by instruction. There a guest of
//! ours works, only slowly, and an ordinary distribution kernel dies on the first instruction that the emulator does not
//! know. Neither the name of a module nor the processor's model tells: what runs and how fast does.
//!
//! ```text
//!   open ─► capabilities ─► loop of known length in 64-bit mode, privilege level 0 ─► rate
//!                                     └─► single instructions ─► which ones KVM gives up on
//! ```

use crate::config::CpuFeature;
use crate::cpu::{self, run_loop};
use crate::memory::{self, Memory};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd};
use serde::{Deserialize, Serialize};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::signal::Killable;

/// Most processor time that a whole probe takes, the guest's included: a loaded host is slow, and yet it can run guests.
const LIMIT: Duration = Duration::from_millis(900);
/// So long may it go on undisturbed.
const PATIENCE: Duration = Duration::from_millis(700);
/// Longest time by the clock, however little of it was given to the probe.
const CLOCK_LIMIT: Duration = Duration::from_secs(15);
/// After this much processor time no further instruction is tried: a host so slow has told enough.
const ENOUGH: Duration = Duration::from_millis(500);
/// Between two attempts to take a stuck guest out.
const KICK: Duration = Duration::from_millis(20);
/// Below this rate the code was not run by the processor itself. Emulation does about 1, a processor over 500.
const EMULATED_BELOW_MIPS: f64 = 50.0;
/// Iterations of the first loop: 40 ms where emulation does a million instructions a second.
const SHORT: u64 = 20_000;
/// Iterations of the second loop, where the first was too short to be measured.
const LONG: u64 = 4_000_000;
/// Less than this for the first loop is no emulation, and too short to be measured.
const QUICK: Duration = Duration::from_millis(4);
/// How long the second loop should take.
const TARGET: Duration = Duration::from_millis(20);
/// Instructions of one iteration.
const PER_ITERATION: u64 = 2;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// There is a `/dev/kvm` that this user may open.
    pub present: bool,
    /// A guest ran on it to its end, and everything that a machine needs is there.
    pub usable: bool,
    /// Privileged guest code is emulated: only kernels made for that boot, slowly.
    pub emulated: bool,
    /// For people: why not, or what was measured.
    pub reason: String,
    /// Privileged guest instructions, in millions a second.
    pub million_instructions_per_s: f64,
    /// Instructions that the host's processor has and this KVM gives up on.
    pub missing_instructions: Vec<String>,
}

impl Probe {
    fn without(present: bool, reason: impl Into<String>) -> Probe {
        Probe {
            present,
            usable: false,
            emulated: false,
            reason: reason.into(),
            million_instructions_per_s: 0.0,
            missing_instructions: Vec::new(),
        }
    }

    /// What a machine's configuration should hide from its guest on this host.
    pub fn cpu_mask(&self) -> Vec<CpuFeature> {
        if self.missing_instructions.iter().any(|name| name == "cmpxchg16b") {
            vec![CpuFeature::Cx16]
        } else {
            Vec::new()
        }
    }
}

/// Probes. Takes less than a second, whatever KVM does. Installs a handler for the first real-time signal.
pub fn probe() -> Probe {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(e) => {
            let present = e.errno() != libc::ENOENT && e.errno() != libc::ENODEV;
            return Probe::without(present && e.errno() != libc::EACCES, format!("/dev/kvm cannot be opened: {e}"));
        }
    };
    if let Some(cap) = missing_capability(&kvm) {
        return Probe::without(true, format!("this KVM lacks {cap:?}"));
    }
    if let Err(e) = run_loop::install_kick() {
        return Probe::without(true, format!("no signal handler: {e}"));
    }
    let begin = Instant::now();
    let (tell, told) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("kvm-probe".into()).spawn(move || {
        let _ = tell.send(measure(&kvm));
    });
    let thread = match spawned {
        Ok(thread) => thread,
        Err(e) => return Probe::without(true, format!("no thread: {e}")),
    };
    await_result(&told, &thread, begin).unwrap_or_else(|reason| Probe::without(true, reason))
}

/// Waits for the thread; takes it out of a guest that does not end by itself.
fn await_result(
    told: &mpsc::Receiver<Result<Probe, String>>,
    thread: &JoinHandle<()>,
    begin: Instant,
) -> Result<Probe, String> {
    let mut used = Duration::ZERO;
    while used < LIMIT && begin.elapsed() < CLOCK_LIMIT {
        match told.recv_timeout(KICK) {
            Ok(result) => return result,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("the probe died".into()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        // One that has ended has told how.
        used = cpu::time_of(thread).unwrap_or(used);
        if used > PATIENCE {
            // Kicks make its runs fail, one after the other, until it gives up.
            let _ = thread.kill(run_loop::kick_signal());
        }
    }
    Err("a guest of a few instructions did not end in time".into())
}

fn missing_capability(kvm: &Kvm) -> Option<Cap> {
    let needed = [
        Cap::UserMemory,
        Cap::Irqchip,
        Cap::Pit2,
        Cap::SetTssAddr,
        Cap::SetIdentityMapAddr,
        Cap::Irqfd,
        Cap::Ioeventfd,
        Cap::ImmediateExit,
        Cap::ExtCpuid,
        Cap::MpState,
    ];
    needed.into_iter().find(|cap| !kvm.check_extension(*cap))
}

/// `loop: dec rcx; jnz loop; hlt`
const LOOP: [u8; 6] = [0x48, 0xff, 0xc9, 0x75, 0xfb, 0xf4];

/// Name, cpuid leaf 1 ECX bit, code. Each ends with `hlt`.
const SINGLE: [(&str, u32, &[u8]); 3] = [
    // cmpxchg16b [rsi]
    ("cmpxchg16b", 13, &[0x48, 0x0f, 0xc7, 0x0e, 0xf4]),
    // popcnt rax, rcx
    ("popcnt", 23, &[0xf3, 0x48, 0x0f, 0xb8, 0xc1, 0xf4]),
    // mov rax, cr4; or eax, 1 << 18; mov cr4, rax; xor ecx, ecx; xgetbv
    (
        "xgetbv",
        26,
        &[0x0f, 0x20, 0xe0, 0x0d, 0x00, 0x00, 0x04, 0x00, 0x0f, 0x22, 0xe0, 0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xf4],
    ),
];

const CODE: u64 = 0x1_0000;
const DATA: u64 = 0x1_1000;

/// How a run of the little guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Halted,
    /// KVM's emulator does not know an instruction.
    GaveUp,
    Other,
}

fn measure(kvm: &Kvm) -> Result<Probe, String> {
    let mut took = Duration::MAX;
    // The best of three: the first run in a new process pays for page faults and more.
    for _ in 0..3 {
        let (end, time) = run(kvm, &LOOP, SHORT)?;
        if end != End::Halted {
            return Err(format!("a loop of two instructions ended with {end:?}"));
        }
        took = took.min(time);
        if took < QUICK || thread_time() > ENOUGH {
            break;
        }
    }
    let mut instructions = SHORT * PER_ITERATION;
    if took < QUICK {
        // So long that it is measured well, and ends soon even where it was luck that the first one was short.
        let fits = TARGET.as_nanos() as u64 * SHORT / (took.as_nanos() as u64).max(1);
        let count = fits.clamp(SHORT, LONG);
        took = run(kvm, &LOOP, count)?.1;
        instructions = count * PER_ITERATION;
    }
    let rate = instructions as f64 / took.as_secs_f64().max(1e-9) / 1e6;
    let features = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|e| format!("no cpuid: {e}"))?;
    let ecx = features.as_slice().iter().find(|e| e.function == 1).map_or(0, |e| e.ecx);
    let host = core::arch::x86_64::__cpuid(1).ecx;
    let mut missing = Vec::new();
    for (name, bit, code) in SINGLE {
        if (ecx | host) & (1 << bit) == 0 || thread_time() > ENOUGH {
            continue;
        }
        if run(kvm, code, 1).is_ok_and(|(end, _)| end == End::GaveUp) {
            missing.push(name.to_owned());
        }
    }
    let emulated = rate < EMULATED_BELOW_MIPS || !missing.is_empty();
    let what = if emulated { "is emulated" } else { "runs on the processor" };
    let lacks = if missing.is_empty() { String::new() } else { format!("; not known to it: {}", missing.join(", ")) };
    Ok(Probe {
        present: true,
        usable: true,
        emulated,
        reason: format!("privileged guest code {what} at {rate:.1} million instructions a second{lacks}"),
        million_instructions_per_s: rate,
        missing_instructions: missing,
    })
}

/// Runs `code` in a fresh machine with `count` in RCX until it halts.
fn run(kvm: &Kvm, code: &[u8], count: u64) -> Result<(End, Duration), String> {
    let problem = |what: &'static str| move |e: kvm_ioctls::Error| format!("KVM cannot {what}: {e}");
    let vm = kvm.create_vm().map_err(problem("make a machine"))?;
    vm.set_tss_address(0xfffb_d000).map_err(problem("set the TSS address"))?;
    let memory = memory::map(1 << 20, false).map_err(|e| e.to_string())?;
    memory::attach(&vm, &memory).map_err(|e| e.to_string())?;
    prepare(&memory, code).map_err(|e| e.to_string())?;
    let mut vcpu = vm.create_vcpu(0).map_err(problem("make a processor"))?;
    let table = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(problem("list features"))?;
    vcpu.set_cpuid2(&table).map_err(problem("set features"))?;
    enter_long_mode(&vcpu, count).map_err(problem("set registers"))?;
    let begin = thread_time();
    let end = match vcpu.run() {
        Ok(VcpuExit::Hlt) => End::Halted,
        Ok(VcpuExit::InternalError) => End::GaveUp,
        Ok(_) => End::Other,
        Err(e) => return Err(format!("a guest of a few instructions did not end: {e}")),
    };
    Ok((end, thread_time().saturating_sub(begin)))
}

/// Processor time of this thread, the guest's included: a loaded host must not look like an emulating one.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists for every thread, and the pointer is to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn prepare(memory: &Memory, code: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    crate::boot::linux::write_page_tables(memory)?;
    memory.write_slice(code, GuestAddress(CODE))?;
    Ok(())
}

fn enter_long_mode(vcpu: &VcpuFd, count: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let code =
        kvm_segment { limit: 0xffff_ffff, selector: 8, type_: 11, present: 1, s: 1, l: 1, g: 1, ..Default::default() };
    let data = kvm_segment { selector: 16, type_: 3, l: 0, db: 1, ..code };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = crate::boot::PAGE_TABLES;
    sregs.cr4 = 1 << 5;
    sregs.cr0 = 1 | 1 << 4 | 1 << 31;
    sregs.efer |= 1 << 8 | 1 << 10;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs { rip: CODE, rcx: count, rsi: DATA, rflags: 2, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_in_time_and_agrees_with_itself() {
        let begin = Instant::now();
        let probe = probe();
        assert!(begin.elapsed() < CLOCK_LIMIT + Duration::from_secs(1), "{:?}", begin.elapsed());
        assert!(!probe.reason.is_empty());
        if !probe.present {
            eprintln!("skipped the rest: {}", probe.reason);
            return;
        }
        assert!(probe.usable, "{}", probe.reason);
        assert_eq!(probe.cpu_mask().is_empty(), !probe.missing_instructions.contains(&"cmpxchg16b".to_owned()));
        assert!(probe.million_instructions_per_s > 0.0);
    }

    #[test]
    fn an_endless_guest_is_taken_out() {
        let Ok(kvm) = Kvm::new() else { return };
        run_loop::install_kick().unwrap();
        let thread = std::thread::spawn(move || run(&kvm, &[0xeb, 0xfe], 0).is_err());
        while !thread.is_finished() {
            let _ = thread.kill(run_loop::kick_signal());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert!(thread.join().unwrap());
    }
}
