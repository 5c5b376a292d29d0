//! A migration's stream: guest memory is all that it can write, and after the state not even that by itself.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::fault::{Missing, PAGE};
use pilvi_vmm::memory::Memory;
use pilvi_vmm::migrate::post::wire as post;
use pilvi_vmm::migrate::wire;

mod rings;

/// What a source may say after the state: every run lies in memory, and every page comes once.
fn late(mut data: &[u8], memory: &Memory) {
    let mut buffer = vec![0; (u64::from(wire::RUN_MAX) * PAGE) as usize];
    let Ok((identity, bits)) = post::take_missing(&mut data, memory) else { return };
    let mut missing = Missing::new(memory, bits);
    let _ = post::welcome_again(&mut data, &identity);
    let mut left = missing.left();
    while let Ok(record) = post::take_record(&mut data, memory, &mut buffer) {
        let (post::Record::Pages { address, bytes } | post::Record::Zeroes { address, bytes }) = record else { continue };
        for page in (address..address + bytes as u64).step_by(PAGE as usize) {
            assert!(missing.host(page).is_some());
            left -= u64::from(missing.arrived(page));
        }
    }
    assert_eq!(missing.left(), left);
    while let Some((start, pages)) = missing.next_run(left * PAGE, 7) {
        (0..pages).for_each(|page| assert!(missing.arrived(start + page * PAGE)));
    }
    assert_eq!(missing.left(), 0);
}

fuzz_target!(|data: &[u8]| {
    let memory = rings::memory();
    let mut stream = data;
    let _ = wire::welcome(&mut stream, &memory);
    let _ = wire::receive(&mut stream, &memory, &mut []);
    let _ = wire::receive(&mut &data[..], &memory, &mut []);
    // A list of missing pages whose checksum is right, then anything.
    let words = pilvi_vmm::fault::Bits::from(vec![vec![u64::from(data.first().copied().unwrap_or(0)) << 3 | 5; 1]]);
    let mut stream = Vec::new();
    post::send_missing(&mut stream, &[0; 16], &Missing::new(&memory, words).bits()).unwrap();
    stream.extend(data);
    late(&stream[1..], &memory);
    late(data, &memory);
});
