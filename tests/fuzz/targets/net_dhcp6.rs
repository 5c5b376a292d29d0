//! DHCPv6 of a hostile guest: silence, or an answer to the asker that can be read and gives nobody else's address.
#![no_main]
#[path = "net_world.rs"]
mod world;
use dhcproto::{
    Decodable, Decoder,
    v6::{DhcpOption, Message, OptionCode},
};
use libfuzzer_sys::fuzz_target;
use pilvi_netdev::{hostile::Answers, wanted::Ra};
use std::sync::LazyLock;

static ANSWERS: LazyLock<[Answers; 2]> =
    LazyLock::new(|| [Ra::Stateful, Ra::Stateless].map(|ra| Answers::new(&world::wanted(ra), "p")));

fn framed(message: &[u8]) -> Vec<u8> {
    let udp = u16::try_from(8 + message.len()).unwrap();
    let mut frame = [[0x33, 0x33, 0, 1, 0, 2], world::MAC].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(udp.to_be_bytes());
    frame.extend([17, 1, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xf8, 0x16, 0x3e, 0xff, 0xfe, 0, 0, 1]);
    frame.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 34, 2, 35]);
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

fuzz_target!(|data: &[u8]| {
    for answers in ANSWERS.iter() {
        let Some(answer) = answers.to(&framed(data)) else { continue };
        assert_eq!(answer[..6], world::MAC, "to this port alone");
        let message = Message::decode(&mut Decoder::new(&answer[62..])).expect("readable");
        assert_eq!(message.xid()[..], data[1..4], "the asker's number");
        if let Some(DhcpOption::IANA(given)) = message.opts().get(OptionCode::IANA)
            && let Some(DhcpOption::IAAddr(address)) = given.opts.get(OptionCode::IAAddr)
        {
            assert_eq!(address.addr.to_string(), "fd00::5");
        }
    }
});
