//! The client against a real BIND, on loopback.
#![allow(clippy::unwrap_used)] // as in any test
use pilvi_dns_update::{
    Change, Data, Server, Trouble,
    testing::{Named, named_is_here},
};
use std::time::Duration;
use tokio::runtime::Runtime;

const WEB: &str = "web.example.org.";

fn server(named: &Named) -> Server {
    Server { address: named.address(), key_file: named.key_file(), patience: Duration::from_secs(5) }
}

fn address(text: &str) -> Data {
    Data::Address(text.parse().unwrap())
}

fn change(name: &str, new: bool, remove: &[Data], add: &[Data]) -> Change {
    let zone = if name.ends_with("arpa.") { "2.0.192.in-addr.arpa." } else { "example.org." };
    Change { zone: zone.into(), name: name.into(), new, remove: remove.to_vec(), add: add.to_vec(), ttl: 77 }
}

#[test]
fn records_come_and_go_one_by_one() {
    if !named_is_here() {
        return;
    }
    let named = Named::start(&["example.org", "2.0.192.in-addr.arpa"], "old TXT \"somebody's\"\n");
    let (runtime, server) = (Runtime::new().unwrap(), server(&named));
    let tell = |change: &Change| runtime.block_on(server.update(change));
    let (one, two, six) = (address("192.0.2.1"), address("192.0.2.2"), address("2001:db8::1"));
    tell(&change(WEB, true, &[], &[one.clone(), six.clone()])).unwrap();
    assert_eq!(named.ask(WEB, "A"), ["192.0.2.1".to_owned()].into());
    assert_eq!(named.ask(WEB, "AAAA"), ["2001:db8::1".to_owned()].into());
    // What is there is taken, whoever put it there; the same twice is no harm.
    assert_eq!(tell(&change(WEB, true, &[], std::slice::from_ref(&two))), Err(Trouble::Taken(WEB.into())));
    assert_eq!(
        tell(&change("old.example.org.", true, &[], std::slice::from_ref(&two))).unwrap_err(),
        Trouble::Taken("old.example.org.".into())
    );
    tell(&change(WEB, false, &[], &[two.clone(), one.clone()])).unwrap();
    assert_eq!(named.ask(WEB, "A").len(), 2);
    let mut found = runtime.block_on(server.look("example.org.", WEB, false)).unwrap();
    found.sort();
    assert_eq!(found, [one.clone(), two.clone(), six.clone()]);
    tell(&change(WEB, false, &[one.clone(), six], &[])).unwrap();
    assert_eq!((named.ask(WEB, "A"), named.ask(WEB, "AAAA").len()), (["192.0.2.2".to_owned()].into(), 0));
    let (back, name) = ("1.2.0.192.in-addr.arpa.", Data::Pointer(WEB.into()));
    tell(&change(back, true, &[], std::slice::from_ref(&name))).unwrap();
    assert_eq!(runtime.block_on(server.look("2.0.192.in-addr.arpa.", back, true)).unwrap(), [name]);
    tell(&change(WEB, false, &[two], &[])).unwrap();
    assert!(runtime.block_on(server.look("example.org.", WEB, false)).unwrap().is_empty(), "the name is gone");
    let elsewhere = Change { zone: "example.net.".into(), ..change("a.example.net.", true, &[], &[one]) };
    let refused = tell(&elsewhere).unwrap_err();
    assert!(matches!(&refused, Trouble::Zone { zone, .. } if zone == "example.net."), "{refused}");
}

#[test]
fn another_key_changes_nothing_and_is_told_from_silence() {
    if !named_is_here() {
        return;
    }
    let mut named = Named::start(&["example.org"], "");
    let (runtime, server) = (Runtime::new().unwrap(), server(&named));
    let tell = || runtime.block_on(server.update(&change(WEB, true, &[], &[address("192.0.2.1")])));
    named.set_secret("YW5vdGhlcg==");
    let refused = tell().unwrap_err();
    assert!(matches!(&refused, Trouble::Key(why) if why.contains("BadSig")), "{refused}");
    std::fs::write(named.key_file(), "key other { algorithm hmac-sha256; secret \"YW5vdGhlcg==\"; };").unwrap();
    let refused = tell().unwrap_err();
    assert!(matches!(&refused, Trouble::Key(why) if why.contains("BadKey")), "{refused}");
    std::fs::write(named.key_file(), "nonsense").unwrap();
    assert!(matches!(tell().unwrap_err(), Trouble::Key(_)));
    assert!(named.ask(WEB, "A").is_empty());
    named.kill();
    named.set_secret(pilvi_dns_update::testing::SECRET);
    assert!(matches!(tell().unwrap_err(), Trouble::Silent(..)));
    named.again();
    tell().unwrap();
    assert_eq!(named.ask(WEB, "A").len(), 1);
}
