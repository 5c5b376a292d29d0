//! A delegating router that lies: a client of prefix delegation goes on at its own pace, and takes nothing that guests could not use.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_netdev::hostile::Borrower;

fn framed(message: &[u8]) -> Vec<u8> {
    let udp = u16::try_from(8 + message.len()).unwrap();
    let mut frame = vec![2, 0x70, 0, 0, 0, 9, 0xfa, 0x16, 0x3e, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0];
    frame.extend(udp.to_be_bytes());
    frame.extend([17, 1]);
    for last in [1, 2] {
        frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    frame.extend([2, 35, 2, 34]);
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(message);
    frame
}

/// An answer to `asked` of kind `kind` whose other options are `rest`.
fn answer(asked: &[u8], kind: u8, rest: &[u8]) -> Vec<u8> {
    let length = usize::from(u16::from_be_bytes([asked[6], asked[7]]));
    let client = &asked[4..8 + length];
    [&[kind], &asked[1..4], client, &[0, 2, 0, 4, 0, 3, 0, 1], rest].concat()
}

fuzz_target!(|data: &[u8]| {
    let mut client = Borrower::default();
    let mut rest = data;
    let mut asked = None;
    for _ in 0..64 {
        let Some((&[what, length], more)) = rest.split_first_chunk::<2>() else { break };
        let (part, more) = more.split_at(more.len().min(usize::from(length)));
        rest = more;
        if what & 1 == 0 || asked.is_none() {
            asked = client.speak().or(asked);
            assert!(!client.is_restless(), "it does not turn round and round");
        }
        match (what >> 1 & 3, &asked) {
            (0, _) => drop(client.hear(part)),
            (1, _) => drop(client.hear(&framed(part))),
            (2, Some(asked)) => drop(client.hear(&framed(&answer(asked, 2, part)))),
            (_, Some(asked)) => drop(client.hear(&framed(&answer(asked, 7, part)))),
            _ => {}
        }
        if what == 0xff {
            client.release();
        }
        if let Some(prefix) = client.prefix() {
            let first = prefix.addr().octets()[0];
            assert!(prefix.prefix_len() == 64 && prefix == prefix.trunc());
            assert!(first & 0xe0 == 0x20 || first & 0xfe == 0xfc, "{prefix}");
        }
    }
});
