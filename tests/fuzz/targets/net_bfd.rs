//! A next hop that lies: the session with it goes on at its own pace, and silence ends what was believed.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_netdev::hostile::Neighbour;

/// A packet as the programs hand it over, of one family or the other.
fn framed(message: &[u8], six: bool) -> Vec<u8> {
    let udp = u16::try_from(8 + message.len()).unwrap();
    let mut frame = vec![2, 0x73, 0, 0, 0, 9, 0xfa, 0x16, 0x3e, 0, 0, 9];
    if six {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(udp.to_be_bytes());
        frame.extend([17, 255]);
        for last in [1, 2] {
            frame.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + udp).to_be_bytes());
        frame.extend([0, 0, 0, 0, 255, 17, 0, 0, 203, 0, 113, 1, 203, 0, 113, 10]);
    }
    frame.extend([0xc0, 0, 14, 200]);
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

/// A whole packet of the standard's with this state, for the session or for whom it names.
fn packet(part: &[u8], flags: u8) -> Vec<u8> {
    let mut message = [&[0x20, flags, 3, 24, 0, 0, 0, 7][..], &Neighbour::NUMBER.to_be_bytes(), &[0; 12]].concat();
    for (place, byte) in message[2..].iter_mut().zip(part) {
        *place ^= byte;
    }
    message
}

fuzz_target!(|data: &[u8]| {
    let mut session = Neighbour::default();
    let mut rest = data;
    for _ in 0..64 {
        let Some((&[what, length], more)) = rest.split_first_chunk::<2>() else { break };
        let (part, more) = more.split_at(more.len().min(usize::from(length)));
        rest = more;
        match what & 3 {
            0 => drop(session.step()),
            1 => drop(session.hear(part)),
            2 => drop(session.hear(&framed(part, what & 4 != 0))),
            _ => drop(session.hear(&framed(&packet(part, what & 0xf0), what & 4 != 0))),
        }
        let mut said = 0;
        while session.is_restless() {
            if let Some(packet) = session.step() {
                assert!(packet[1] & 0x30 != 0x30 && packet[0] >> 5 == 1 && packet[2] == 3);
                assert_eq!(packet[4..8], Neighbour::NUMBER.to_be_bytes());
                said += 1;
            }
            assert!(said < 4, "it does not turn round and round");
        }
    }
    // Nothing more is heard: whatever was promised is believed no more.
    session.wait_long();
    while session.is_restless() {
        drop(session.step());
    }
    assert!(!session.is_taken(), "a next hop that is silent");
});
