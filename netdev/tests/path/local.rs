//! Local IPs, by what real guests of one host and of two see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use crate::cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

fn local(id: &str, port: &str, fixed: &str, translates: bool) -> LocalIp {
    let address = "10.0.0.200".parse().unwrap();
    LocalIp { id: id.into(), port: port.into(), address, fixed: fixed.parse().unwrap(), translates }
}

/// Answers each connection with its own name and the address that was asked for.
fn serve(cloud: &mut Cloud, guest: &Guest, name: &str) {
    let script = format!(
        "python3 -u -c 'import socket\ns=socket.socket();s.setsockopt(1,2,1);s.bind((\"\",80));s.listen()\nwhile 1:\n c,a=s.accept();c.sendall((\"{name} \"+c.getsockname()[0]+\" \"+a[0]).encode());c.close()'"
    );
    cloud.background(guest.spawn(&script));
}

fn ask(guest: &Guest, to: &str) -> String {
    text(&guest.try_sh(&format!("timeout 3 nc -d {to} 80")).stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_means_the_guest_of_the_same_host() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("local");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let mut wanted = Wanted {
        networks: vec![network("n0", 100, 0), network("n1", 101, 1)],
        ports: vec![
            port("a", "n0", 1, "10.0.0.11", &["g"]),
            port("s", "n0", 2, "10.0.0.12", &["g"]),
            port("t", "n0", 3, "10.0.0.13", &["g"]),
            port("far", "n1", 4, "10.0.1.14", &["g"]),
        ],
        groups: vec![open_group("g")],
        routers: vec![router("r", vec![leg("n0", 0, 1), leg("n1", 1, 2)], None)],
        locals: vec![local("l", "s", "10.0.0.12", true)],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let a = guest(&mut cloud, &plane, "a", "10.0.0.11").await;
    let s = guest(&mut cloud, &plane, "s", "10.0.0.12").await;
    let t = guest(&mut cloud, &plane, "t", "10.0.0.13").await;
    let far = guest(&mut cloud, &plane, "far", "10.0.1.14").await;
    serve(&mut cloud, &s, "s");
    serve(&mut cloud, &t, "t");
    let lip = "10.0.0.200";
    assert!(soon(|| ask(&a, lip) == "s 10.0.0.12 10.0.0.11"), "{:?}", plane.stats());
    assert!(a.sh(&format!("ip neigh show {lip}")).contains("fa:16:3e:00:00:02"), "by the guest's hardware address");
    assert!(a.pings(lip) && a.pings("10.0.0.12"), "and by its own address as before");
    assert_eq!(ask(&a, "10.0.0.12"), "s 10.0.0.12 10.0.0.11");
    a.sh(&format!("ping -n -c 2 -i 0.2 -W 2 -s 4000 {lip}"));
    assert!(s.pings("10.0.0.11"), "what it begins itself is its own");
    assert!(far.pings(lip) && ask(&far, lip) == "s 10.0.0.12 10.0.1.14", "routed on this host: {:?}", plane.stats());
    // Nobody listens: the guest's error comes back as the local IP's.
    let udp = format!(
        "import socket\ns=socket.socket(2,2);s.settimeout(2);s.connect(('{lip}',9))\ns.send(b'x')\ntry:\n s.recv(9)\nexcept ConnectionRefusedError: print('refused')"
    );
    assert_eq!(text(&run(&mut a.command("python3", &["-c", &udp])).stdout), "refused\n");
    // Another guest stands behind it.
    wanted.locals = vec![local("l", "t", "10.0.0.13", true)];
    apply(&plane, &wanted).await;
    a.sh("ip neigh flush dev eth0");
    assert!(soon(|| ask(&a, lip) == "t 10.0.0.13 10.0.0.11"));
    // The guest has the address itself: nothing is translated, and it may speak by it.
    wanted.locals = vec![local("l", "t", "10.0.0.13", false)];
    apply(&plane, &wanted).await;
    assert!(!a.pings(lip), "it does not know the address yet");
    t.sh(&format!("ip addr add {lip}/32 dev eth0"));
    assert!(soon(|| ask(&a, lip) == format!("t {lip} 10.0.0.11")), "{:?}", plane.stats());
    wanted.locals.clear();
    apply(&plane, &wanted).await;
    a.sh("ip neigh flush dev eth0");
    assert!(!a.pings(lip), "nobody has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_has_its_own() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("local2");
    let one = DataPlane::open(cloud.node(1)).await.unwrap();
    let two = DataPlane::open(cloud.node(2)).await.unwrap();
    let remote = |port: &str, n: u8, address: &str, host: u8| Remote {
        port: port.into(),
        network: "n0".into(),
        mac: mac(n),
        addresses: vec![address.parse().unwrap()],
        vtep: vtep(host),
        groups: vec!["g".into()],
    };
    let base = Wanted { networks: vec![network("n0", 100, 0)], groups: vec![open_group("g")], ..Wanted::default() };
    // On the second host the address is that of a guest of the first, until it has a guest of its own.
    let wanted1 = Wanted {
        ports: vec![port("a", "n0", 1, "10.0.0.11", &["g"]), port("real", "n0", 5, "10.0.0.200", &["g"])],
        remotes: vec![remote("b", 2, "10.0.0.12", 2), remote("s", 3, "10.0.0.13", 2)],
        ..base.clone()
    };
    let mut wanted2 = Wanted {
        ports: vec![port("b", "n0", 2, "10.0.0.12", &["g"]), port("s", "n0", 3, "10.0.0.13", &["g"])],
        remotes: vec![remote("a", 1, "10.0.0.11", 1), remote("real", 5, "10.0.0.200", 1)],
        ..base
    };
    apply(&one, &wanted1).await;
    apply(&two, &wanted2).await;
    let a = guest(&mut cloud, &one, "a", "10.0.0.11").await;
    let real = guest(&mut cloud, &one, "real", "10.0.0.200").await;
    let b = guest(&mut cloud, &two, "b", "10.0.0.12").await;
    let s = guest(&mut cloud, &two, "s", "10.0.0.13").await;
    serve(&mut cloud, &real, "real");
    serve(&mut cloud, &s, "s");
    assert!(soon(|| ask(&b, "10.0.0.200") == "real 10.0.0.200 10.0.0.12"), "{:?}", two.stats());
    wanted2.locals = vec![local("l", "s", "10.0.0.13", true)];
    apply(&two, &wanted2).await;
    b.sh("ip neigh flush dev eth0");
    assert!(soon(|| ask(&b, "10.0.0.200") == "s 10.0.0.13 10.0.0.12"), "{:?}", two.stats());
    assert_eq!(ask(&a, "10.0.0.200"), "real 10.0.0.200 10.0.0.11", "the other host knows nothing of it");
}
