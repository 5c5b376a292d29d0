//! Notes of what groups decide, by what real packets cause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::time::Duration;

/// What has been noted within a moment.
async fn noted(notes: &mut Notes) -> Vec<Note> {
    let mut out = Vec::new();
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(500), notes.next()).await {
        out.extend(more.unwrap());
    }
    out
}

fn watch(port: &str, accepted: bool, dropped: bool) -> Watch {
    Watch { port: port.into(), accepted, dropped }
}

fn brief(note: &Note) -> String {
    let to = if note.direction == Direction::Ingress { "in" } else { "out" };
    let said = if note.accepted { "accept" } else { "drop" };
    format!("{} {to} {said} {}>{} {}", note.port, note.source, note.destination, note.protocol)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_groups_decide_is_noted_where_it_is_asked_for() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("note");
    let config = Config { notes: NoteRate { rate: 1, burst: 10 }, ..cloud.config() };
    let plane = DataPlane::open(config).await.unwrap();
    let mut notes = plane.notes().unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0)],
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["out"]), port("b", "n0", 2, "10.0.0.12", &["open"])],
        groups: vec![out_only("out"), open_group("open")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    assert!(a.pings("10.0.0.12") && !b.pings("10.0.0.11"));
    assert_eq!(noted(&mut notes).await, [], "nobody asked");

    wanted.watches = vec![watch("a", true, true), watch("b", false, true)];
    apply(&plane, &wanted).await;
    assert!(a.pings("10.0.0.12"));
    let said = noted(&mut notes).await;
    let lines: Vec<String> = said.iter().map(brief).collect();
    assert_eq!(
        lines,
        ["a out accept 10.0.0.11>10.0.0.12 1"],
        "the flow's first packet, and only where accepts are asked for"
    );
    assert_eq!((said[0].source_mac, said[0].icmp, said[0].length), (mac(1), (8, 0), 84));
    assert!(!b.connects("10.0.0.11", 81));
    let said = noted(&mut notes).await;
    assert!(!said.is_empty() && said.iter().all(|n| brief(n) == "a in drop 10.0.0.12>10.0.0.11 6"), "{said:?}");
    assert_eq!((said[0].destination_port, said[0].destination_mac, said[0].skipped), (81, mac(1), 0));

    // Drops alone; a flood is cut, and what was left out is told by the next note.
    wanted.watches = vec![watch("a", false, true)];
    apply(&plane, &wanted).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(a.pings("10.0.0.12"));
    b.try_sh("ping -n -f -c 60 -w 3 10.0.0.11");
    let said = noted(&mut notes).await;
    assert!((8..=16).contains(&said.len()), "{}", said.len());
    assert!(said.iter().all(|n| !n.accepted));
    tokio::time::sleep(Duration::from_secs(2)).await;
    b.try_sh("ping -n -c 1 -W 1 10.0.0.11");
    let mut all = said;
    all.extend(noted(&mut notes).await);
    let skipped: u32 = all.iter().map(|n| n.skipped).sum();
    assert!(skipped > 30, "{all:?}");
    wanted.watches.clear();
    apply(&plane, &wanted).await;
    b.try_sh("ping -n -c 1 -W 1 10.0.0.11");
    assert_eq!(noted(&mut notes).await, []);
}
