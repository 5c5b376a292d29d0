//! IPv6 frames of a hostile guest that the agent is asked with (router solicitations, DHCPv6): silence or an answer to it.
#![no_main]
#[path = "net_world.rs"]
mod world;
use libfuzzer_sys::fuzz_target;
use pilvi_netdev::{hostile::Answers, wanted::Ra};
use std::sync::LazyLock;

static ANSWERS: LazyLock<[Answers; 3]> =
    LazyLock::new(|| [Ra::Slaac, Ra::Stateful, Ra::Stateless].map(|ra| Answers::new(&world::wanted(ra), "p")));

fuzz_target!(|data: &[u8]| {
    let mut frame = data.to_vec();
    if frame.len() >= 14 {
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    }
    for answers in ANSWERS.iter() {
        let Some(answer) = answers.to(&frame) else { continue };
        assert_eq!(answer[12..14], [0x86, 0xdd]);
        let length = usize::from(u16::from_be_bytes([answer[18], answer[19]]));
        assert_eq!(answer.len(), 54 + length, "the header says what follows");
        // An advertisement is for all behind the port, a DHCPv6 answer for the asker.
        assert!(answer[..6] == world::MAC || answer[..6] == [0x33, 0x33, 0, 0, 0, 1]);
    }
});
