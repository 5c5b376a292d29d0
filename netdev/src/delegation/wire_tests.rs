//! Answers of delegating routers, good, broken and hostile.
use super::*;
use proptest::prelude::*;

fn who() -> Identity {
    Identity::new([1, 2], 9)
}

const XID: [u8; 3] = [7, 8, 9];

fn one(code: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    option(&mut out, code, value);
    out
}

fn prefix(preferred: u32, valid: u32, length: u8, address: &str) -> Vec<u8> {
    let address: Ipv6Addr = address.parse().unwrap();
    let value = [&preferred.to_be_bytes()[..], &valid.to_be_bytes(), &[length], &address.octets()].concat();
    one(IA_PREFIX, &value)
}

fn answer(kind: u8, t1: u32, t2: u32, inner: &[u8]) -> Vec<u8> {
    let association = [&9u32.to_be_bytes()[..], &t1.to_be_bytes(), &t2.to_be_bytes(), inner].concat();
    let head = [&[kind, 7, 8, 9][..], &one(CLIENT_ID, &who().duid), &one(SERVER_ID, b"server")].concat();
    [head, one(IA_PD, &association)].concat()
}

fn read(message: &[u8]) -> Option<Answer> {
    Answer::read(message, &who(), XID)
}

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

#[test]
fn what_is_lent_is_read() {
    let inner = [prefix(60, 120, 56, "2001:db8:1:1ff::"), prefix(60, 120, 64, "fd00:7::")].concat();
    let got = read(&answer(REPLY, 30, 48, &inner)).unwrap();
    assert_eq!((got.kind, &got.server[..], got.t1, got.t2), (REPLY, &b"server"[..], 30, 48));
    let first = net("2001:db8:1:100::/64");
    assert_eq!(got.usable(None).map(|l| (l.prefix, l.valid)), Some((first, 120)), "the first part of a larger block");
    let second = net("fd00:7::/64");
    assert_eq!(got.usable(Some(second)).map(|l| l.prefix), Some(second), "what is there stays");
    let back = read(&answer(REPLY, 0, 0, &prefix(0, 0, 64, "fd00:7::"))).unwrap();
    assert!(back.usable(Some(second)).is_none() && back.ends(second) && !back.ends(first));
}

#[test]
fn what_guests_could_not_use_is_not_taken() {
    for (preferred, valid, length, address) in [
        (60, 120, 65, "2001:db8::"),
        (60, 120, 128, "2001:db8::1"),
        (60, 120, 0, "::"),
        (121, 120, 64, "2001:db8::"),
        (60, 120, 64, "fe80::"),
        (60, 120, 64, "ff02::"),
        (60, 120, 64, "::"),
        (60, 120, 96, "::ffff:10.0.0.0"),
        (1, 9, 64, "2001:db8::"),
    ] {
        let got = read(&answer(REPLY, 0, 0, &prefix(preferred, valid, length, address))).unwrap();
        assert!(got.usable(None).is_none(), "{address}/{length} {preferred} {valid}");
    }
    let twisted = read(&answer(REPLY, 50, 40, &prefix(60, 120, 64, "2001:db8::"))).unwrap();
    assert!(twisted.usable(None).is_none(), "T1 after T2");
    let refused = [prefix(60, 120, 64, "2001:db8::"), one(STATUS, &[0, 6])].concat();
    assert!(read(&answer(REPLY, 0, 0, &refused)).unwrap().usable(None).is_none());
    let many: Vec<u8> = (0..100).flat_map(|n| prefix(60, 120, 64, &format!("2001:db8:{n}::"))).collect();
    assert_eq!(read(&answer(REPLY, 0, 0, &many)).unwrap().lent.len(), PREFIXES_MAX);
}

#[test]
fn an_answer_to_somebody_else_is_none() {
    let good = answer(ADVERTISE, 0, 0, &prefix(60, 120, 64, "2001:db8::"));
    assert!(read(&good).is_some());
    assert!(Answer::read(&good, &who(), [7, 8, 8]).is_none(), "another question's");
    assert!(Answer::read(&good, &Identity::new([1, 3], 9), XID).is_none(), "another client's");
    let other = Answer::read(&good, &Identity { iaid: 8, ..who() }, XID).unwrap();
    assert!(other.association.is_none() && other.usable(None).is_none(), "another association's");
    for kind in [SOLICIT, REQUEST, RENEW, REBIND, RELEASE, 12, 13] {
        let mut wrong = good.clone();
        wrong[0] = kind;
        assert!(read(&wrong).is_none(), "{kind}");
    }
    let nobody = [&[REPLY, 7, 8, 9][..], &one(CLIENT_ID, &who().duid)].concat();
    assert!(read(&nobody).is_none(), "of no server");
    assert!(read(&[nobody, one(SERVER_ID, &[1; 131])].concat()).is_none(), "of one with too long a name");
}

#[test]
fn a_server_says_how_patient_to_be_within_bounds() {
    let with = |seconds: u32| {
        let head = [&[ADVERTISE, 7, 8, 9][..], &one(CLIENT_ID, &who().duid), &one(SERVER_ID, b"server")].concat();
        read(&[head, one(SOL_MAX_RT, &seconds.to_be_bytes())].concat()).unwrap().patience
    };
    assert_eq!([with(59), with(60), with(86_400), with(86_401)], [None, Some(60), Some(86_400), None]);
}

proptest! {
    #[test]
    fn nothing_hostile_gets_further_than_it_may(
        seed in proptest::collection::vec(any::<u8>(), 0..400),
        at in any::<u16>(),
        cut in any::<u16>(),
    ) {
        // Garbage, and a good message with garbage over a part of it.
        let mut near = answer(REPLY, 30, 48, &[prefix(60, 120, 64, "2001:db8::"), prefix(0, 0, 64, "fd00::")].concat());
        let at = usize::from(at) % near.len();
        for (byte, new) in near[at..].iter_mut().zip(seed.iter().take(8)) {
            *byte = *new;
        }
        let cut = usize::from(cut) % (near.len() + 1);
        for message in [&seed[..], &near, &near[..cut]] {
            if let Some(got) = read(message) {
                prop_assert!(got.lent.len() <= PREFIXES_MAX && DUID.contains(&got.server.len()));
                for lent in &got.lent {
                    prop_assert!(is_for_guests(lent.prefix) && lent.preferred <= lent.valid);
                }
            }
        }
    }
}
