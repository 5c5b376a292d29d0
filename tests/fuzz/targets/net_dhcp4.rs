//! DHCPv4 of a hostile guest, whole frames and messages alone: silence, or an answer that is for this port and can be read.
#![no_main]
#[path = "net_world.rs"]
mod world;
use dhcproto::{Decodable, Decoder, v4::Message};
use libfuzzer_sys::fuzz_target;
use pilvi_netdev::{hostile::Answers, wanted::Ra};
use std::sync::LazyLock;

static ANSWERS: LazyLock<Answers> = LazyLock::new(|| Answers::new(&world::wanted(Ra::Slaac), "p"));

/// The message in a frame that passes the first checks.
fn framed(message: &[u8]) -> Vec<u8> {
    let udp = u16::try_from(8 + message.len()).unwrap();
    let mut frame = [[0xff; 6], world::MAC].concat();
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((udp + 20).to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67]);
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

fn check(frame: &[u8]) {
    let Some(answer) = ANSWERS.to(frame) else { return };
    // A refusal is for whoever hears it behind the port.
    assert!(answer[..6] == world::MAC || answer[..6] == [0xff; 6], "to this port alone");
    assert!(answer.len() <= 1450 + 14, "it fits into the network");
    let message = Message::decode(&mut Decoder::new(&answer[42..])).expect("readable");
    assert!(message.yiaddr().is_unspecified() || message.yiaddr().octets() == [10, 0, 0, 5]);
}

fuzz_target!(|data: &[u8]| {
    check(data);
    check(&framed(data));
    // With the hardware address in place, so that what follows is reached.
    if data.len() >= 240 {
        let mut message = data.to_vec();
        message[..4].copy_from_slice(&[1, 1, 6, 0]);
        message[24..28].fill(0);
        message[28..34].copy_from_slice(&world::MAC);
        message[236..240].copy_from_slice(&[99, 130, 83, 99]);
        check(&framed(&message));
    }
});
