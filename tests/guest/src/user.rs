//! Down to the least privilege: where KVM emulates the kernel's instructions, those of programs still run by themselves.
//!
//! Everything is mapped for programs, too; a task state segment with an empty bitmap leaves all ports open. There is no
//! way back, and no interrupt: who is here looks for itself.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

const BITMAP: usize = 104;

/// The least task state: where its bitmap begins, then the bitmap of all ports, and the byte that must follow.
#[repr(C, align(16))]
struct Task([u8; BITMAP + 8192 + 1]);

static mut TASK: Task = Task([0; BITMAP + 8192 + 1]);
static mut SEGMENTS: [u64; 7] =
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, 0, 0];

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Goes on as a program; from there, simply goes on.
pub fn enter() {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    if ENTERED.swap(true, Ordering::Relaxed) {
        return;
    }
    let (task, segments) = ((&raw mut TASK).cast::<u8>(), (&raw mut SEGMENTS).cast::<u64>());
    let (base, limit) = (task as u64, size_of::<Task>() as u64 - 1);
    let low = (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | 0x89 << 40
        | (limit >> 16 & 0xf) << 48
        | (base >> 24 & 0xff) << 56;
    let pointer = Pointer { limit: 55, base: segments as u64 };
    // SAFETY: both live for ever and nothing else uses them. The new segments are flat as the old ones were, and memory is
    // mapped for every privilege, so that the same code goes on with the same stack after `iretq`.
    unsafe {
        task.add(102).cast::<u16>().write_unaligned(BITMAP as u16);
        task.add(size_of::<Task>() - 8).write(0xff);
        segments.add(5).write(low);
        segments.add(6).write(base >> 32);
        asm!(
            "lgdt [{pointer}]",
            "ltr {task:x}",
            "mov {old}, rsp",
            "push 0x1b",
            "push {old}",
            "pushfq",
            "push 0x23",
            "lea {old}, [rip + 2f]",
            "push {old}",
            "iretq",
            "2:",
            pointer = in(reg) &raw const pointer,
            task = in(reg) 0x28u16,
            old = out(reg) _,
        );
    }
}
