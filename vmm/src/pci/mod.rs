//! One PCI bus: how a guest finds devices without being told, and how they come and go while it runs.
//!
//! ```text
//!   port 0xcf8  address ─► port 0xcfc  data     configuration mechanism 1
//!   00:00.0     host bridge                     00:01.0 .. 00:1f.0   one function each
//!   0xd1000000  window for their memory
//! ```
//! Functions interrupt by MSI-X only. A function is added and taken away between two accesses of the guest, which hears of
//! it by the controller in `hotplug`.

pub mod config;
pub mod hotplug;
pub mod msix;
pub mod routes;

use crate::gate::lock;
use config::Space;
use hotplug::Hotplug;
use routes::Routes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use vmm_sys_util::eventfd::EventFd;

/// Port that selects a register.
pub const ADDRESS: u16 = 0xcf8;
/// First port of the data.
pub const DATA: u16 = 0xcfc;
/// Last port of the data.
pub const DATA_LAST: u16 = 0xcff;
/// Memory for functions.
pub const WINDOW: u64 = 0xd100_0000;
/// Its end: a firmware places functions from there downwards.
pub const WINDOW_END: u64 = 0xfec0_0000;
/// Numbers of functions, 0 being the host bridge.
pub const DEVICES: u8 = 32;

const ENABLE: u32 = 1 << 31;

/// What sits at a device number.
pub trait Function: Send + Sync {
    /// Reads its configuration space; bytes outside read as zero.
    fn config_read(&self, offset: u16, data: &mut [u8]);
    /// Writes it.
    fn config_write(&self, offset: u16, data: &[u8]);
    /// Reads its memory, when it claims the address.
    fn memory_read(&self, address: u64, data: &mut [u8]) -> bool;
    /// Writes it.
    fn memory_write(&self, address: u64, data: &[u8]) -> bool;
    /// It is off the bus: nothing reaches it any more, and it touches no guest memory.
    fn unplugged(&self);
}

/// The bus.
pub struct Root {
    /// What comes and goes.
    pub hotplug: Mutex<Hotplug>,
    /// Where KVM's interrupt numbers lead that functions have taken.
    pub routes: Arc<Routes>,
    address: AtomicU32,
    bridge: Space,
    functions: RwLock<BTreeMap<u8, Arc<dyn Function>>>,
}

impl Root {
    /// Empty but for the host bridge. `let_go` becomes readable when the guest lets go of a function.
    pub fn new(let_go: EventFd) -> Root {
        let mut bridge = Space::default();
        bridge.identify(0x8086, 0x1237, 0x06_0000, 0);
        let hotplug = Mutex::new(Hotplug::new(let_go));
        Root { hotplug, routes: Arc::default(), address: AtomicU32::new(0), bridge, functions: RwLock::default() }
    }

    /// Says to a firmware that it finds here what it was written for: `fw_cfg`, and memory where it has shadow memory.
    pub fn expect_firmware(&mut self) {
        self.bridge.subsystem(0x1af4, 0x1100);
    }

    /// Puts a function at a number. False: it is taken, or none.
    pub fn add(&self, number: u8, function: Arc<dyn Function>) -> bool {
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        let free = (1..DEVICES).contains(&number) && !functions.contains_key(&number);
        if free {
            functions.insert(number, function);
        }
        free
    }

    /// Takes the function away. False: there was none.
    pub fn remove(&self, number: u8) -> bool {
        let function = self.functions.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if let Some(function) = &function {
            function.unplugged();
        }
        function.is_some()
    }

    /// The guest lets go of functions.
    fn eject(&self, port: u16, data: &[u8]) {
        let mut hotplug = lock(&self.hotplug);
        for number in hotplug.write(port, data) {
            if self.remove(number) {
                let _ = hotplug.let_go.write(1);
            }
        }
    }

    /// The selected register, as a snapshot keeps it.
    pub fn selected(&self) -> u32 {
        self.address.load(Ordering::Relaxed)
    }

    /// Selects a register.
    pub fn select(&self, address: u32) {
        self.address.store(address, Ordering::Relaxed);
    }

    /// Device number and offset of an access to a data port; None: nothing is selected that could exist.
    fn target(&self, port: u16) -> Option<(u8, u16)> {
        let address = self.selected();
        let (bus, function) = (address >> 16 & 0xff, address >> 8 & 7);
        let offset = (address & 0xfc) as u16 + (port - DATA);
        (address & ENABLE != 0 && bus == 0 && function == 0).then_some(((address >> 11 & 0x1f) as u8, offset))
    }

    fn function(&self, number: u8) -> Option<Arc<dyn Function>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Port read.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if port >= hotplug::FIRST {
            return lock(&self.hotplug).read(port, data);
        }
        match (port, self.target(port.max(DATA))) {
            (ADDRESS, _) => {
                let address = self.selected().to_le_bytes();
                if data.len() == 4 {
                    data.copy_from_slice(&address);
                }
            }
            (_, Some((0, offset))) => self.bridge.read(offset, data),
            (_, Some((number, offset))) => {
                if let Some(function) = self.function(number) {
                    function.config_read(offset, data);
                }
            }
            _ => {}
        }
    }

    /// Port write.
    pub fn write(&self, port: u16, data: &[u8]) {
        match (port, <[u8; 4]>::try_from(data)) {
            (hotplug::FIRST..=hotplug::LAST, _) => self.eject(port, data),
            (ADDRESS, Ok(address)) => self.select(u32::from_le_bytes(address)),
            (DATA..=DATA_LAST, _) => {
                if let Some((number @ 1.., offset)) = self.target(port)
                    && let Some(function) = self.function(number)
                {
                    function.config_write(offset, data);
                }
            }
            _ => {}
        }
    }

    /// Calls functions until one claims the address.
    pub fn memory(&self, mut access: impl FnMut(&dyn Function) -> bool) -> bool {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.values().any(|function| access(function.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(std::sync::Mutex<Vec<(u16, Vec<u8>)>>);

    impl Function for Echo {
        fn config_read(&self, offset: u16, data: &mut [u8]) {
            data.fill(offset as u8);
        }
        fn config_write(&self, offset: u16, data: &[u8]) {
            self.0.lock().unwrap().push((offset, data.to_vec()));
        }
        fn memory_read(&self, address: u64, _data: &mut [u8]) -> bool {
            address == WINDOW
        }
        fn memory_write(&self, _address: u64, _data: &[u8]) -> bool {
            false
        }
        fn unplugged(&self) {
            self.0.lock().unwrap().clear();
        }
    }

    fn root() -> Root {
        Root::new(EventFd::new(libc::EFD_NONBLOCK).unwrap())
    }

    fn read(root: &Root, device: u32, offset: u32) -> u32 {
        root.write(ADDRESS, &(ENABLE | device << 11 | offset).to_le_bytes());
        let mut data = [0; 4];
        root.read(DATA, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn functions_come_and_go_and_empty_numbers_read_as_ones() {
        let (root, echo) = (root(), Arc::new(Echo(Default::default())));
        assert_eq!(read(&root, 0, 0), 0x1237_8086);
        assert_eq!(read(&root, 0, 8) >> 8, 0x06_0000);
        assert_eq!(read(&root, 3, 0), u32::MAX);
        assert!(root.add(3, echo.clone()) && !root.add(3, echo.clone()) && !root.add(0, echo.clone()));
        assert_eq!(read(&root, 3, 0x10), 0x1010_1010);
        root.write(DATA + 2, &[9]);
        root.write(DATA + 2, &[9, 9, 9, 9, 9, 9, 9, 9]);
        assert_eq!(echo.0.lock().unwrap()[0], (0x12, vec![9]));
        assert!(root.memory(|function| function.memory_read(WINDOW, &mut [])));
        // Other buses and functions are empty.
        root.write(ADDRESS, &(ENABLE | 1 << 16 | 3 << 11).to_le_bytes());
        let mut byte = [0];
        root.read(DATA + 3, &mut byte);
        assert_eq!(byte, [0xff]);
        assert!(root.remove(3) && !root.remove(3));
        assert_eq!(read(&root, 3, 0), u32::MAX);
    }

    #[test]
    fn a_guest_takes_a_function_off_the_bus_once() {
        let (root, echo) = (root(), Arc::new(Echo(Default::default())));
        assert!(root.add(3, echo.clone()));
        echo.config_write(0, &[1]);
        for _ in 0..2 {
            root.write(hotplug::FIRST + 8, &(1u32 << 3 | 1).to_le_bytes());
        }
        assert_eq!(lock(&root.hotplug).let_go.read().unwrap(), 1);
        assert!(lock(&root.hotplug).has_let_go(3) && echo.0.lock().unwrap().is_empty());
        assert_eq!((read(&root, 3, 0), read(&root, 0, 0)), (u32::MAX, 0x1237_8086));
    }
}
