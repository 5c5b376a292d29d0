//! Questions about names of a hostile guest, and what a hostile server says to them: silence, or an answer to the asker
//! alone that fits and repeats the question's number.
#![no_main]
#[path = "net_world.rs"]
mod world;
use libfuzzer_sys::fuzz_target;
use pilvi_netdev::{
    hostile::Names,
    wanted::{Name, Ra, Zone},
};
use std::sync::LazyLock;

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let mut wanted = world::wanted(Ra::Slaac);
    let name = |name: &str, addresses: &[&str]| Name {
        name: name.into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    };
    let names = vec![name("guest", &["10.0.0.5", "fd00::5"]), name("www.other.example.", &["10.0.0.6"])];
    wanted.zones = vec![Zone { network: "n".into(), domain: "inside.".into(), closed: true, also: "cloud.".into(), names }];
    Names::new(&wanted, "p", 7)
});

fn udp(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + message.len()).unwrap().to_be_bytes();
    [&[0x0f, 0xa0, 0, 53][..], &length, &[0, 0], message].concat()
}

/// The question as a guest sends it, by both families.
fn frames(message: &[u8]) -> [Vec<u8>; 2] {
    let udp = udp(message);
    let ends = [NAMES.station(), world::MAC].concat();
    let total = u16::try_from(20 + udp.len()).unwrap().to_be_bytes();
    let v4 = [&[8, 0, 0x45, 0][..], &total, &[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 5, 169, 254, 169, 253]].concat();
    let local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xf8, 0x16, 0x3e, 0xff, 0xfe, 0, 0, 1];
    let ours = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa9, 0xfe, 0xa9, 0xfd];
    let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
    let v6 = [&[0x86, 0xdd, 0x60, 0, 0, 0][..], &length, &[17, 64], &local, &ours].concat();
    [v4, v6].map(|head| [&ends[..], &head, &udp].concat())
}

fuzz_target!(|data: &[u8]| {
    for (frame, head) in frames(data).into_iter().zip([42, 62]) {
        let Some(said) = NAMES.to(&frame) else { continue };
        // What others would be asked has no number yet and no station before it.
        if said[..2] == [0, 0] {
            assert!(said.len() <= 512 + 11, "our own words");
            continue;
        }
        assert_eq!(said[..6], world::MAC, "to this port alone");
        assert_eq!(said[head..head + 2], data[..2], "the asker's number");
        assert!(said.len() <= head + 1232 + 12 && said[head + 2] & 0x80 != 0, "an answer that fits");
    }
    if let Some(said) = NAMES.by_connection(data) {
        assert!(said.len() <= 65_535);
    }
    // The first half asks, the second is what comes back.
    let (question, answer) = data.split_at(data.len() / 2);
    if let Some(told) = NAMES.from_outside(question, answer) {
        assert!(told.len() <= 1232.max(question.len()) && told[..2] == question[..2]);
    }
    let _ = NAMES.to(data);
});
