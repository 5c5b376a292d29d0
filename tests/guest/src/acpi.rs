//! Finds power button, power off and the events of hot-plug through the ACPI tables, as an operating system does; but for
//! the ports of the PCI bus's hot-plug controller, which an operating system leaves to the tables' control methods.

use crate::hal::read32;
use crate::port::{self, read8, write8};
use crate::say;
use core::sync::atomic::{AtomicU32, Ordering};

const SEARCHED: core::ops::Range<usize> = 0xe_0000..0x10_0000;

/// Ports of the event and control blocks, and the sleep type of S5; zero until found.
static EVENT: AtomicU32 = AtomicU32::new(0);
static CONTROL: AtomicU32 = AtomicU32::new(0);
static OFF: AtomicU32 = AtomicU32::new(0);
/// First port of the general purpose events.
static HOT: AtomicU32 = AtomicU32::new(0);
const PCI_EVENT: u8 = 1 << 1;
pub const PROCESSOR_EVENT: u8 = 1 << 2;
const PCI_CAME: u16 = 0xae00;
const PCI_TO_GO: u16 = 0xae04;
const PCI_EJECT: u16 = 0xae08;

fn byte(address: usize) -> u8 {
    // SAFETY: the tables lie in RAM below 1 MiB, mapped one to one.
    unsafe { (address as *const u8).read_volatile() }
}

fn sums_to_zero(address: usize, length: usize) -> bool {
    (0..length).fold(0u8, |sum, n| sum.wrapping_add(byte(address + n))) == 0
}

/// A table of the XSDT by its signature, checked.
fn table(xsdt: usize, signature: &[u8; 4]) -> Option<usize> {
    let entries = (read32(xsdt + 4) as usize - 36) / 8;
    let all = (0..entries).map(|n| read32(xsdt + 36 + n * 8) as usize);
    all.into_iter()
        .find(|at| read32(*at) == u32::from_le_bytes(*signature))
        .filter(|at| sums_to_zero(*at, read32(at + 4) as usize))
}

/// Looks the hardware up and turns the button on.
pub fn enable_button() {
    let signature = u32::from_le_bytes(*b"RSD ");
    let root = SEARCHED.step_by(16).find(|at| read32(*at) == signature && sums_to_zero(*at, 36));
    let Some(xsdt) = root.map(|root| read32(root + 24) as usize) else {
        say!("acpi none");
        return;
    };
    let (Some(fadt), Some(madt)) = (table(xsdt, b"FACP"), table(xsdt, b"APIC")) else {
        say!("acpi broken");
        return;
    };
    let dsdt = read32(fadt + 140) as usize;
    let length = read32(dsdt + 4) as usize;
    // Name(_S5_, Package(4) { byte .. }): the first element follows name, package header and byte prefix.
    let name = (dsdt..dsdt + length - 4).find(|at| read32(*at) == u32::from_le_bytes(*b"_S5_"));
    if !sums_to_zero(dsdt, length) || byte(name.unwrap_or(0) + 7) != 0x0a {
        say!("acpi bad dsdt");
        return;
    }
    OFF.store(u32::from(byte(name.unwrap_or(0) + 8)), Ordering::Relaxed);
    EVENT.store(read32(fadt + 56), Ordering::Relaxed);
    CONTROL.store(read32(fadt + 64), Ordering::Relaxed);
    let slots = (dsdt..dsdt + length - 8).filter(|at| read32(*at) == u32::from_le_bytes(*b"LNRO")).count();
    let mut processors = 0;
    let mut at = madt + 44;
    while at < madt + read32(madt + 4) as usize {
        processors += u32::from(byte(at) == 0);
        at += usize::from(byte(at + 1)).max(2);
    }
    write8(EVENT.load(Ordering::Relaxed) as u16 + 3, 1);
    HOT.store(read32(fadt + 80), Ordering::Relaxed);
    say!("acpi processors={processors} slots={slots}");
}

/// True once after the button was pressed.
pub fn pressed() -> bool {
    let event = EVENT.load(Ordering::Relaxed) as u16;
    let pressed = event != 0 && read8(event + 1) & 1 != 0;
    if pressed {
        write8(event + 1, 1);
        say!("power button");
    }
    pressed
}

/// Enters S5, where the tables told how.
pub fn power_off() {
    let control = CONTROL.load(Ordering::Relaxed) as u16;
    if control != 0 {
        write8(control + 1, (OFF.load(Ordering::Relaxed) << 2) as u8 | 0x20);
    }
}

/// Enables the PCI bus's event. False: the tables tell of none.
pub fn listen() -> bool {
    listen_for(PCI_EVENT)
}

/// Enables an event.
pub fn listen_for(event: u8) -> bool {
    let block = HOT.load(Ordering::Relaxed) as u16;
    if block != 0 {
        write8(block + 2, event);
    }
    block != 0
}

/// Whether the event has come; it is acknowledged.
pub fn take(event: u8) -> bool {
    let block = HOT.load(Ordering::Relaxed) as u16;
    let came = block != 0 && read8(block) & event != 0;
    if came {
        write8(block, event);
    }
    came
}

/// Waits for the event, then asks a register of the controller.
fn wait(register: u16) -> u32 {
    while !take(PCI_EVENT) {}
    port::read32(register)
}

/// Waits until a function has come.
pub fn wait_for_function() {
    say!("came: {:#x}", wait(PCI_CAME));
}

/// Waits until a function is to go, and lets go of it.
pub fn let_go_of_function() {
    let bits = wait(PCI_TO_GO);
    port::write32(PCI_EJECT, bits);
    say!("went: {bits:#x}");
}
