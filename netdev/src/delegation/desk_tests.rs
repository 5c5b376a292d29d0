//! What the desk keeps, takes over and gives back.
use super::*;
use crate::wanted::Ask;

fn delegation(id: &str, had: Option<(Ipv6Net, u64)>) -> Delegation {
    Delegation { id: id.into(), ask: Some(Ask { mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 1]), had }) }
}

fn kept(id: &str, until: u64) -> Kept {
    let prefix = "2001:db8:7::/64".parse().unwrap();
    Kept { id: id.into(), mac: Mac([1; 6]), prefix, server: vec![1, 2, 3], t1: 100, t2: 160, until }
}

#[test]
fn a_time_survives_a_process_to_the_second() {
    for epoch in [999, 1000, 1_700_000_000_001, 1_700_000_000_999] {
        let (before, after) = (Time { now: 0, epoch }, Time { now: 0, epoch: epoch + 1 });
        for at in [5_000_001, 5_000_499, 5_000_500, 5_000_999] {
            let said = before.wall(at);
            assert_eq!(after.wall(before.own(said)), said, "{epoch} {at}");
            assert_eq!(before.wall(after.own(said)), said, "{epoch} {at}");
        }
    }
    assert_eq!(Time { now: 0, epoch: 9 }.wall(u64::MAX), u64::MAX);
}

#[test]
fn what_was_kept_goes_on_what_others_had_is_asked_for_and_the_rest_is_new() {
    let time = Time { now: 10_000, epoch: 0 };
    let mut inner = Inner { kept: BTreeMap::from([("a".into(), kept("a", 200))]), ..Inner::default() };
    inner.kept.insert("d".into(), kept("d", 200));
    let had = |until| Some(("2001:db8:7::/64".parse().unwrap(), until));
    let wanted =
        [delegation("a", had(200)), delegation("b", had(300)), delegation("c", None), delegation("d", had(300))];
    inner.want(&wanted, time);
    let known = inner.known(time);
    let told: Vec<_> = known.told.iter().map(|d| (d.id.as_str(), d.prefix.map(|p| p.to_string()), d.until)).collect();
    assert_eq!(told, [("a", Some("2001:db8:7::/64".into()), 200), ("c", None, 0)], "of b and d nobody knows yet");
    assert_eq!(known.kept, [Kept { mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 1]), ..kept("a", 200) }]);
    // Not wanted here any more: left to whoever has the way out now.
    inner.want(&wanted[1..], time);
    assert!(inner.known(time).kept.is_empty() && inner.turn(Time { now: 12_000, epoch: 0 }).len() == 3);
}

#[test]
fn what_is_to_be_given_back_is_said_until_it_is_wanted_no_more() {
    let time = Time { now: 10_000, epoch: 0 };
    let mut inner = Inner { kept: BTreeMap::from([("a".into(), kept("a", 200))]), ..Inner::default() };
    let back = ["a", "b"].map(|id| Delegation { id: id.into(), ask: None });
    inner.want(&back, time);
    let released = |inner: &Inner| {
        let told = inner.known(time).told.into_iter().filter(|d| d.released).map(|d| d.id);
        told.collect::<Vec<_>>()
    };
    assert_eq!(released(&inner), ["b"], "there is nothing of it");
    let frames = inner.turn(time);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0][6..12], [1; 6], "from the way out that there was");
    for now in [11_500, 14_000, 19_000, 30_000] {
        inner.want(&back, Time { now, epoch: 0 });
        inner.turn(Time { now, epoch: 0 });
    }
    assert_eq!(released(&inner), ["a", "b"], "nobody answers: done all the same");
    inner.want(&[delegation("a", None)], Time { now: 31_000, epoch: 0 });
    assert!(released(&inner).is_empty(), "wanted once more");
    inner.want(&[], time);
    assert_eq!(inner.due(), u64::MAX);
}
