//! Heap, DMA (memory is mapped one to one) and the devices of the machine's fixed slots.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;
use linked_list_allocator::LockedHeap;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

const HEAP_BYTES: usize = 6 << 20;
const SLOTS: usize = 16;
const SLOTS_START: usize = 0xd000_0000;
const SLOT_BYTES: usize = 0x1000;

#[repr(C, align(4096))]
struct Heap([u8; HEAP_BYTES]);

static mut HEAP: Heap = Heap([0; HEAP_BYTES]);

#[global_allocator]
static ALLOCATOR: LockedHeap = LockedHeap::empty();

/// Gives the heap to the allocator. Called once.
pub fn init_heap() {
    // SAFETY: this is the only use of HEAP, once, before anything is allocated.
    unsafe { ALLOCATOR.lock().init((&raw mut HEAP).cast(), HEAP_BYTES) };
}

/// DMA for `virtio-drivers`.
pub struct Direct;

fn pages(count: usize) -> Layout {
    match Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE) {
        Ok(layout) => layout,
        Err(_) => Layout::new::<Heap>(),
    }
}

// SAFETY: memory is identity mapped, allocations are page aligned, zeroed and exclusive until they are freed.
unsafe impl Hal for Direct {
    fn dma_alloc(count: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty: drivers ask for at least one page.
        let at = unsafe { alloc::alloc::alloc_zeroed(pages(count)) };
        NonNull::new(at).map_or((0, NonNull::dangling()), |at| (at.as_ptr() as PhysAddr, at))
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, vaddr: NonNull<u8>, count: usize) -> i32 {
        // SAFETY: the caller gives back what `dma_alloc` returned, with the same count.
        unsafe { alloc::alloc::dealloc(vaddr.as_ptr(), pages(count)) };
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(paddr as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// A device found in a slot.
#[derive(Clone, Copy)]
pub struct Found {
    /// virtio device number.
    pub kind: u32,
    /// Address of its registers.
    pub address: usize,
}

/// Reads a register.
pub fn read32(address: usize) -> u32 {
    // SAFETY: slot addresses are device registers or empty bus, mapped one to one; reading has no effect on memory.
    unsafe { (address as *const u32).read_volatile() }
}

/// Writes a register.
pub fn write32(address: usize, value: u32) {
    // SAFETY: as above; what a device does with it is what is being tested.
    unsafe { (address as *mut u32).write_volatile(value) };
}

/// All devices, in slot order.
pub fn devices() -> Vec<Found> {
    let mut found = Vec::new();
    for slot in 0..SLOTS {
        let address = SLOTS_START + slot * SLOT_BYTES;
        if read32(address) == 0x7472_6976 {
            found.push(Found { kind: read32(address + 8), address });
        }
    }
    found
}

/// The transport of the first device of a kind, in a slot or on the PCI bus.
pub fn transport(kind: DeviceType) -> Option<SomeTransport<'static>> {
    for device in devices() {
        let header = NonNull::new(device.address as *mut VirtIOHeader)?;
        // SAFETY: a slot that answers with the magic number is a page of device registers for ever.
        match unsafe { MmioTransport::new(header, SLOT_BYTES) } {
            Ok(transport) if transport.device_type() == kind => return Some(transport.into()),
            _ => {}
        }
    }
    crate::pci::transport(kind).map(SomeTransport::from)
}
