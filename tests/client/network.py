"""Every command that the client offers for networks (Neutron v2.0)."""
import json
import time

from tour import no_row, row, same

GROUPS = ["openstack.network.v2"]
# What the cloud does not offer, by the beginning of its commands; `absent` asks for each that it says so.
ABSENT = {
    "bgpvpn": "no BGP VPN",
    "network agent delete": "an agent goes with its node",
    "vpn": "no VPN",
}


def absent(admin):
    for words in ("bgpvpn list", "vpn service list"):
        admin.refused(words, "")
    agent = row(admin("network agent list --agent-type l3"), Binary="pilvi-agent")["ID"]
    admin.refused("network agent delete", "goes with its node", agent)


def networks(admin):
    made = admin("network create --description first --mtu 1400 --tag red --enable --dns-domain tour.example. "
                 "--disable-port-security tour", name="tour", mtu=1400, tags=["red"], port_security_enabled=False,
                 dns_domain="tour.example.", status="ACTIVE", shared=False)
    admin("network show tour", id=made["id"], description="first")
    row(admin("network list --long --name tour --enable --tags red"), ID=made["id"], Name="tour")
    no_row(admin("network list --not-tags red"), ID=made["id"])
    admin("network set --name tour-two --description second --mtu 1350 --tag green --share --disable tour")
    shown = admin("network show tour-two", mtu=1350, shared=True, admin_state_up=False, description="second")
    same(sorted(shown["tags"]), ["green", "red"])
    admin("network unset --tag red tour-two")
    admin("network show tour-two", tags=["green"])
    admin("network delete tour-two")
    admin.refused("network show tour-two", "No Network found")
    admin("network create --external --provider-network-type flat --provider-physical-network elsewhere outside")
    row(admin("network list --external"), Name="outside")
    admin("network delete outside")
    admin.refused("network create --provider-network-type geneve odd", "geneve")


def subnets(admin):
    admin("network create tour-subnets")
    made = admin("subnet create --network tour-subnets --subnet-range 10.40.0.0/24 --gateway 10.40.0.254 --dns-nameserver "
                 "192.0.2.53 --allocation-pool start=10.40.0.10,end=10.40.0.20 --host-route "
                 "destination=10.50.0.0/16,gateway=10.40.0.9 --description one --tag red --service-type compute:nova "
                 "four", ip_version=4, cidr="10.40.0.0/24", gateway_ip="10.40.0.254", dns_nameservers=["192.0.2.53"],
                 enable_dhcp=True, service_types=["compute:nova"])
    admin("subnet create --network tour-subnets --ip-version 6 --subnet-range fd00:40::/64 --ipv6-ra-mode slaac "
          "--ipv6-address-mode slaac six", ipv6_ra_mode="slaac", ipv6_address_mode="slaac", ip_version=6)
    row(admin("subnet list --network tour-subnets --ip-version 4 --long"), ID=made["id"], Name="four", Subnet="10.40.0.0/24")
    admin("subnet set --name quad --no-dhcp --dns-nameserver 192.0.2.54 --no-host-route --tag green --gateway none four")
    shown = admin("subnet show quad", enable_dhcp=False, gateway_ip=None, host_routes=[])
    same((sorted(shown["dns_nameservers"]), sorted(shown["tags"])), (["192.0.2.53", "192.0.2.54"], ["green", "red"]))
    admin("subnet unset --dns-nameserver 192.0.2.53 --service-type compute:nova --tag red --allocation-pool "
          "start=10.40.0.10,end=10.40.0.20 quad")
    admin("subnet show quad", dns_nameservers=["192.0.2.54"], service_types=[], tags=["green"])
    admin.refused("subnet create --network tour-subnets --subnet-range 10.40.0.0/25 overlap", "overlap")
    admin("subnet delete quad six")
    same(admin("subnet list --network tour-subnets"), [])
    admin("network delete tour-subnets")


def pools(admin):
    scope = admin("address scope create --share --ip-version 4 wide", shared=True, ip_version=4)["id"]
    row(admin("address scope list --ip-version 4 --share"), ID=scope, Name="wide")
    admin("address scope set --name wider wide")
    admin("address scope show wider", id=scope)
    pool = admin("subnet pool create --pool-prefix 10.60.0.0/16 --default-prefix-length 26 --min-prefix-length 24 "
                 "--max-prefix-length 28 --address-scope wider --default-quota 1024 --description d --tag red pool",
                 default_prefixlen=26, address_scope_id=scope, prefixes=["10.60.0.0/16"])["id"]
    row(admin("subnet pool list --long --name pool"), ID=pool, Name="pool")
    admin("subnet pool set --pool-prefix 10.61.0.0/16 --name lake --tag green --default-prefix-length 27 pool")
    shown = admin("subnet pool show lake", default_prefixlen=27)
    same(("10.61.0.0/16" in str(shown["prefixes"]) or "10.60.0.0/15" in str(shown["prefixes"])), True, shown["prefixes"])
    admin("subnet pool unset --tag red lake")
    admin("subnet pool show lake", tags=["green"])
    admin("network create tour-pools")
    admin("subnet create --network tour-pools --subnet-pool lake --prefix-length 28 drop", subnetpool_id=pool)
    admin.refused("subnet pool delete lake", "Subnets still in use")
    for name, verb in (("strayed", "network onboard subnet"), ("lost", "subnet pool add network")):
        admin(f"network create {name}")
        third = 70 if name == "strayed" else 71
        subnet = admin(f"subnet create --network {name} --subnet-range 10.{third}.0.0/24 {name}", subnetpool_id=None)["id"]
        admin(f"{verb} {name} lake")
        admin("subnet show", subnet, subnetpool_id=pool)
        admin(f"network delete {name}")
    admin("network delete tour-pools")
    admin("subnet pool delete lake")
    admin("address scope delete wider")


def ports(admin):
    network = admin("network create tour-ports")["id"]
    subnet = admin("subnet create --network tour-ports --subnet-range 10.40.0.0/24 four")["id"]
    made = admin("port create --network tour-ports --fixed-ip subnet=four,ip-address=10.40.0.40 --mac-address "
                 "fa:16:3e:40:40:40 --description first --dns-name web --disable --tag red --allowed-address "
                 "ip-address=10.40.0.99 --vnic-type normal --numa-policy-preferred --device-owner compute:nova --host "
                 "nowhere --binding-profile a=b door", admin_state_up=False, mac_address="fa:16:3e:40:40:40",
                 network_id=network, dns_name="web", numa_affinity_policy="preferred", binding_host_id="nowhere")
    same(made["fixed_ips"], [{"subnet_id": subnet, "ip_address": "10.40.0.40"}])
    row(admin("port list --network tour-ports --mac-address fa:16:3e:40:40:40 --fixed-ip ip-address=10.40.0.40 --long"),
        ID=made["id"], Name="door")
    admin("port set --name gate --enable --fixed-ip subnet=four,ip-address=10.40.0.41 --tag green --data-plane-status "
          "ACTIVE --extra-dhcp-option name=mtu,value=1400 door")
    shown = admin("port show gate", admin_state_up=True, data_plane_status="ACTIVE")
    same(sorted(f["ip_address"] for f in shown["fixed_ips"]), ["10.40.0.40", "10.40.0.41"])
    admin("port unset --fixed-ip subnet=four,ip-address=10.40.0.41 --allowed-address "
          "ip-address=10.40.0.99,mac-address=fa:16:3e:40:40:40 --tag red "
          "--data-plane-status --numa-policy --host --device-owner gate")
    shown = admin("port show gate", data_plane_status=None, numa_affinity_policy=None, allowed_address_pairs=[],
                  tags=["green"], binding_host_id="")
    same(len(shown["fixed_ips"]), 1)
    row(admin("ip availability list"), Network_Name="tour-ports", Used_IPs=1)
    admin("ip availability show tour-ports", used_ips=1)
    admin("port delete gate")
    admin("network delete tour-ports")


def outside():
    return "public"


def ready(admin):
    """A way out that routers may take, where the cloud was begun without one."""
    if not admin("network list --external --name public"):
        admin("network create --external --provider-network-type flat --provider-physical-network external public")
        admin("subnet create --network public --subnet-range 172.24.4.0/24 --no-dhcp public")


def routers(admin):
    public = admin("network show", outside())["id"]
    admin("network create tour-routers")
    admin("subnet create --network tour-routers --subnet-range 10.40.0.0/24 four")
    made = admin("router create --description first --tag red --disable way", admin_state_up=False, tags=["red"])["id"]
    admin("router set --name way-two --enable --external-gateway", outside(), "--enable-snat", "way")
    shown = admin("router show way-two", id=made, admin_state_up=True)
    same(shown["external_gateway_info"]["network_id"], public)
    admin("router add subnet way-two four")
    admin("port create --network tour-routers --fixed-ip subnet=four,ip-address=10.40.0.77 leg")
    admin.refused("router add port way-two leg", "Router already has a port on subnet")
    admin("network create side")
    admin("subnet create --network side --subnet-range 10.41.0.0/24 side")
    admin("port create --network side --fixed-ip subnet=side side-leg")
    admin("router add port way-two side-leg")
    admin("router remove port way-two side-leg")
    admin("router add route --route destination=10.90.0.0/16,gateway=10.40.0.77 way-two")
    same(admin("router show way-two")["routes"], [{"destination": "10.90.0.0/16", "nexthop": "10.40.0.77"}])
    admin("router remove route --route destination=10.90.0.0/16,gateway=10.40.0.77 way-two")
    admin("router set --route destination=10.91.0.0/16,gateway=10.40.0.77 --tag green way-two")
    admin("router unset --route destination=10.91.0.0/16,gateway=10.40.0.77 --tag red way-two")
    admin("router show way-two", routes=[], tags=["green"])
    # A second way out, over which what goes out is spread.
    admin("router add gateway way-two", outside())
    gateways = admin("router show way-two")["external_gateways"]
    same([g["network_id"] for g in gateways], [public, public])
    admin("router set --enable-default-route-ecmp way-two")
    admin("router show way-two", enable_default_route_ecmp=True)
    # Nobody there speaks BFD, but no server is behind it that would miss the way.
    admin("router set --enable-default-route-bfd way-two")
    admin("router show way-two", enable_default_route_bfd=True)
    admin("router set --disable-default-route-bfd way-two")
    second = gateways[1]["external_fixed_ips"][0]["ip_address"]
    admin("router remove gateway way-two", outside(), "--fixed-ip", f"ip-address={second}")
    same(len(admin("router show way-two")["external_gateways"]), 1)
    row(admin("router list --long --name way-two"), ID=made, State=True)

    helper = admin("network l3 conntrack helper create --helper tftp --protocol udp --port 69 way-two", helper="tftp")["id"]
    row(admin("network l3 conntrack helper list way-two"), ID=helper, Port=69)
    admin("network l3 conntrack helper set --port 6969 way-two", helper)
    admin("network l3 conntrack helper show way-two", helper, port=6969)
    admin("network l3 conntrack helper delete way-two", helper)

    door = admin("port create --network tour-routers door")
    inside = door["fixed_ips"][0]["ip_address"]
    made = admin("floating ip create --description d --tag red", outside(), status="DOWN")
    address = made["floating_ip_address"]
    row(admin("floating ip list --floating-ip-address", address), ID=made["id"])
    admin("floating ip set --port door --tag green", address)
    admin("floating ip show", address, fixed_ip_address=inside, status="ACTIVE")
    admin("floating ip unset --port --tag red", address)
    admin("floating ip show", address, fixed_ip_address=None, tags=["green"])
    forwarding = admin(f"floating ip port forwarding create --internal-ip-address {inside} --port door "
                       "--internal-protocol-port 22 --external-protocol-port 2222 --protocol tcp", address,
                       external_port=2222, internal_port=22)["id"]
    row(admin("floating ip port forwarding list", address), ID=forwarding, External_Port=2222)
    admin("floating ip port forwarding set --external-protocol-port 2223", address, forwarding)
    admin("floating ip port forwarding show", address, forwarding, external_port=2223)
    admin("floating ip port forwarding delete", address, forwarding)
    admin("floating ip delete", address)

    # Hosts stand by for its way out: whose turn it is is the operator's to say.
    admin.refused("router set --ha way-two", "Cannot change HA attribute of active routers")
    admin("router set --disable way-two")
    admin("router set --ha way-two")
    admin("router set --enable way-two")
    # A host holds the way out at once; that it is one of those who stand by is seen a moment later.
    agent = row(admin("network agent list --long --router way-two"), HA_State="active")["ID"]
    standing = "port list --router way-two --device-owner network:router_ha_interface"
    for _ in range(60):
        if admin(standing):
            break
        time.sleep(0.5)
    row(admin(standing), Status="ACTIVE")
    admin("network agent router set --ha-chassis-priority 7", agent, "way-two")
    admin("network agent remove router --l3", agent, "way-two")
    admin("network agent add router --l3 --ha-chassis-priority 9", agent, "way-two")
    row(admin("network agent list --long --router way-two"), ID=agent, HA_State="active")
    admin("router set --disable way-two")
    admin("router set --no-ha way-two")
    same(admin(standing), [])
    admin("router set --enable way-two")

    admin("router remove subnet way-two four")
    admin("router unset --external-gateway way-two")
    admin("router show way-two", external_gateway_info=None, external_gateways=[])
    admin("router delete way-two")
    admin("port delete leg door")
    admin("network delete tour-routers side")


def proxies(admin):
    """A router answers for single IPv6 addresses: outside and inside are of one scope."""
    admin("address scope create --share --ip-version 6 six")
    admin("subnet pool create --pool-prefix 2001:db8::/48 --default-prefix-length 64 --address-scope six --share six")
    admin("network create --external --provider-network-type flat --provider-physical-network six outside6")
    for network in ("outside6", "inside6"):
        if network == "inside6":
            admin("network create inside6")
        admin(f"subnet create --network {network} --ip-version 6 --subnet-pool six {network}")
    admin("router create --external-gateway outside6 six")
    admin("router set --enable-ndp-proxy six")
    admin("router add subnet six inside6")
    port = admin("port create --network inside6 six")
    address = port["fixed_ips"][0]["ip_address"]
    made = admin("router ndp proxy create --name one --port six six", ip_address=address)["id"]
    row(admin("router ndp proxy list --router six"), ID=made, Name="one")
    admin("router ndp proxy set --name two --description d one")
    admin("router ndp proxy show two", description="d")
    admin("router ndp proxy delete two")
    admin("port delete six")
    admin("router remove subnet six inside6")
    admin("router delete six")
    admin("network delete inside6 outside6")
    admin("subnet pool delete six")
    admin("address scope delete six")


def groups(admin):
    made = admin("security group create --description first --tag red tour", stateful=True, tags=["red"])["id"]
    row(admin("security group list --tags red"), ID=made, Name="tour")
    admin("security group set --name tour-two --tag green --stateless tour")
    admin("security group show tour-two", stateful=False)
    admin("security group unset --tag red tour-two")
    admin("security group show tour-two", tags=["green"])
    rule = admin("security group rule create --ingress --protocol tcp --dst-port 22:23 --remote-ip 10.0.0.0/8 tour-two",
                 port_range_min=22, port_range_max=23, remote_ip_prefix="10.0.0.0/8", direction="ingress")["id"]
    row(admin("security group rule list --ingress --protocol tcp tour-two"), ID=rule)
    admin("security group rule show", rule, protocol="tcp")
    admin("security group rule delete", rule)
    blocks = admin("address group create --address 10.0.0.0/8 --description d blocks", addresses=["10.0.0.0/8"])["id"]
    row(admin("address group list --name blocks"), ID=blocks)
    admin("address group set --name ranges --address 192.0.2.0/24 blocks")
    same(sorted(admin("address group show ranges")["addresses"]), ["10.0.0.0/8", "192.0.2.0/24"])
    admin("address group unset --address 10.0.0.0/8 ranges")
    admin("address group show ranges", addresses=["192.0.2.0/24"])
    admin("security group rule create --remote-address-group ranges tour-two", remote_address_group_id=blocks)
    admin("security group delete tour-two")
    admin("address group delete ranges")
    template = admin("default security group rule create --ingress --protocol udp --dst-port 53 --for-custom-sg",
                     protocol="udp")["id"]
    row(admin("default security group rule list --protocol udp"), ID=template)
    admin("default security group rule show", template, port_range_min=53)
    admin("default security group rule delete", template)

    project = admin("project create forgetful")["id"]
    kind = "security group default statefulness"
    made = admin(f"{kind} create --stateless --project forgetful", stateful=False)["id"]
    row(admin(f"{kind} list"), ID=made, Stateful=False)
    admin("security group create --project forgetful quick", stateful=False, project_id=project)
    admin(f"{kind} set --stateful", made)
    admin(f"{kind} show", made, stateful=True)
    admin("security group create --project forgetful slow", stateful=True)
    admin(f"{kind} delete", made)
    admin("security group delete quick slow")
    admin("project delete forgetful")


def quality(admin):
    made = admin("network qos policy create --description d --share slow", shared=True)["id"]
    row(admin("network qos policy list --share"), ID=made, Name="slow")
    admin("network qos policy set --name slower --no-share slow")
    admin("network qos policy show slower", id=made, shared=False)
    rule = admin("network qos rule create --type bandwidth-limit --max-kbps 1000 --max-burst-kbits 800 --egress slower",
                 max_kbps=1000, direction="egress")["id"]
    admin("network qos rule create --type dscp-marking --dscp-mark 26 slower", dscp_mark=26)
    admin("network qos rule create --type minimum-bandwidth --min-kbps 100 --egress slower", min_kbps=100)
    row(admin("network qos rule list slower"), ID=rule, Max_Kbps=1000)
    admin("network qos rule set --max-kbps 2000 slower", rule)
    admin("network qos rule show slower", rule, max_kbps=2000)
    admin("network qos rule delete slower", rule)
    row(admin("network qos rule type list --all-supported"), Type="bandwidth_limit")
    same(admin("network qos rule type show bandwidth_limit")["rule_type_name"], "bandwidth_limit")
    admin("network qos policy delete slower")


def sharing(admin):
    project = admin("project create guests")["id"]
    network = admin("network create tour-sharing")["id"]
    made = admin("network rbac create --type network --action access_as_shared --target-project guests tour-sharing",
                 object_id=network)["id"]
    row(admin("network rbac list --type network --action access_as_shared --target-project guests"), ID=made)
    admin("project create others")
    admin("network rbac set --target-project others", made)
    shown = admin("network rbac show", made)
    same(project in str(shown), False)
    admin("network rbac delete", made)
    admin("network delete tour-sharing")
    admin("project delete guests others")


def trunks(admin):
    admin("network create tour-trunks")
    for name in ("parent", "sub", "late"):
        admin(f"port create --network tour-trunks {name}")
    made = admin("network trunk create --description d --parent-port parent --subport "
                 "port=sub,segmentation-type=vlan,segmentation-id=7 cable", status="DOWN")["id"]
    row(admin("network trunk list --long"), ID=made, Name="cable")
    admin("network trunk set --name wire --description e --subport "
          "port=late,segmentation-type=vlan,segmentation-id=8 cable")
    same(len(admin("network trunk show wire", description="e")["sub_ports"]), 2)
    same(len(admin("network subport list --trunk wire")), 2)
    same(len(admin("network trunk subport list wire")), 2)
    admin("network trunk set --disable wire")
    admin.refused("network trunk unset --subport late wire", "disabled")
    admin("network trunk set --enable wire")
    admin("network trunk unset --subport late wire")
    admin("network trunk subport add --segmentation-type vlan --segmentation-id 9 wire late")
    admin("network trunk subport remove wire late")
    same(len(admin("network trunk subport list wire")), 1)
    admin("network trunk delete wire")
    admin("port delete parent sub late")
    admin("network delete tour-trunks")


def counting(admin):
    made = admin("network meter create --description d --share count", shared=True)["id"]
    row(admin("network meter list"), ID=made, Name="count")
    admin("network meter show count", id=made)
    rule = admin("network meter rule create --ingress --source-ip-prefix 10.0.0.0/8 count", direction="ingress",
                 source_ip_prefix="10.0.0.0/8")["id"]
    row(admin("network meter rule list"), ID=rule)
    admin("network meter rule show", rule, metering_label_id=made)
    admin("network meter rule delete", rule)
    admin("network meter delete count")


def segments(admin):
    """A network in two racks: each has a wire of its own, and a port gets its address with its host."""
    network = admin("network create --share --provider-network-type flat --provider-physical-network rack1 racks")["id"]
    first = row(admin("network segment list --network racks"), Network_Type="flat")["ID"]
    admin("network segment set --name one --description d", first)
    admin("network segment show one", id=first, physical_network="rack1", description="d")
    second = admin("network segment create --network racks --network-type flat --physical-network rack2 two",
                   network_id=network, physical_network="rack2")["id"]
    admin.refused("network segment create --network racks --network-type vlan --segment 7 three", "physical_network")
    admin("network segment create --network racks --network-type vlan --physical-network rack3 --segment 7 three",
          network_type="vlan", segmentation_id=7)
    admin("network segment delete three")
    admin("subnet create --network racks --network-segment one --subnet-range 10.71.0.0/24 one", segment_id=first)
    shown = admin("subnet create --network racks --network-segment two --subnet-range 10.72.0.0/24 two", segment_id=second)
    same(shown["host_routes"], [{"destination": "10.71.0.0/24", "nexthop": "10.72.0.1"}])
    admin("network show racks", l2_adjacency=False)
    admin.refused("network segment delete two", "associated with subnet")
    port = admin("port create --network racks late", ip_allocation="deferred", fixed_ips=[])["id"]
    admin("port set --host somewhere late")
    same(len(admin("port show", port, ip_allocation="immediate")["fixed_ips"]), 1)
    admin("port delete late")
    admin("subnet delete two")
    admin("network segment delete two")
    admin("network delete racks")
    admin("network create --provider-network-type vlan --provider-physical-network rack1 --provider-segment 7 tagged",
          **{"provider:segmentation_id": 7, "mtu": 1500})
    admin.refused("network create --provider-network-type vlan --provider-physical-network rack1 --provider-segment 7 again",
                  "in use")
    admin("network delete tagged")
    admin("network create --transparent-vlan through", is_vlan_transparent=True)
    admin("network delete through")


def near(admin):
    """Local IPs: an address that means a guest of the same host."""
    admin("network create tour-near")
    admin("subnet create --network tour-near --subnet-range 10.40.0.0/24 four")
    made = admin("local ip create --name cache --description d --network tour-near --ip-mode translate")
    row(admin("local ip list --name cache"), ID=made["id"])
    admin("local ip set --name store --description e cache")
    admin("local ip show store", id=made["id"], description="e")
    port = admin("port create --network tour-near door")["id"]
    admin("local ip association create store", port, fixed_port_id=port)
    row(admin("local ip association list store"), Fixed_port_ID=port)
    admin("local ip association delete store", port)
    admin("local ip delete store")
    admin("port delete door")
    admin("network delete tour-near")


def looking(admin):
    """Taps: every frame of a port once more, for another one, or for a collector outside."""
    admin("network create tour-looking")
    looked = admin("port create --network tour-looking looked")["id"]
    looks = admin("port create --network tour-looking looks")["id"]
    service = admin("tap service create --name eye --port looks", port_id=looks, status="ACTIVE")["id"]
    row(admin("tap service list"), ID=service, Name="eye")
    admin("tap service update --description d eye")
    admin("tap service show eye", description="d")
    flow = admin("tap flow create --name glance --port looked --tap-service eye --direction BOTH", source_port=looked)["id"]
    row(admin("tap flow list"), ID=flow, Name="glance")
    admin("tap flow update --description d glance")
    admin("tap flow show glance", description="d", direction="BOTH")
    admin("tap flow delete glance")
    admin("tap service delete eye")
    numbers = json.dumps({"IN": 101, "BOTH": 103}).replace(" ", "")
    mirror = admin(f"tap mirror create --name glass --port looked --directions '{numbers}' --remote-ip 192.0.2.9 --mirror-type gre",
                   port_id=looked, remote_ip="192.0.2.9", mirror_type="gre", directions={"IN": 101, "BOTH": 103})["id"]
    row(admin("tap mirror list"), ID=mirror, Name="glass", Port=looked)
    admin.refused("tap mirror create --port looks --directions IN=103 --remote-ip 192.0.2.10 --mirror-type gre", "already exists")
    admin.refused("tap mirror create --port looks --directions IN=1024 --remote-ip 192.0.2.9 --mirror-type erspanv1", "session")
    admin("tap mirror update --description d glass")
    admin("tap mirror show glass", id=mirror, description="d")
    admin("tap mirror delete glass")
    no_row(admin("tap mirror list"), ID=mirror)
    admin("port delete looked looks")
    admin("network delete tour-looking")


def walls(admin):
    """Firewalls: rules in order, a policy each way, and the legs of routers that they hold for."""
    same("default" in [g["Name"] for g in admin("firewall group list")], True)
    web = admin("firewall group rule create --protocol tcp --destination-port 80:81 --source-ip-address 10.0.0.0/8 --action "
                "allow web", Action="allow", Protocol="tcp", Enabled=True, **{"Destination Port": "80:81", "IP Version": 4})["ID"]
    ping = admin("firewall group rule create --protocol icmp --ip-version 6 --action reject --disable-rule ping", Enabled=False)["ID"]
    row(admin("firewall group rule list"), ID=web, Name="web", Enabled=True)
    admin.refused("firewall group rule create --destination-port 80 odd", "requires a protocol")
    admin("firewall group rule set --name www --source-port 1024:65535 --share --no-source-ip-address web")
    admin("firewall group rule show www", Shared=True, **{"Source Port": "1024:65535", "Source IP Address": None})
    admin("firewall group rule unset --source-port --share www")
    admin("firewall group rule show www", Shared=False, **{"Source Port": None})
    policy = admin("firewall group policy create --firewall-rule www --audited inward", Audited=True)["ID"]
    row(admin("firewall group policy list"), ID=policy, Name="inward")
    admin("firewall group policy add rule --insert-after www inward ping")
    admin("firewall group policy show inward", Audited=False, **{"Firewall Rules": [web, ping]})
    admin("firewall group policy remove rule inward ping")
    admin("firewall group policy set --name inwards --firewall-rule ping inward")
    same(sorted(admin("firewall group policy show inwards")["Firewall Rules"]), sorted([web, ping]))
    admin("firewall group policy unset --firewall-rule ping inwards")
    admin("firewall group policy show inwards", **{"Firewall Rules": [web]})
    admin("network create tour-walls")
    admin("subnet create --network tour-walls --subnet-range 10.70.0.0/24 tour-walls")
    admin("router create tour-walls")
    admin("router add subnet tour-walls tour-walls")
    leg = row(admin("port list --router tour-walls"), Status="ACTIVE")["ID"]
    made = admin(f"firewall group create --ingress-firewall-policy inwards --port {leg} gate", Status="ACTIVE", Ports=[leg])["ID"]
    row(admin("firewall group list"), ID=made, Name="gate")
    admin.refused("firewall group policy delete inwards", "")
    admin.refused("firewall group delete gate", "")
    admin("firewall group set --name gates --disable gate")
    admin("firewall group show gates", Status="DOWN", State=False)
    admin(f"firewall group unset --port {leg} --ingress-firewall-policy gates")
    admin("firewall group show gates", Status="INACTIVE", Ports=[])
    admin("firewall group delete gates")
    admin("firewall group policy delete inwards")
    admin("firewall group rule delete www ping")
    admin("router remove subnet tour-walls tour-walls")
    admin("router delete tour-walls")
    admin("network delete tour-walls")


def machinery(admin):
    """What operators ask and say of hosts, kinds of routers and numbers."""
    agents = admin("network agent list --long")
    dhcp, l3 = (row(agents, Agent_Type=kind)["ID"] for kind in ("DHCP agent", "L3 agent"))
    admin("network agent show", dhcp, agent_type="DHCP agent", alive=True)
    admin("network agent set --description here", dhcp)
    admin("network agent show", dhcp, description="here")
    network = admin("network create tour-machinery")["id"]
    admin(f"network agent remove network --dhcp {dhcp} {network}")
    admin(f"network agent add network --dhcp {dhcp} {network}")
    row(admin(f"network agent list --network {network}"), ID=dhcp)
    router = admin("router create --external-gateway", outside(), "way")["id"]
    admin(f"network agent remove router --l3 {l3} {router}")
    admin(f"network agent add router --l3 {l3} {router}")
    row(admin(f"network agent list --router {router}"), ID=l3)
    admin("router delete way")
    admin("network delete tour-machinery")

    profile = admin("network flavor profile create --description d --metainfo {}", description="d")["id"]
    row(admin("network flavor profile list"), ID=profile)
    admin("network flavor profile set --description e", profile)
    admin("network flavor profile show", profile, description="e")
    flavor = admin("network flavor create --service-type L3_ROUTER_NAT --description d plain")["id"]
    row(admin("network flavor list"), ID=flavor, Name="plain")
    admin("network flavor set --name bare --disable plain")
    admin("network flavor show bare", enabled=False)
    admin("network flavor add profile bare", profile)
    admin("network flavor remove profile bare", profile)
    admin("network flavor delete bare")
    admin("network flavor profile delete", profile)
    same(len(admin("network service provider list")) > 0, True)

    made = admin("network segment range create --shared --network-type vxlan --minimum 5000 --maximum 5010 high",
                 minimum=5000)["id"]
    row(admin("network segment range list"), ID=made, Name="high")
    admin("network segment range set --minimum 5000 --maximum 5020 high")
    admin("network segment range show high", maximum=5020)
    admin("network segment range delete high")


def routing(admin):
    """What routers of the provider are told of the cloud's addresses."""
    made = admin("bgp speaker create --local-as 4200000000 --ip-version 4 --no-advertise-tenant-networks says",
                 local_as=4200000000, ip_version=4, advertise_tenant_networks=False,
                 advertise_floating_ip_host_routes=True, networks=[])["id"]
    row(admin("bgp speaker list"), ID=made, Name="says", Local_AS=4200000000)
    admin("bgp speaker set --name tells --advertise-tenant-networks says")
    admin("bgp speaker show tells", advertise_tenant_networks=True, peers=[])
    admin.refused("bgp speaker create --local-as 4294967296 none", "local_as")
    # Nobody listens at this address of loopback.
    peer = admin("bgp peer create --peer-ip 127.0.0.9 --remote-as 65010 --auth-type md5 --password unheard-of hears",
                 peer_ip="127.0.0.9", remote_as=65010, auth_type="md5")
    row(admin("bgp peer list"), Name="hears", Peer_IP="127.0.0.9")
    admin("bgp peer set --name listens --password two hears")
    # What is made is shown by the client with what it sent; what is shown later is the cloud's.
    same(admin("bgp peer show listens", remote_as=65010).get("password"), None, "the password:")
    admin("bgp speaker add peer tells listens")
    admin.refused("bgp speaker add peer tells listens", "already configured to peer")
    admin("bgp speaker add network tells", outside())
    admin("bgp speaker show tells", peers=[peer["id"]])

    router = admin("router create --external-gateway", outside(), "way")
    admin("network create tour-routing")
    admin("subnet create --network tour-routing --subnet-range 10.60.0.0/24 told")
    admin("router add subnet way told")
    port = admin("port create --network tour-routing told")["id"]
    floating = admin(f"floating ip create --port {port}", outside())["floating_ip_address"]
    hop = router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"]
    row(admin("bgp speaker list advertised routes tells"), Destination=f"{floating}/32", Nexthop=hop)
    admin(f"floating ip delete {floating}")
    same(admin("bgp speaker list advertised routes tells"), [])
    admin("port delete told")
    admin("router remove subnet way told")
    admin("router delete way")
    admin("network delete tour-routing")

    agent = row(admin("bgp dragent list"), Host="scheduler")["ID"]
    row(admin("bgp dragent list --bgp-speaker tells"), ID=agent)
    admin(f"bgp dragent remove speaker {agent} tells")
    same(admin(f"bgp speaker list --agent {agent}"), [])
    admin(f"bgp dragent add speaker {agent} tells")
    row(admin(f"bgp speaker list --agent {agent}"), ID=made)
    admin("bgp speaker remove peer tells listens")
    admin("bgp speaker remove network tells", outside())
    admin("bgp speaker show tells", networks=[], peers=[])
    admin("bgp peer delete listens")
    admin("bgp speaker delete tells")
    admin.refused("bgp speaker show tells", "No BgpSpeaker found")


def by_itself(admin):
    """One call makes a project's way out."""
    admin("project create lazy")
    before = [n["ID"] for n in admin("network list --project lazy")]
    same(before, [])
    admin("subnet pool create --pool-prefix 10.80.0.0/16 --default-prefix-length 26 --share --default usual")
    admin("network set --default", outside())
    made = admin("network auto allocated topology create --project lazy")
    same(admin("network auto allocated topology create --project lazy --or-show")["id"], made["id"])
    admin("network auto allocated topology delete --project lazy")
    same(admin("network list --project lazy"), [])
    admin("network set --no-default", outside())
    admin("subnet pool delete usual")
    admin("project delete lazy")


steps = [ready, absent, networks, subnets, pools, ports, routers, proxies, groups, quality, sharing, trunks, counting, segments, near, looking, walls,
         machinery, routing, by_itself]
