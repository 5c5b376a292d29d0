//! A client against servers that answer, refuse, forget and are silent.
use super::*;
use crate::delegation::wire::{RELEASE, RENEW, REQUEST, SOLICIT};

const SERVER: &[u8] = b"server";
const NO_PREFIX: u16 = 6;

struct Talk {
    client: Client,
    now: u64,
    dice: u32,
}

fn who() -> Identity {
    Identity::new([5, 6], 3)
}

fn net(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// (preferred, valid, prefix)
type Given<'g> = &'g [(u32, u32, &'g str)];

/// An answer to `asked`, of this server; `status`: the association's.
fn answer(asked: &[u8], kind: u8, server: &[u8], preference: u8, status: u16, given: Given<'_>) -> Vec<u8> {
    let mut inner = if status == SUCCESS { Vec::new() } else { option(13, &status.to_be_bytes()) };
    for (preferred, valid, prefix) in given {
        let net = net(prefix);
        let head = [&preferred.to_be_bytes()[..], &valid.to_be_bytes(), &[net.prefix_len()]].concat();
        inner.extend(option(26, &[head, net.addr().octets().to_vec()].concat()));
    }
    let association = [&3u32.to_be_bytes()[..], &[0; 8], &inner].concat();
    let mut out = [&[kind], &asked[1..4]].concat();
    out.extend(option(1, &who().duid));
    out.extend(option(2, server));
    out.extend(option(7, &[preference]));
    out.extend(option(25, &association));
    out
}

impl Talk {
    fn new() -> Self {
        let client = Client::new(who(), 0, &mut || 500);
        Self { client, now: 0, dice: 0 }
    }

    /// Waits for the next message, and says when it came.
    fn next(&mut self) -> Vec<u8> {
        for _ in 0..10 {
            let due = self.client.due();
            assert_ne!(due, u64::MAX, "nothing is due: {:?}", self.client);
            self.now = self.now.max(due);
            if let Some(message) = self.step() {
                return message;
            }
        }
        panic!("it goes round: {:?}", self.client);
    }

    fn step(&mut self) -> Option<Vec<u8>> {
        let dice = &mut self.dice;
        self.client.step(self.now, &mut || {
            *dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *dice >> 8
        })
    }

    fn hear(&mut self, message: &[u8]) -> bool {
        self.client.hear(message, self.now, &mut || 7)
    }

    fn prefix(&self) -> Option<Ipv6Net> {
        self.client.lease().map(|l| l.prefix)
    }

    /// Bound to `prefix` for so many seconds.
    fn bound(given: Given<'_>) -> Self {
        let mut talk = Self::new();
        let asked = talk.next();
        assert!(talk.hear(&answer(&asked, ADVERTISE, SERVER, 255, SUCCESS, given)));
        let asked = talk.next();
        assert_eq!(asked[0], REQUEST);
        assert!(talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, given)));
        assert!(talk.prefix().is_some(), "{:?}", talk.client);
        talk
    }
}

const LENT: Given<'_> = &[(100, 200, "2001:db8:7::/64")];

#[test]
fn a_silent_wire_is_asked_less_and_less() {
    let mut talk = Talk::new();
    let mut times = Vec::new();
    for _ in 0..16 {
        assert_eq!(talk.next()[0], SOLICIT);
        times.push(talk.now);
    }
    assert!(times[0] < 1000, "not all hosts at once");
    let pauses: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
    assert!((1001..=1100).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses.windows(2).take(10).all(|w| w[1] * 10 >= w[0] * 18 && w[1] * 10 <= w[0] * 22), "{pauses:?}");
    assert!(pauses[14] >= 3_240_000 && pauses[14] <= 3_960_000, "an hour at most: {pauses:?}");
    assert_eq!(talk.client.lease(), None);
}

#[test]
fn the_best_offer_of_the_first_pause_is_taken() {
    let mut talk = Talk::new();
    let asked = talk.next();
    let offer = |server: &[u8], preference| answer(&asked, ADVERTISE, server, preference, SUCCESS, LENT);
    assert!(talk.hear(&offer(b"poor", 1)) && talk.hear(&offer(b"good", 9)) && talk.hear(&offer(b"late", 9)));
    assert!(talk.hear(&answer(&asked, ADVERTISE, b"none", 200, NO_PREFIX, &[])), "it has none, whatever its rank");
    assert!(talk.step().is_none(), "more may come");
    let request = talk.next();
    assert_eq!(request[0], REQUEST);
    assert!(request.windows(4).any(|w| w == b"good"));
    assert!(!talk.hear(&answer(&request, REPLY, b"poor", 0, SUCCESS, LENT)), "another was asked");
    assert!(talk.hear(&answer(&request, REPLY, b"good", 0, SUCCESS, LENT)));
    assert_eq!(talk.prefix(), Some(net("2001:db8:7::/64")));
}

#[test]
fn an_unanswered_request_ends_in_a_new_search() {
    let mut talk = Talk::new();
    let asked = talk.next();
    talk.hear(&answer(&asked, ADVERTISE, SERVER, 255, SUCCESS, LENT));
    for n in 0..10 {
        assert_eq!(talk.next()[0], REQUEST, "{n}");
    }
    assert_eq!(talk.next()[0], SOLICIT);
    // Refused for good: looked for anew, with a pause.
    let asked = talk.next();
    talk.hear(&answer(&asked, ADVERTISE, SERVER, 0, SUCCESS, LENT));
    let asked = talk.next();
    assert_eq!(asked[0], REQUEST, "after the first pause any offer will do");
    let before = talk.now;
    talk.hear(&answer(&asked, REPLY, SERVER, 0, NO_PREFIX, &[]));
    assert_eq!(talk.next()[0], SOLICIT);
    assert!(talk.now >= before + 1000);
}

#[test]
fn it_is_renewed_at_half_time_and_rebound_after_that() {
    let mut talk = Talk::bound(LENT);
    let start = talk.now;
    let asked = talk.next();
    assert_eq!((asked[0], talk.now - start), (RENEW, 50_000));
    assert!(asked.windows(6).any(|w| w == SERVER));
    assert!(!talk.hear(&answer(&asked, REPLY, b"another", 0, SUCCESS, LENT)), "only its own server was asked");
    assert!(talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, &[(100, 200, "2001:db8:7::/64")])));
    let start = talk.now;
    assert_eq!(talk.client.lease().unwrap().until, start + 200_000);
    // Silence: asked again, then anybody.
    while talk.next()[0] == RENEW {}
    assert_eq!(talk.now - start, 80_000);
    let rebind = talk.next();
    assert_eq!(rebind[0], wire::REBIND);
    assert!(!rebind.windows(6).any(|w| w == SERVER));
    assert!(talk.hear(&answer(&rebind, REPLY, b"another", 0, SUCCESS, LENT)));
    assert_eq!(talk.client.lease().unwrap().server, b"another");
}

#[test]
fn without_a_word_it_is_kept_for_as_long_as_it_was_lent() {
    let mut talk = Talk::bound(LENT);
    let end = talk.client.lease().unwrap().until;
    while talk.prefix().is_some() {
        assert!(talk.now < end);
        talk.next();
    }
    assert_eq!(talk.client.due().min(talk.now), talk.now);
    assert!(talk.now >= end && talk.client.knows());
    assert_eq!(talk.next()[0], SOLICIT);
}

#[test]
fn a_server_may_take_it_back_change_it_or_forget_it() {
    let mut talk = Talk::bound(LENT);
    let asked = talk.next();
    talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, &[(0, 0, "2001:db8:7::/64"), (60, 90, "fd00:9::/64")]));
    assert_eq!(talk.prefix(), Some(net("fd00:9::/64")), "another instead");
    let asked = talk.next();
    talk.hear(&answer(&asked, REPLY, SERVER, 0, wire::NO_BINDING, &[]));
    assert!(talk.prefix().is_some(), "it may lend it again");
    let asked = talk.next();
    assert_eq!(asked[0], REQUEST);
    talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, &[(60, 90, "fd00:9::/64")]));
    let asked = talk.next();
    assert_eq!(asked[0], RENEW);
    talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, &[(0, 0, "fd00:9::/64")]));
    assert_eq!(talk.prefix(), None);
    assert_eq!(talk.next()[0], SOLICIT);
}

#[test]
fn what_another_host_had_is_asked_for_before_it_is_believed() {
    let had = net("2001:db8:7::/64");
    let start = |until| Talk { client: Client::take_over(who(), had, until, 0, &mut || 3), now: 0, dice: 0 };
    let mut talk = start(500_000);
    assert!(!talk.client.knows());
    let asked = talk.next();
    assert_eq!(asked[0], wire::REBIND);
    assert!(asked.windows(16).any(|w| w == had.addr().octets()));
    talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, LENT));
    assert!(talk.client.knows() && talk.prefix() == Some(had));
    // No server knows of it.
    let mut talk = start(500_000);
    let asked = talk.next();
    talk.hear(&answer(&asked, REPLY, SERVER, 0, wire::NO_BINDING, &[]));
    assert!(talk.client.knows() && talk.prefix().is_none());
    assert_eq!(talk.next()[0], SOLICIT);
    // Nobody says a word.
    let mut talk = start(30_000);
    while !talk.client.knows() {
        talk.next();
    }
    assert!(talk.now >= 30_000 && talk.prefix().is_none());
}

#[test]
fn it_is_given_back_with_a_few_words() {
    let mut talk = Talk::bound(LENT);
    talk.client.release(talk.now, &mut || 7);
    let asked = talk.next();
    assert_eq!(asked[0], RELEASE);
    assert!(talk.hear(&answer(&asked, REPLY, SERVER, 0, SUCCESS, &[])));
    assert!(talk.client.is_done() && talk.client.due() == u64::MAX);
    let mut silent = Talk::bound(LENT);
    silent.client.release(silent.now, &mut || 7);
    for _ in 0..4 {
        assert_eq!(silent.next()[0], RELEASE);
    }
    silent.now = silent.client.due();
    assert!(silent.step().is_none() && silent.client.is_done());
    let mut none = Talk::new();
    none.client.release(0, &mut || 7);
    assert!(none.client.is_done(), "there is nothing to give back");
}

#[test]
fn for_ever_is_for_ever() {
    let talk = Talk::bound(&[(FOREVER, FOREVER, "2001:db8:7::/64")]);
    assert_eq!(talk.client.due(), u64::MAX);
}
