//! Which default routes are drawn while some next hops are lost.
use super::*;
use crate::picture;
use crate::sample::outside;
use crate::table::Settings;
use crate::wanted::Way;

fn four(network: &str, last: u8) -> Gateway {
    Gateway {
        network: network.into(),
        address: [203, 0, last, 10].into(),
        prefix: 24,
        next_hop: Some([203, 0, last, 1].into()),
        mac: Mac([2, 0, 0, 0, 4, last]),
        snat: true,
        vtep: None,
    }
}

fn six(network: &str, last: u16) -> Gateway6 {
    Gateway6 {
        network: network.into(),
        address: std::net::Ipv6Addr::new(0x2001, 0xdb8, last, 0, 0, 0, 0, 16),
        prefix: 64,
        next_hop: Some(std::net::Ipv6Addr::new(0x2001, 0xdb8, last, 0, 0, 0, 0, 1)),
        mac: Mac([2, 0, 0, 0, 6, u8::try_from(last).unwrap()]),
        vtep: None,
        proxied: None,
    }
}

/// Three ways out for IPv4 and two for IPv6; `spread`: over all of them.
fn wanted(spread: bool) -> Wanted {
    let way = |out| Way { router: "r".into(), out, balanced: spread };
    let router = |id: &str| Router {
        id: id.into(),
        interfaces: vec![],
        gateway: Some(four("a", if id == "r" { 1 } else { 9 })),
        gateway6: Some(six("a", if id == "r" { 1 } else { 9 })),
        routes: vec![],
    };
    Wanted {
        networks: vec![outside("a", 7, 0), outside("b", 8, 102), outside("c", 9, 0)],
        routers: vec![router("s"), router("r")],
        ways: vec![way(Out::V4(four("b", 2))), way(Out::V6(six("b", 2))), way(Out::V4(four("c", 3)))],
        bfd: vec!["r".into()],
        ..Wanted::default()
    }
}

/// The default routes' next hops, by the tables that are drawn.
fn defaults(wanted: &Wanted, lost: &[&str]) -> Vec<String> {
    let hops = hops(wanted, None);
    let said = |hop: &Hop| if lost.contains(&hop.peer.to_string().as_str()) { Verdict::Lost } else { Verdict::Alive };
    let verdicts: BTreeMap<Hop, Verdict> = hops.keys().map(|hop| (hop.clone(), said(hop))).collect();
    let left = without_lost(wanted, None, &verdicts);
    let drawn = left.as_ref().unwrap_or(wanted);
    let (tables, problems) = picture::draw(drawn, &BTreeMap::new(), None, &Settings::default());
    assert_eq!(problems, []);
    let name = crate::router::router_name("r").to_ne_bytes();
    let mut out = Vec::new();
    for (routes, choices, via) in [(Table::Routes, Table::Choices, 8..12), (Table::Routes6, Table::Choices6, 12..28)] {
        let all = &tables[&routes];
        let Some((_, row)) = all.iter().find(|(k, _)| k.starts_with(&64u32.to_ne_bytes()) && k[4..12] == name) else {
            continue;
        };
        let shared = u32::from_ne_bytes(*row.first_chunk().unwrap()) & 4 != 0;
        let rows: Vec<&Vec<u8>> = if shared { tables[&choices].values().collect() } else { vec![row] };
        out.extend(rows.iter().map(|row| match &row[via.clone()] {
            [a, b, c, d] => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
            six => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(six).unwrap()).to_string(),
        }));
    }
    out
}

#[test]
fn each_next_hop_of_a_watched_router_has_a_session_where_its_way_is_held() {
    let mut wanted = wanted(false);
    let all = hops(&wanted, None);
    let on: Vec<(u32, String)> = all.keys().map(|h| (h.vni, h.peer.to_string())).collect();
    let expected = [(7, "203.0.1.1"), (7, "203.0.3.1"), (7, "2001:db8:1::1"), (8, "203.0.2.1"), (8, "2001:db8:2::1")];
    assert_eq!(on, expected.map(|(vni, hop)| (vni, hop.to_owned())), "what has no tag is one wire");
    assert!(all.values().all(|s| s.router == "r"));
    let mut tables = Tables::new();
    draw(&mut tables, &all);
    assert_eq!(tables[&Table::Watched].len(), 5);
    assert!(
        tables[&Table::Watched]
            .keys()
            .any(|k| k.starts_with(&[&8u32.to_ne_bytes()[..], &[0; 10], &[0xff, 0xff, 203, 0, 2, 10]].concat()))
    );
    // Another host holds one of them; the router has none to another, and itself is no neighbour.
    let far = Some([10, 0, 0, 2].into());
    wanted.routers[1].gateway.as_mut().unwrap().vtep = far;
    assert_eq!((hops(&wanted, None).len(), hops(&wanted, Some([10, 0, 0, 1].into())).len()), (5, 4));
    wanted.routers[1].gateway6.as_mut().unwrap().next_hop = None;
    let own = wanted.routers[1].gateway.as_ref().unwrap().address;
    wanted.routers[1].gateway.as_mut().unwrap().next_hop = Some(own);
    assert_eq!(hops(&wanted, None).len(), 3);
    wanted.bfd.clear();
    assert!(hops(&wanted, None).is_empty());
    // A router has no more than its share.
    let mut many = self::wanted(false);
    many.ways =
        (0..100).map(|n| Way { router: "r".into(), out: Out::V4(four("b", n + 100)), balanced: true }).collect();
    assert_eq!(hops(&many, None).len(), ROUTER_MAX);
}

#[test]
fn spread_ways_go_one_by_one() {
    let wanted = wanted(true);
    assert_eq!(defaults(&wanted, &[]), ["203.0.1.1", "203.0.2.1", "203.0.3.1", "2001:db8:1::1", "2001:db8:2::1"]);
    assert_eq!(defaults(&wanted, &["203.0.2.1", "2001:db8:1::1"]), ["203.0.1.1", "203.0.3.1", "2001:db8:2::1"]);
    assert_eq!(defaults(&wanted, &["203.0.2.1", "203.0.1.1"]), ["203.0.3.1", "2001:db8:1::1", "2001:db8:2::1"]);
    let none = ["203.0.1.1", "203.0.2.1", "203.0.3.1", "2001:db8:1::1", "2001:db8:2::1"];
    assert_eq!(defaults(&wanted, &none), Vec::<String>::new());
}

#[test]
fn without_spreading_the_next_way_that_stands_by_steps_in() {
    let wanted = wanted(false);
    assert_eq!(defaults(&wanted, &[]), ["203.0.1.1", "2001:db8:1::1"]);
    assert_eq!(defaults(&wanted, &["203.0.1.1"]), ["203.0.2.1", "2001:db8:1::1"]);
    assert_eq!(defaults(&wanted, &["203.0.1.1", "203.0.2.1"]), ["203.0.3.1", "2001:db8:1::1"]);
    assert_eq!(defaults(&wanted, &["2001:db8:1::1", "203.0.2.1"]), ["203.0.1.1", "2001:db8:2::1"]);
    assert_eq!(defaults(&wanted, &["2001:db8:1::1", "2001:db8:2::1"]), ["203.0.1.1"]);
}

#[test]
fn routers_that_watch_nothing_are_left_alone() {
    let wanted = wanted(true);
    let verdicts = hops(&Wanted { bfd: vec!["r".into(), "s".into()], ..wanted.clone() }, None);
    let verdicts = verdicts.into_keys().map(|hop| (hop, Verdict::Lost)).collect();
    let left = without_lost(&wanted, None, &verdicts).unwrap();
    assert_eq!(left.routers[0], wanted.routers[0]);
    assert!(left.routers[1].gateway.as_ref().unwrap().next_hop.is_none());
    let fine: BTreeMap<Hop, Verdict> = verdicts.into_keys().map(|hop| (hop, Verdict::Open)).collect();
    assert_eq!(without_lost(&wanted, None, &fine), None);
}
