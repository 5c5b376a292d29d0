//! Two guests in a network: DHCP, ping, and what must not get through.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod cloud;
use cloud::*;
use pilvi_netdev::wanted::*;
use pilvi_netdev::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_guests_get_addresses_and_ping() {
    if !root() {
        return;
    }
    let mut cloud = Cloud::new("two");
    let plane = DataPlane::open(cloud.config()).await.unwrap();
    let wanted = Wanted {
        networks: vec![network("net", 100, 0)],
        ports: vec![port("a", "net", 1, "10.0.0.11", &["g"]), port("b", "net", 2, "10.0.0.12", &["g"])],
        groups: vec![open_group("g")],
        ..Wanted::default()
    };
    apply(&plane, &wanted).await;
    let (a, b) = (cloud.guest("a"), cloud.guest("b"));
    plane.open_veth("a", &a.ns, "eth0").await.unwrap();
    plane.open_veth("b", &b.ns, "eth0").await.unwrap();
    apply(&plane, &wanted).await;
    let said = a.dhcp().expect("a gets an answer");
    for line in [
        "new_ip_address=10.0.0.11",
        "new_subnet_mask=255.255.255.0",
        "new_routers=10.0.0.1",
        "new_interface_mtu=1450",
        "new_host_name=a",
        "new_domain_name_servers=192.0.2.53",
        "new_dhcp_server_identifier=10.0.0.2",
        "new_dhcp_lease_time=3600",
        "new_rfc3442=32 169 254 169 254 10 0 0 2 0 10 0 0 1",
    ] {
        assert!(said.lines().any(|l| l == line), "{line} in {said}");
    }
    assert!(b.dhcp().is_some());
    assert!(a.pings("10.0.0.12"), "{:?}", plane.stats());
    assert!(b.pings("10.0.0.11"));
}
