//! A migration's stream: guest memory is all that it can write.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::migrate::wire;

mod rings;

fuzz_target!(|data: &[u8]| {
    let memory = rings::memory();
    let _ = wire::receive(&mut &data[..], &memory, &mut []);
    let mut stream = Vec::new();
    wire::greet(&mut stream, &memory).unwrap();
    stream.extend(data);
    let _ = wire::receive(&mut &stream[..], &memory, &mut []);
});
