//! Rings and memory made of fuzzer input, shared by the targets that drive a device.

use pilvi_vmm::memory::{self, Memory};
use pilvi_vmm::virtio::Device;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

const DESCRIPTORS: u32 = 0x1000;
const AVAILABLE: u32 = 0x2000;
const USED: u32 = 0x3000;
/// Guest memory; small, so that made-up addresses often hit it.
const MEMORY: u64 = 0x2_0000;

/// A device with its queues, fed by `input`: one byte of choices, then descriptors, available ring, and what lies in
/// memory.
pub fn drive(device: &mut dyn Device, input: &[u8]) {
    let Some((&choice, rest)) = input.split_first() else { return };
    let Ok(memory) = memory::map(MEMORY, false) else { return };
    let (table, rest) = rest.split_at(rest.len().min(8 * 16));
    let (ring, data) = rest.split_at(rest.len().min(22));
    let put = |bytes: &[u8], at: u32| memory.write_slice(bytes, GuestAddress(u64::from(at)));
    let _ = (put(table, DESCRIPTORS), put(ring, AVAILABLE));
    // Contents lie where plausible descriptors point.
    for at in [0x4000, 0x8000, 0x1_0000] {
        let _ = put(&data[..data.len().min(0x1000)], at);
    }
    device.activate(if choice & 0x80 != 0 { u64::MAX } else { 0 });
    let mut queues: Vec<Queue> = device.queue_sizes().iter().map(|_| queue(choice)).collect();
    for turn in 0..4 {
        let number = usize::from(choice & 3).min(queues.len() - 1);
        let served = if choice & 4 != 0 && turn % 2 == 1 {
            device.host_ready(&mut queues, &memory)
        } else {
            device.serve(number, &mut queues, &memory)
        };
        if served.is_err() {
            break;
        }
    }
    if let Ok(saved) = device.save() {
        let _ = device.restore(&saved, &memory);
    }
    let _ = device.restore(data, &memory);
    let (mut config, offset) = ([0; 8], u64::from(choice));
    device.read_config(offset, &mut config);
    device.write_config(offset & 15, &data[..data.len().min(4)]);
    device.reset();
}

fn queue(choice: u8) -> Queue {
    let mut queue = Queue::new(256).unwrap();
    queue.set_size(8);
    queue.set_desc_table_address(Some(DESCRIPTORS), Some(0));
    queue.set_avail_ring_address(Some(AVAILABLE), Some(0));
    queue.set_used_ring_address(Some(USED), Some(0));
    queue.set_event_idx(choice & 0x40 != 0);
    queue.set_ready(true);
    queue
}

/// Guest memory of the transport and the migration targets.
#[allow(dead_code)]
pub fn memory() -> Memory {
    memory::map(MEMORY, false).unwrap()
}
