//! System call filters, one per kind of thread. What is not listed ends the process with a line that names the call.
//!
//! No list has open, connect, execve, kill, ptrace or mount; nothing can map memory executable. The monitor's list
//! contains the others, because threads that it starts after a reset inherit its filter under their own.

use crate::fault::uffd;
use crate::virtio::net::tap;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// System call number to rules; no rule means any arguments.
pub type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Type byte of KVM's ioctls.
const KVM_IO: u64 = 0xae00;
const KVM_IO_MASK: u64 = 0xff00;
/// ioctls that a running processor needs: KVM_RUN, and what halt detection and crash reports read.
const PROCESSOR_IOCTLS: [u64; 9] = [
    0xae80,      // KVM_RUN
    0x8090_ae81, // KVM_GET_REGS
    0x8138_ae83, // KVM_GET_SREGS
    0x8004_ae98, // KVM_GET_MP_STATE
    0xaead,      // KVM_KVMCLOCK_CTRL
    0x4040_ae79, // KVM_IOEVENTFD: a guest moves a PCI device's memory, and notifications with it
    KVM_SIGNAL_MSI,
    // A guest changes the vectors of a device that another process serves.
    0x4020_ae76, // KVM_IRQFD
    0x4008_ae6a, // KVM_SET_GSI_ROUTING
];
/// An interrupt of a PCI device.
const KVM_SIGNAL_MSI: u64 = 0x4020_aea5;
const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const KVM_GET_DIRTY_LOG: u64 = 0x4010_ae42;
const FIONBIO: u64 = 0x5421;
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Memory, locks, time, end of thread: what the standard library does by itself.
const EVERYWHERE: [i64; 23] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_futex,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_yield,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_getrandom,
    libc::SYS_sched_getaffinity,
];

/// The console log and its watchers.
const CONSOLE: [i64; 4] = [libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_ftruncate, libc::SYS_sendto];

/// Waiting and disk work. The rings are restricted to reading and writing their disk (`virtio::block::ring`).
const DEVICES: [i64; 13] = [
    libc::SYS_io_uring_enter,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_writev,
    libc::SYS_fdatasync,
    libc::SYS_fallocate,
    // An image of its own tables grows and is made durable by its library.
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
];

/// The worker of a vsock device, whom host programs come in to through its listener, or of a disk behind a server.
const SOCKETS: [i64; 5] = [libc::SYS_accept4, libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_shutdown, libc::SYS_poll];

/// A device that another process serves: descriptors go to it, and a channel of its own. A processor, whose driver may reset
/// the device, needs none of these: it reads and writes.
const BACKENDS: [i64; 3] = [libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_socketpair];
/// Bounds on waiting for it.
const TIMEOUTS: [libc::c_int; 2] = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO];

/// Files of a snapshot; a migration's stream is read and written like any file.
const JOB: [i64; 7] = [
    libc::SYS_poll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // Memory is handed to another process.
    libc::SYS_sendmsg,
];

/// Control socket, and building a machine anew.
const MONITOR: [i64; 27] = [
    // Guest memory of one node, at every start.
    libc::SYS_mbind,
    libc::SYS_memfd_create,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_poll,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fcntl,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_seccomp,
    libc::SYS_tgkill,
    libc::SYS_readv,
    libc::SYS_fsync,
    libc::SYS_set_tid_address,
    libc::SYS_sched_setaffinity,
    libc::SYS_getrusage,
];

fn equal(argument: u8, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?])
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(mask),
        value,
    )?])
}

fn base() -> Result<Rules, BackendError> {
    let mut rules: Rules = EVERYWHERE.iter().map(|call| (*call, Vec::new())).collect();
    // Never executable.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![masked(2, libc::PROT_EXEC as u64, 0)?]);
    }
    // A thread names itself, an allocator its memory.
    rules.insert(libc::SYS_prctl, vec![equal(0, libc::PR_SET_NAME as u64)?, equal(0, PR_SET_VMA)?]);
    // Checked builds of the standard library look whether a descriptor is open before they close it.
    rules.insert(libc::SYS_fcntl, vec![equal(1, libc::F_GETFD as u64)?]);
    Ok(rules)
}

/// A virtual processor.
pub fn processor() -> Result<Rules, BackendError> {
    let mut rules = base()?;
    rules.extend(CONSOLE.iter().map(|call| (*call, Vec::new())));
    // A driver that starts or resets a card does so on its processor's thread, and the tap hears of it there.
    let requests = PROCESSOR_IOCTLS.iter().chain(&[tap::TUNSETOFFLOAD]);
    let ioctls = requests.map(|request| equal(1, *request));
    rules.insert(libc::SYS_ioctl, ioctls.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// A device worker.
pub fn worker() -> Result<Rules, BackendError> {
    let mut rules = base()?;
    rules.extend(DEVICES.iter().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_ioctl, vec![equal(1, tap::TUNSETOFFLOAD)?, equal(1, KVM_SIGNAL_MSI)?]);
    Ok(rules)
}

/// The worker of the memory device: blocks that come and go are memory slots of KVM.
pub fn memory_worker() -> Result<Rules, BackendError> {
    let mut rules = base()?;
    rules.extend(DEVICES.iter().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_ioctl, vec![equal(1, KVM_SET_USER_MEMORY_REGION)?, equal(1, KVM_SIGNAL_MSI)?]);
    Ok(rules)
}

/// A device worker that has connections of its own.
pub fn socket_worker() -> Result<Rules, BackendError> {
    let mut rules = worker()?;
    rules.extend(SOCKETS.iter().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_ioctl, vec![equal(1, FIONBIO)?, equal(1, KVM_SIGNAL_MSI)?]);
    Ok(rules)
}

fn timeouts() -> Result<Vec<SeccompRule>, BackendError> {
    let condition = |argument, value: libc::c_int| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64)
    };
    let rule = |option| SeccompRule::new(vec![condition(1, libc::SOL_SOCKET)?, condition(2, option)?]);
    TIMEOUTS.iter().map(|option| rule(*option)).collect()
}

/// The worker of a device that another process serves.
pub fn backend_worker() -> Result<Rules, BackendError> {
    let mut rules = worker()?;
    rules.extend(BACKENDS.iter().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_setsockopt, timeouts()?);
    rules.insert(libc::SYS_ioctl, vec![equal(1, FIONBIO)?, equal(1, KVM_SIGNAL_MSI)?]);
    Ok(rules)
}

/// Long work beside the machine.
pub fn job() -> Result<Rules, BackendError> {
    let mut rules = base()?;
    rules.extend(JOB.iter().map(|call| (*call, Vec::new())));
    rules.insert(libc::SYS_ioctl, vec![equal(1, KVM_GET_DIRTY_LOG)?]);
    Ok(rules)
}

/// What brings memory: started before the monitor is under its own filter, which has none of these ioctls.
pub fn pager() -> Result<Rules, BackendError> {
    let mut rules = base()?;
    rules.extend(SOCKETS.iter().chain(&[libc::SYS_pread64, libc::SYS_setsockopt]).map(|call| (*call, Vec::new())));
    let requests = [FIONBIO, uffd::UFFDIO_UNREGISTER, uffd::UFFDIO_WAKE, uffd::UFFDIO_COPY, uffd::UFFDIO_ZEROPAGE];
    rules.insert(libc::SYS_ioctl, requests.iter().map(|request| equal(1, *request)).collect::<Result<_, _>>()?);
    // Descriptors are given to both threads.
    rules.insert(libc::SYS_fcntl, vec![equal(1, libc::F_GETFD as u64)?, equal(1, libc::F_DUPFD_CLOEXEC as u64)?]);
    Ok(rules)
}

/// The main thread.
pub fn monitor() -> Result<Rules, BackendError> {
    let mut rules = base()?;
    rules.extend(
        CONSOLE
            .iter()
            .chain(&DEVICES)
            .chain(&SOCKETS)
            .chain(&BACKENDS)
            .chain(&JOB)
            .chain(&MONITOR)
            .map(|call| (*call, Vec::new())),
    );
    let mut ioctls = vec![masked(1, KVM_IO_MASK, KVM_IO)?, equal(1, FIONBIO)?];
    // A tap that comes while the machine runs is looked at and set up here.
    for request in tap::REQUESTS {
        ioctls.push(equal(1, request)?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    rules.insert(libc::SYS_setsockopt, timeouts()?);
    // New threads install their own filters.
    let prctls = [libc::PR_SET_NAME as u64, PR_SET_VMA, libc::PR_SET_NO_NEW_PRIVS as u64, libc::PR_SET_SECCOMP as u64];
    rules.insert(libc::SYS_prctl, prctls.iter().map(|option| equal(0, *option)).collect::<Result<_, _>>()?);
    Ok(rules)
}

/// To BPF. A forbidden call raises SIGSYS, which `install_report` turns into a line and an exit code.
pub fn compile(rules: Result<Rules, BackendError>) -> Result<BpfProgram, BackendError> {
    let filter = SeccompFilter::new(rules?, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)?;
    filter.try_into()
}

extern "C" fn on_forbidden(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // si_syscall lies after the common three ints, the call address: offset 24 on x86-64.
    // SAFETY: the kernel passes a valid siginfo of a SIGSYS; an i32 is read inside its 128 bytes.
    let number = unsafe { info.cast::<u8>().add(24).cast::<i32>().read_unaligned() };
    let mut text = *b"pilvi-vmm: forbidden system call 0000\n";
    let (mut rest, last) = (number.unsigned_abs(), text.len() - 2);
    for digit in text[last - 3..=last].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    // SAFETY: write and _exit may be called in a signal handler; the buffer is on this stack.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(i32::from(crate::state::EXIT_SECCOMP));
    }
}

/// Makes forbidden calls say which they were.
pub fn install_report() -> std::io::Result<()> {
    vmm_sys_util::signal::register_signal_handler(libc::SIGSYS, on_forbidden)
        .map_err(|e| std::io::Error::from_raw_os_error(e.errno()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compile_and_the_monitor_allows_what_its_children_need() {
        let monitor = monitor().unwrap();
        let others = [processor(), worker(), memory_worker(), socket_worker(), backend_worker(), job()];
        for rules in others.map(Result::unwrap) {
            assert!(rules.keys().all(|call| monitor.contains_key(call)));
            for forbidden in [libc::SYS_openat, libc::SYS_execve, libc::SYS_socket, libc::SYS_kill, libc::SYS_clone3] {
                assert!(!rules.contains_key(&forbidden));
            }
        }
        for rules in [
            super::processor(),
            super::worker(),
            super::memory_worker(),
            super::socket_worker(),
            super::backend_worker(),
            super::job(),
            super::pager(),
            super::monitor(),
        ] {
            assert!(!compile(rules).unwrap().is_empty());
        }
    }
}
