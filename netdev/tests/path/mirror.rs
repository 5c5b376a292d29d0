//! Taps: what a port that looks sees of others, on its host and from another one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;
use std::collections::BTreeSet;
use std::io::Read;

/// Who sent ICMP to whom, as a raw socket hears it while `work` is done; the tag of a frame is shown.
fn heard(looker: &Guest, work: impl FnOnce()) -> BTreeSet<String> {
    let script = "import socket,time
s=socket.socket(17,3,socket.htons(3));s.bind((\"eth0\",0));s.settimeout(0.3)
print(\"ready\",flush=True);end=time.time()+4;seen=set()
while time.time()<end:
 try: f,a=s.recvfrom(2000)
 except TimeoutError: continue
 if a[2]==4: continue
 if f[12:14]==b\"\\x08\\x00\" and f[23]==1: seen.add(socket.inet_ntoa(f[26:30])+\">\"+socket.inet_ntoa(f[30:34]))
 elif f[12:14]!=b\"\\x08\\x00\" and f[12:14]!=b\"\\x08\\x06\": seen.add(f[12:14].hex())
for x in seen: print(x)";
    let mut child = looker.spawn(&format!("python3 -c '{script}'"));
    let mut out = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    out.read_exact(&mut ready).unwrap();
    work();
    let mut said = String::new();
    out.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    said.split_whitespace().map(str::to_owned).collect()
}

fn tap(id: &str, port: &str, ingress: bool, egress: bool, to: Looker) -> Tap {
    Tap { id: id.into(), port: port.into(), ingress, egress, to }
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_looks_at_another_and_hears_nothing_else() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("taps");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let looker = || Looker::Port("c".into());
    let mut wanted = Wanted {
        networks: vec![network("n", 100, 0), network("m", 101, 1)],
        ports: vec![
            port("a", "n", 1, "10.0.0.11", &["g"]),
            port("b", "n", 2, "10.0.0.12", &["g"]),
            // Its groups let nothing in, and it is on another network.
            port("c", "m", 3, "10.0.1.13", &["none"]),
        ],
        groups: vec![open_group("g"), group("none", vec![])],
        taps: vec![tap("t", "a", true, true, looker())],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.12").await;
    let c = guest(&mut cloud, &plane, "c", "10.0.1.13").await;
    let ping = || assert!(a.pings("10.0.0.12"), "what is looked at goes on: {:?}", plane.stats());
    let (there, back) = ("10.0.0.11>10.0.0.12", "10.0.0.12>10.0.0.11");
    assert_eq!(heard(&c, ping), set(&[there, back]));
    for (ingress, egress, sees) in [(true, false, back), (false, true, there)] {
        wanted.taps = vec![tap("t", "a", ingress, egress, looker())];
        apply(&plane, &wanted).await;
        assert_eq!(heard(&c, ping), set(&[sees]));
    }
    // Two who look, and one that is looked at while it looks: no copy is copied.
    wanted.taps = vec![
        tap("t", "a", true, true, looker()),
        tap("u", "c", true, true, Looker::Port("b".into())),
        tap("v", "a", false, true, Looker::Port("b".into())),
    ];
    apply(&plane, &wanted).await;
    assert_eq!(heard(&c, ping), set(&[there, back]));
    // What the groups refuse never was the port's.
    wanted.taps = vec![tap("t", "b", true, false, looker())];
    wanted.ports[1].groups = vec!["none".into()];
    apply(&plane, &wanted).await;
    assert_eq!(heard(&c, || assert!(!a.pings("10.0.0.12"))), set(&[]));
    wanted.taps.clear();
    wanted.ports[1].groups = vec!["g".into()];
    apply(&plane, &wanted).await;
    assert_eq!(heard(&c, ping), set(&[]), "nobody is looked at any more");
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_reach_a_port_of_another_host() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("tapsfar");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let far = || Looker::Host { vtep: vtep(2), vni: 777 };
    let here = Wanted {
        networks: vec![network("n", 100, 0)],
        ports: vec![port("a", "n", 1, "10.0.0.11", &["g"]), port("b", "n", 2, "10.0.0.12", &["g"])],
        groups: vec![open_group("g")],
        taps: vec![tap("t", "a", true, true, far())],
        ..Wanted::default()
    };
    let mut there = Wanted {
        networks: vec![network("m", 101, 1)],
        ports: vec![port("c", "m", 3, "10.0.1.13", &["none"])],
        groups: vec![group("none", vec![])],
        sinks: vec![TapSink { port: "c".into(), vni: 777, from: vec![vtep(1)] }],
        ..Wanted::default()
    };
    apply(&one, &here).await;
    apply(&two, &there).await;
    let a = guest(&mut cloud, &one, "a", "10.0.0.11").await;
    let _b = guest(&mut cloud, &one, "b", "10.0.0.12").await;
    let c = guest(&mut cloud, &two, "c", "10.0.1.13").await;
    let ping = || assert!(a.pings("10.0.0.12"), "{:?}", one.stats());
    let both = set(&["10.0.0.11>10.0.0.12", "10.0.0.12>10.0.0.11"]);
    assert!(soon(|| heard(&c, ping) == both), "{:?} {:?}", one.stats(), two.stats());
    // Nobody looks there any more: what comes is dropped.
    there.sinks.clear();
    apply(&two, &there).await;
    assert_eq!(heard(&c, ping), set(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn subports_are_looked_at_and_look() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("tapsub");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let under = |id: &str, n: u8, address: &str, vlan: u16| Port {
        parent: Some(Parent { port: "p".into(), vlan }),
        ..port(id, "n", n, address, &["g"])
    };
    let mut wanted = Wanted {
        networks: vec![network("n", 100, 0), network("m", 101, 1)],
        ports: vec![
            port("p", "m", 1, "10.0.1.11", &["g"]),
            under("s", 2, "10.0.0.12", 5),
            port("b", "n", 3, "10.0.0.13", &["g"]),
            port("c", "m", 4, "10.0.1.14", &["g"]),
            port("d", "n", 5, "10.0.0.14", &["g"]),
        ],
        groups: vec![open_group("g")],
        taps: vec![tap("t", "s", true, true, Looker::Port("c".into()))],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let p = guest(&mut cloud, &plane, "p", "10.0.1.11").await;
    let b = guest(&mut cloud, &plane, "b", "10.0.0.13").await;
    let c = guest(&mut cloud, &plane, "c", "10.0.1.14").await;
    let _d = guest(&mut cloud, &plane, "d", "10.0.0.14").await;
    // A ping with the subport's tag, by hand: not every kernel has VLAN devices.
    let tagged = "import socket,struct
def sum(b):
 s=0
 for i in range(0,len(b),2): s+=b[i]<<8|b[i+1]
 s=(s&0xffff)+(s>>16);return ~((s&0xffff)+(s>>16))&0xffff
icmp=struct.pack('>BBHHH',8,0,0,7,1)+bytes(32);icmp=icmp[:2]+struct.pack('>H',sum(icmp))+icmp[4:]
ip=struct.pack('>BBHHHBBH4s4s',0x45,0,20+len(icmp),1,0,64,1,0,socket.inet_aton('10.0.0.12'),socket.inet_aton('10.0.0.13'))
ip=ip[:10]+struct.pack('>H',sum(ip))+ip[12:]
s=socket.socket(17,3);s.bind(('eth0',0))
for i in range(3): s.send(bytes.fromhex('fa163e000003fa163e000002810000050800')+ip+icmp)";
    let ping = || drop(run(&mut p.command("python3", &["-c", tagged])));
    let both = set(&["10.0.0.12>10.0.0.13", "10.0.0.13>10.0.0.12"]);
    assert!(soon(|| heard(&c, ping) == both), "without the tag: {:?}", plane.stats());
    // The other way round: the subport looks at a port.
    wanted.taps = vec![tap("t", "b", true, true, Looker::Port("s".into()))];
    apply(&plane, &wanted).await;
    let seen = heard(&p, || assert!(b.pings("10.0.0.14"), "{:?}", plane.stats()));
    assert_eq!(seen, set(&["10.0.0.13>10.0.0.14", "10.0.0.14>10.0.0.13"]));
}
