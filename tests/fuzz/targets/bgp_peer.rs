//! A hostile BGP peer: any bytes, at the beginning of a session or within one.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    pilvi_bgp::hostile::peer(bytes);
});
