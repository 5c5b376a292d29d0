//! A disk: whatever the rings say, the file keeps its size and nothing outside it is touched.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::virtio::block::file::{Backing, RawFile};
use pilvi_vmm::virtio::block::{Block, Geometry};
use std::cell::OnceCell;
use std::fs::File;

mod rings;

const BYTES: u64 = 64 * 1024;

thread_local! {
    static DISK: OnceCell<File> = const { OnceCell::new() };
}

fuzz_target!(|data: &[u8]| {
    DISK.with(|disk| {
        let file = disk.get_or_init(|| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(BYTES).unwrap();
            file
        });
        let raw = RawFile::new(file.try_clone().unwrap());
        let read_only = data.last().is_some_and(|byte| byte & 1 != 0);
        let geometry = Geometry { bytes: BYTES, read_only, serial: "fuzz".into(), block_size: 512 };
        let ways: Vec<Box<dyn Backing>> = vec![Box::new(raw.clone()), Box::new(raw)];
        rings::drive(&mut Block::new(ways, &geometry, Default::default(), Default::default()), data);
        assert_eq!(file.metadata().unwrap().len(), BYTES);
    });
});
