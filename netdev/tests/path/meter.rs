//! Metering: what real packets add to labels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

fn counts(direction: Direction, source: &str, destination: &str, excluded: bool) -> MeterRule {
    let net = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
    MeterRule { direction, excluded, source: net(source), destination: net(destination) }
}

fn label(id: &str, rules: Vec<MeterRule>) -> Label {
    Label { id: id.into(), routers: vec!["r".into()], rules }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_count_what_passes_the_way_out_and_nothing_else() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("meter");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let all = |d| counts(d, "", "", false);
    let mut many: Vec<MeterRule> =
        (0..40).map(|i| counts(Direction::Egress, &format!("172.16.{i}.0/24"), "", false)).collect();
    many.push(counts(Direction::Egress, "10.0.0.12/32", "", false));
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1), external()],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            port("b", "n0", 2, "10.0.0.12", &["g"]),
            port("c", "n1", 3, "10.0.1.13", &["g"]),
        ],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], Some(gateway(10)))],
        floating: vec![floating(101, "b", "10.0.0.12", "r")],
        labels: vec![
            label("out", vec![all(Direction::Egress)]),
            label("both", vec![all(Direction::Egress), all(Direction::Ingress)]),
            label("but-b", vec![all(Direction::Egress), counts(Direction::Egress, "10.0.0.12/32", "", true)]),
            label("to-a", vec![counts(Direction::Ingress, "203.0.113.1/32", "10.0.0.11/32", false)]),
            label("long", many),
        ],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let c = guest(&mut cloud, &plane, "c", "10.0.1.13").await;
    assert!(a.pings("10.0.0.12") && a.pings("10.0.1.13") && c.pings("10.0.0.11"));
    assert!(plane.meters().unwrap().values().all(|m| *m == Metered::default()), "what stays inside is not counted");
    a.sh("ping -n -c 3 -i 0.2 -W 2 -s 100 203.0.113.1");
    b.sh("ping -n -c 2 -i 0.2 -W 2 -s 100 203.0.113.1");
    let packets = |id: &str| plane.meters().unwrap()[id].packets;
    assert_eq!([packets("out"), packets("both"), packets("but-b"), packets("to-a")], [5, 10, 3, 3]);
    assert_eq!(packets("long"), 2, "the rule in the third chunk");
    assert_eq!(plane.meters().unwrap()["to-a"].bytes, 3 * 128);
    // A change elsewhere keeps what was counted, an agent that starts anew too; a label that comes back begins anew.
    wanted.labels.retain(|l| l.id != "both");
    apply(&plane, &wanted).await;
    assert_eq!((packets("out"), plane.meters().unwrap().contains_key("both")), (5, false));
    wanted.labels.push(label("both", vec![all(Direction::Ingress)]));
    apply(&plane, &wanted).await;
    assert_eq!((packets("out"), packets("both")), (5, 0));
    wanted.labels[0].routers.clear();
    apply(&plane, &wanted).await;
    a.sh("ping -n -c 1 -W 2 203.0.113.1");
    assert_eq!((packets("out"), packets("both")), (5, 1), "a label counts for its routers alone");
}
