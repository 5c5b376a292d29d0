//! What a vhost-user backend says: answers to what it is asked, and requests of its own. Nobody waits for ever, reserves what
//! it names, or believes it about queues that it does not have.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::virtio::Device;
use pilvi_vmm::virtio::counters::Counters;
use pilvi_vmm::virtio::vhost::message::{self, Ask};
use pilvi_vmm::virtio::vhost::shape::{Kind, Shape};
use pilvi_vmm::virtio::vhost::wire::Channel;
use pilvi_vmm::virtio::vhost::{Link, VhostUser};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

/// What a backend says before the device is there. No acknowledgements: the rest of the input are its answers.
fn greeting(kind: &Kind, protocol: u64) -> Vec<u8> {
    let features = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26 | 1 << 12;
    let mut out = message::reply(Ask::GetFeatures as u32, features);
    let agreed = protocol & !message::P_REPLY_ACK & !message::P_BACKEND_REQ | message::P_CONFIG;
    out.extend(message::reply(Ask::GetProtocolFeatures as u32, agreed));
    if agreed & message::P_MQ != 0 {
        out.extend(message::reply(Ask::GetQueueNum as u32, 8));
    }
    if matches!(kind, Kind::Disk { .. }) {
        let mut config = message::message(Ask::GetConfig, false, &[7; 72]);
        config[4] = 5; // an answer
        out.extend(config);
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let Some(([first, protocol, more], rest)) = data.split_first_chunk::<3>() else { return };
    if first & 1 != 0 {
        let Ok((mut channel, mut theirs)) = Channel::new() else { return };
        for part in rest.chunks(700) {
            theirs.write_all(part).unwrap();
            if channel.take().is_err() {
                return;
            }
        }
        return;
    }
    let kind = match first >> 1 & 3 {
        0 | 1 => Kind::Disk { read_only: false },
        2 => Kind::Card { mac: [2; 6], mtu: 1500 },
        _ => Kind::Share { tag: "folder".into() },
    };
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    if first & 8 == 0 {
        theirs.write_all(&greeting(&kind, u64::from(*protocol) | u64::from(*more) << 8)).unwrap();
    }
    if theirs.write_all(&rest[..rest.len().min(64 << 10)]).is_err() || theirs.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let Ok(link) = Link::open("device", ours.into(), Shape { kind, queues: 1 }) else { return };
    let memory = pilvi_vmm::memory::map_shared(1 << 20, false).unwrap();
    let mut device = VhostUser::new(link.clone(), Arc::new(Counters::default())).unwrap();
    device.patience = std::time::Duration::from_millis(20);
    let sizes = device.queue_sizes();
    device.take_kicks(sizes.iter().map(|_| EventFd::new(libc_nonblock()).unwrap()).collect());
    let mut queues: Vec<Queue> = sizes.iter().map(|size| Queue::new(*size).unwrap()).collect();
    for (n, queue) in queues.iter_mut().enumerate() {
        let at = 0x1_0000 * (n as u64 + 1);
        queue.try_set_desc_table_address(GuestAddress(at)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(at + 0x8000)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(at + 0xc000)).unwrap();
        queue.set_ready(true);
    }
    device.activate(device.features() | device.ring_features());
    for _ in 0..3 {
        let _ = device.host_ready(&mut queues, &memory);
        device.write_config(32, &[1]);
        device.rest(&mut queues);
        let _ = device.save();
        device.go_on();
    }
    device.queue_stopped(0);
    device.reset();
    let mut space = [0; 64];
    device.read_config(0, &mut space);
    drop(device);
    let _ = (link.is_connected(), link.bytes());
});

/// Of an event: it does not wait.
fn libc_nonblock() -> i32 {
    0o4000
}
