//! Disk and random number tests.

use crate::hal::{Direct, transport};
use crate::say;
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::{DeviceType, SomeTransport};

type Disk = VirtIOBlk<Direct, SomeTransport<'static>>;

fn open() -> Option<Disk> {
    let Some(transport) = transport(DeviceType::Block) else {
        say!("disk none");
        return None;
    };
    match VirtIOBlk::new(transport) {
        Ok(disk) => Some(disk),
        Err(e) => {
            say!("disk error {e:?}");
            None
        }
    }
}

/// Whether there is a disk at all; it is left reset.
pub fn is_there() -> bool {
    transport(DeviceType::Block).is_some()
}

/// Reads sector 0, writes sector 1 and reads it back.
pub fn exercise() {
    let Some(mut disk) = open() else { return };
    let mut id = [0u8; 20];
    let length = disk.device_id(&mut id).unwrap_or(0);
    let id = core::str::from_utf8(&id[..length]).unwrap_or("?");
    say!("disk sectors={} readonly={} id={id}", disk.capacity(), disk.readonly());
    let mut sector = [0u8; 512];
    match disk.read_blocks(0, &mut sector) {
        Ok(()) => {
            let end = sector.iter().position(|b| !b.is_ascii_graphic()).unwrap_or(0);
            say!("disk sector0={}", core::str::from_utf8(&sector[..end]).unwrap_or("?"));
        }
        Err(e) => say!("disk read error {e:?}"),
    }
    for (n, byte) in sector.iter_mut().enumerate() {
        *byte = (n * 7 % 256) as u8;
    }
    let written = sector;
    match disk.write_blocks(1, &sector).and_then(|()| disk.flush()) {
        Ok(()) => say!("disk written"),
        Err(e) => say!("disk write error {e:?}"),
    }
    sector.fill(0);
    match disk.read_blocks(1, &mut sector) {
        Ok(()) if sector == written => say!("disk verified"),
        Ok(()) => say!("disk differs"),
        Err(e) => say!("disk read error {e:?}"),
    }
    let end = disk.capacity() as usize;
    match disk.read_blocks(end, &mut sector) {
        Ok(()) => say!("disk read beyond its end"),
        Err(_) => say!("disk end holds"),
    }
}

/// True at the first start of this disk's life; sector 2 remembers.
pub fn first_start() -> bool {
    let Some(mut disk) = open() else { return false };
    let mut sector = [0u8; 512];
    if disk.read_blocks(2, &mut sector).is_err() {
        return false;
    }
    let first = sector[0] == 0;
    sector[0] = sector[0].wrapping_add(1);
    say!("start number {}", sector[0]);
    disk.write_blocks(2, &sector).and_then(|()| disk.flush()).is_ok() && first
}

/// Writes numbers for ever, each to the next of 1024 sectors from the 64th on, and says so once it is written.
pub fn scribble() {
    let Some(mut disk) = open() else { return };
    for count in 1u64.. {
        let mut sector = [0u8; 512];
        sector[..8].copy_from_slice(&count.to_le_bytes());
        match disk.write_blocks(64 + (count % 1024) as usize, &sector) {
            Ok(()) => say!("wrote {count}"),
            Err(e) => return say!("disk write error {e:?}"),
        }
    }
}

/// Prints random bytes.
pub fn random() {
    let Some(transport) = transport(DeviceType::EntropySource) else {
        say!("rng none");
        return;
    };
    let mut bytes = [0u8; 16];
    match VirtIORng::<Direct, _>::new(transport).and_then(|mut rng| rng.request_entropy(&mut bytes)) {
        Ok(count) => say!("rng {count} {bytes:02x?}"),
        Err(e) => say!("rng error {e:?}"),
    }
}
