//! Start by firmware: SeaBIOS, as Debian's package `seabios` has it for QEMU's PC (`bios-256k.bin`).
//!
//! ```text
//!   image ─┬─► ROM that ends at 4 GiB, read-only ◄── reset vector f000:fff0, where processor 0 starts in real mode
//!          └─► its last 128 KiB end at 1 MiB, in RAM: shadow memory that needs no bridge to be unlocked
//!
//!   firmware ─► fw_cfg (fw_cfg.rs): what is in this machine (files.rs), ACPI tables with orders how to link them
//!            │                                                                                  (loader.rs)
//!            ├─► places the PCI functions' memory, reads boot sectors by virtio, shows its text on the serial line
//!            └─► INT 10h, 13h, 15h, 16h ◄── boot sector, boot loader, kernel's first stage
//! ```
//! It takes this for the machine that it was written for because the host bridge's subsystem says so. A reset builds the
//! machine anew and begins at the vector again.

mod files;
pub mod fw_cfg;
mod loader;

use crate::boot::{BootError, Hardware};
use crate::config::Config;
use crate::device::Flow;
use crate::gate::lock;
use crate::memory::{self, Memory, MemoryError};
use crate::state::StopReason;
use fw_cfg::{FwCfg, FwCfgState};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, MmapRegion, VolatileMemory};

/// Where it ends, and with it the address space of 32 bits.
const END: u64 = 1 << 32;
/// Where its copy in RAM ends.
const SHADOW_END: u64 = 1 << 20;
/// Most of it that is copied there.
const SHADOW_MAX: usize = 128 << 10;
/// An image is as many of these, ...
const UNIT: usize = 64 << 10;
/// ... at most up to the pages that KVM needs for itself below.
const BYTES_MAX: usize = 256 << 10;
/// KVM's number of its memory: beyond those of RAM, below those of blocks that come and go.
const MEMORY_SLOT: u32 = 63;

/// System control port A: whether addresses have a bit 20, and a way to reset.
const CONTROL_A: u16 = 0x92;
const A20: u8 = 2;
const RESET_NOW: u8 = 1;
/// Reset control of the chip set.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_PROCESSOR: u8 = 4;
/// Where SeaBIOS tells what it does, after it has read this there.
const DEBUG: u16 = 0x402;
const DEBUG_READY: u8 = 0xe9;
/// Longest line of it that is logged whole.
const LINE_MAX: usize = 200;
/// Most bytes of it that a process logs, whatever the number of its resets.
const LOG_MAX: usize = 64 << 10;

/// An image, mapped once for all machines of this process.
#[derive(Debug)]
pub struct Rom(MmapRegion);

impl Rom {
    /// Reads an image. Refuses what can be none.
    pub fn read(file: File) -> io::Result<Arc<Rom>> {
        let mut bytes = Vec::new();
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.is_empty() || bytes.len() > BYTES_MAX || !bytes.len().is_multiple_of(UNIT) {
            let text = "a BIOS image has 64, 128, 192 or 256 KiB";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let region = MmapRegionBuilder::new(bytes.len())
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
            .build()
            .map_err(io::Error::other)?;
        region.as_volatile_slice().copy_from(&bytes);
        Ok(Arc::new(Rom(region)))
    }

    /// Gives it to a machine. The caller keeps it until no processor runs there.
    pub fn attach(&self, vm: &VmFd) -> Result<(), MemoryError> {
        let region = kvm_userspace_memory_region {
            slot: MEMORY_SLOT,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: END - self.0.size() as u64,
            memory_size: self.0.size() as u64,
            userspace_addr: self.0.as_ptr() as u64,
        };
        // SAFETY: the range is this mapping, which stays as long as `self`; the machine's devices keep that (`Firmware`).
        unsafe { vm.set_user_memory_region(region)? };
        Ok(())
    }

    /// Copies its end to where processors in real mode find it.
    pub fn shadow(&self, memory: &Memory) -> Result<(), BootError> {
        let count = self.0.size().min(SHADOW_MAX);
        let mut bytes = vec![0; self.0.size()];
        self.0.as_volatile_slice().copy_to(&mut bytes);
        let end = &bytes[bytes.len() - count..];
        Ok(memory.write_slice(end, GuestAddress(SHADOW_END - count as u64))?)
    }
}

/// In a snapshot. What the files say is made anew, from the configuration.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct FirmwareState {
    fw_cfg: FwCfgState,
}

impl FirmwareState {
    /// Whether anybody has asked for anything yet: what has started without its firmware does without it elsewhere, too.
    pub fn is_in_use(&self) -> bool {
        self.fw_cfg != FwCfgState::default()
    }
}

/// What a machine has for its firmware.
pub struct Firmware {
    fw_cfg: Mutex<FwCfg>,
    debug: Option<Mutex<DebugPort>>,
    _rom: Arc<Rom>,
}

impl Firmware {
    /// After power-on.
    pub fn new(config: &Config, hardware: &Hardware, rom: Arc<Rom>, memory: &Memory) -> Result<Firmware, BootError> {
        let ram = memory::ranges(u64::from(config.memory_mib) << 20);
        let fw_cfg = FwCfg::new(memory.clone(), files::items(hardware, &ram, config.disks.len())?);
        let debug = config.firmware_debug.then(|| Mutex::new(DebugPort { id: config.id.clone(), line: Vec::new() }));
        Ok(Firmware { fw_cfg: Mutex::new(fw_cfg), debug, _rom: rom })
    }

    /// Whether a port is one of these.
    pub fn has(&self, port: u16) -> bool {
        match port {
            DEBUG => self.debug.is_some(),
            CONTROL_A | RESET_CONTROL => true,
            port => fw_cfg::has(port),
        }
    }

    /// Port read.
    pub fn read(&self, port: u16, data: &mut [u8]) -> Flow {
        match port {
            CONTROL_A => data.fill(A20),
            DEBUG => data.fill(DEBUG_READY),
            RESET_CONTROL => data.fill(0),
            port => lock(&self.fw_cfg).read(port, data),
        }
        Flow::Go
    }

    /// Port write.
    pub fn write(&self, port: u16, data: &[u8]) -> Flow {
        let any = |bit: u8| data.iter().any(|byte| byte & bit != 0);
        match (port, &self.debug) {
            (CONTROL_A, _) if any(RESET_NOW) => return Flow::Stop(StopReason::Reset),
            (RESET_CONTROL, _) if any(RESET_PROCESSOR) => return Flow::Stop(StopReason::Reset),
            (CONTROL_A | RESET_CONTROL, _) => {}
            (DEBUG, Some(debug)) => lock(debug).put(data),
            (port, _) => lock(&self.fw_cfg).write(port, data),
        }
        Flow::Go
    }

    /// Writes it down.
    pub fn save(&self) -> FirmwareState {
        FirmwareState { fw_cfg: lock(&self.fw_cfg).save() }
    }

    /// Takes it up.
    pub fn restore(&self, state: &FirmwareState) {
        lock(&self.fw_cfg).restore(&state.fw_cfg);
    }
}

/// Lines for the log, as long as there is room for them.
struct DebugPort {
    id: String,
    line: Vec<u8>,
}

impl DebugPort {
    fn put(&mut self, data: &[u8]) {
        static LOGGED: AtomicUsize = AtomicUsize::new(0);
        for byte in data {
            if *byte != b'\n' && self.line.len() < LINE_MAX {
                self.line.push(if byte.is_ascii_graphic() { *byte } else { b' ' });
                continue;
            }
            if LOGGED.fetch_add(self.line.len() + 1, Ordering::Relaxed) < LOG_MAX {
                let line = String::from_utf8_lossy(&self.line);
                crate::journal::line(&self.id, format_args!("firmware: {}", line.trim_end()));
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn image(bytes: usize) -> io::Result<Arc<Rom>> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&vec![7; bytes])?;
        Rom::read(file.reopen()?)
    }

    #[test]
    fn only_images_that_fit_below_4_gib_are_taken() {
        for bytes in [0, 1000, UNIT + 512, BYTES_MAX + UNIT] {
            assert!(image(bytes).unwrap_err().to_string().contains("KiB"), "{bytes}");
        }
        let memory = memory::map(16 << 20, false).unwrap();
        for (bytes, first) in [(UNIT, 0xf_0000), (BYTES_MAX, 0xe_0000)] {
            image(bytes).unwrap().shadow(&memory).unwrap();
            let mut seen = [0; 2];
            memory.read_slice(&mut seen, GuestAddress(first - 1)).unwrap();
            assert_eq!(seen, [0, 7]);
        }
    }

    fn firmware(debug: bool) -> Firmware {
        let memory = memory::map(16 << 20, false).unwrap();
        let text = format!(
            r#"{{"id": "test", "vcpus": 1, "memory_mib": 16, "firmware": {{"path": "bios"}}, "firmware_debug": {debug},
                "transport": "pci", "control_socket": {{"path": "c"}}, "console": {{"log": {{"path": "l"}}}}}}"#
        );
        let hardware = Hardware { vcpus: 1, possible: None, slots: 0, pci: true, domains: Vec::new() };
        Firmware::new(&Config::parse(text.as_bytes()).unwrap(), &hardware, image(UNIT).unwrap(), &memory).unwrap()
    }

    #[test]
    fn two_ports_reset_and_say_so_only_by_their_bit() {
        let firmware = firmware(false);
        assert!(firmware.has(CONTROL_A) && firmware.has(RESET_CONTROL) && firmware.has(0x510) && !firmware.has(DEBUG));
        assert_eq!((firmware.write(CONTROL_A, &[A20]), firmware.write(RESET_CONTROL, &[2])), (Flow::Go, Flow::Go));
        let reset = || Flow::Stop(StopReason::Reset);
        assert_eq!((firmware.write(CONTROL_A, &[3]), firmware.write(RESET_CONTROL, &[6])), (reset(), reset()));
        let mut seen = [0];
        firmware.read(CONTROL_A, &mut seen);
        assert_eq!(seen, [A20]);
        assert!(!firmware.save().is_in_use());
        firmware.write(0x510, &[0x19, 0]);
        assert!(firmware.save().is_in_use());
    }

    #[test]
    fn what_it_tells_of_itself_stays_bounded() {
        let firmware = firmware(true);
        let mut seen = [0];
        firmware.read(DEBUG, &mut seen);
        assert_eq!(seen, [DEBUG_READY]);
        firmware.write(DEBUG, &[b'x'; LINE_MAX * 2]);
        assert!(lock(firmware.debug.as_ref().unwrap()).line.len() <= LINE_MAX);
    }
}
