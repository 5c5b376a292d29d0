//! The freestanding test guest: a client of our devices that was not written with them (crates `virtio-drivers` and
//! `smoltcp`), small enough to boot in a moment where KVM emulates every instruction.
//!
//! Words of the kernel command line choose what it does, in this order:
//!
//! | word | doing |
//! | --- | --- |
//! | `disk` | reads sector 0 and prints its first bytes, writes a pattern to sector 1 and reads it back, flushes |
//! | `pci` | lists the PCI bus |
//! | `hotplug` | waits until a disk is there, uses it, waits until it is gone; with `acpi` it is told of both |
//! | `grow` | with `acpi`: takes processors that come, lets go of those that are to go, until `q`; after `n` it refuses |
//! | `memory` | takes and gives back memory as the memory device asks, until `q`; `v` has it look whether all is there |
//! | `rng` | prints 16 random bytes |
//! | `smp` | wakes the processors that the MP table names, and counts those that come |
//! | `garbage` | writes nonsense into the virtqueues of every device, over and over, then goes on |
//! | `reset` | counts starts in sector 2 of the disk; resets the machine at the first one |
//! | `triple` | the same, by a triple fault |
//! | `halt`, `fail` | halts for good; reports failure 33 at the exit port |
//! | `panic` | says at the panic device that its kernel has crashed |
//! | `watchdog` | arms the watchdog at the first start of the disk's life and shows no life |
//! | `terminal` | says a line on the virtio terminal and echoes there until `q` |
//! | `vsock` | calls port 1024 of the host, echoes on port 52 until somebody says `bye` |
//! | `spin` | prints `tick N` for ever, without pausing the processor |
//! | `dirty` | changes 1024 pages one after the other for ever, and looks whether each is as it was left |
//! | `disk=...`, `card=...` | what `tests/bench/vmm` measures (see `measure`) |
//! | `net` | gets an address by DHCP (or takes `ip=A.B.C.D/N`), answers ping, and echoes UDP port 7 |
//! | `acpi` | finds power button and power off in the ACPI tables, and uses them from then on |
//! | `idle` | waits |
//! | `restarts` | with `idle`: resets the machine when asked to end, as most systems do on Ctrl-Alt-Del |
//!
//! `net` and `idle` run until byte `q` comes on the serial line, `poweroff` on UDP port 4242, Ctrl-Alt-Del on the
//! keyboard, or the power button. Without any of them the guest powers off by the exit port (0xf4).
#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod clock;
mod dirty;
mod disk;
mod garbage;
mod grow;
mod hal;
mod idle;
mod libc;
mod measure;
mod memory;
mod net;
mod pci;
mod port;
mod serial;
mod smp;
mod start;
mod terminal;
mod user;
mod vsock;

use alloc::vec::Vec;

/// Called by `start` on the boot processor: by which entry, and where the command line is.
pub fn main(entry: &str, command_line: u64) -> ! {
    say!("PILVI-GUEST up by {entry}");
    hal::init_heap();
    let line = start::command_line(command_line);
    let words: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
    let wants = |word: &str| words.contains(&word);
    for device in hal::devices() {
        say!("device {} at {:#x}", device.kind, device.address);
    }
    if wants("pci") {
        pci::list();
    }
    if wants("acpi") {
        acpi::enable_button();
    }
    if wants("hotplug") {
        let told = acpi::listen();
        say!("waiting for a disk");
        if told {
            acpi::wait_for_function();
        }
        while !disk::is_there() {}
        disk::exercise();
        say!("let go of it");
        if told {
            acpi::let_go_of_function();
        }
        while disk::is_there() {}
        say!("it is gone");
    }
    if wants("grow") {
        grow::serve();
    }
    if wants("memory") {
        memory::serve();
    }
    if wants("disk") {
        disk::exercise();
    }
    if wants("rng") {
        disk::random();
    }
    if wants("smp") {
        smp::wake_all();
    }
    if wants("garbage") {
        garbage::run();
        disk::exercise();
    }
    if wants("reset") && disk::first_start() {
        say!("resetting");
        port::write8(0x64, 0xfe);
        loop {}
    }
    if wants("triple") && disk::first_start() {
        say!("triple fault");
        start::triple_fault();
    }
    if wants("halt") {
        say!("halting");
        start::halt_for_good();
    }
    if wants("fail") {
        port::exit(33);
    }
    if wants("panic") {
        port::write8(0x505, port::read8(0x505) & 1);
        start::halt_for_good();
    }
    if wants("watchdog") && disk::first_start() {
        say!("watchdog armed");
        port::write8(0x443, 14);
        loop {}
    }
    if wants("terminal") {
        terminal::serve();
    }
    if wants("vsock") {
        vsock::serve();
    }
    if wants("scribble") {
        disk::scribble();
    }
    if wants("spin") {
        let mut count = 0u64;
        loop {
            say!("tick {count}");
            count += 1;
        }
    }
    if wants("dirty") {
        dirty::run();
    }
    if words.iter().any(|word| word.starts_with("disk=") || word.starts_with("card=")) {
        measure::run(&words);
        loop {
            core::hint::spin_loop();
        }
    }
    if wants("net") {
        let address = words.iter().find_map(|w| w.strip_prefix("ip="));
        net::serve(address);
    }
    if wants("idle") {
        say!("idle");
        idle::init();
        while !idle::asked_to_end() {
            idle::wait();
        }
    }
    if wants("restarts") {
        say!("restarting");
        port::exit(1);
    }
    say!("powering off");
    acpi::power_off();
    port::exit(0)
}

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("PANIC {info}");
    port::exit(32)
}
