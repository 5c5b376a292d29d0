"""A topology that is written down, and made so: what Terraform's provider does, with the calls that it makes.

    configuration --plan--> what is not as it is written --apply--> calls --refresh--> plan again: nothing

Each resource is a kind, a name and what is wished of it. A wish of a later one may name what an earlier one became
(`ref`). Whatever is wished is read again and compared, field by field: a cloud that gives back other words than it
was given makes every later plan want to change something. What cannot be changed in place is made anew.
"""
from tour import same

# Fields whose order means nothing.
SETS = {"security_groups", "tags", "allocation_pools", "allowed_address_pairs", "host_routes", "fixed_ips", "sub_ports",
        "prefixes"}
# What a resource keeps for life.
FIXED = {
    "network": {"provider:network_type"},
    "subnet": {"network_id", "cidr", "ip_version", "subnetpool_id"},
    "port": {"network_id"},
    "interface": {"router_id", "subnet_id"}, "route": {"router_id", "destination", "nexthop"},
    "rule": {"security_group_id", "direction", "ethertype", "protocol", "port_range_min", "port_range_max",
             "remote_ip_prefix", "remote_group_id", "description"},
    "floating": {"floating_network_id"},
    "trunk": {"port_id"},
    "limit": {"policy"}, "mark": {"policy"},
}


def ref(name, field="id"):
    """What a resource became."""
    return lambda made: made[name][field]


def settle(wish, made):
    """A wish with its references looked up."""
    if callable(wish):
        return wish(made)
    if isinstance(wish, dict):
        return {name: settle(value, made) for name, value in wish.items()}
    return [settle(value, made) for value in wish] if isinstance(wish, list) else wish


def holds(name, wish, found):
    """Is what was found what is wished? Of objects only what was wished is looked at."""
    if isinstance(wish, dict) and isinstance(found, dict):
        return all(holds(key, value, found.get(key)) for key, value in wish.items())
    if isinstance(wish, list) and isinstance(found, list) and len(wish) == len(found):
        if name not in SETS:
            return all(holds(name, one, other) for one, other in zip(wish, found))
        return all(any(holds(name, one, other) for other in found) for one in wish)
    return wish == found


class Provider:
    """The calls for each kind; what they give is as the API spells it."""

    calls = {"network": "network", "subnet": "subnet", "router": "router", "port": "port", "group": "security_group",
             "rule": "security_group_rule", "floating": "ip", "trunk": "trunk", "policy": "qos_policy",
             "pool": "subnet_pool", "scope": "address_scope"}
    rules = {"limit": "qos_bandwidth_limit_rule", "mark": "qos_dscp_marking_rule"}

    def __init__(self, cloud):
        self.cloud = cloud.network

    def call(self, verb, kind, *more, **fields):
        return getattr(self.cloud, f"{verb}_{self.calls.get(kind) or self.rules[kind]}")(*more, **fields)

    @staticmethod
    def plain(found):
        body = found.to_dict(original_names=True, computed=False)
        return {name: value for name, value in body.items() if name != "location"}

    @staticmethod
    def route(wish):
        return {"router": {"routes": [{"destination": wish["destination"], "nexthop": wish["nexthop"]}]}}

    def create(self, kind, wish):
        wish = dict(wish)
        if kind == "interface":
            return self.cloud.add_interface_to_router(wish["router_id"], wish["subnet_id"])["port_id"]
        if kind == "route":
            self.cloud.add_extra_routes_to_router(wish["router_id"], self.route(wish))
            return " ".join(wish[name] for name in ("router_id", "destination", "nexthop"))
        if kind in self.rules:
            policy = wish.pop("policy")
            return policy + " " + self.call("create", kind, policy, **wish).id
        # Tags have a call of their own, after the resource is there.
        tags = wish.pop("tags", None)
        made = self.call("create", kind, **wish)
        if tags is not None:
            self.cloud.set_tags(made, tags)
        return made.id

    def read(self, kind, id_):
        import openstack

        try:
            if kind == "interface":
                port = self.plain(self.cloud.get_port(id_))
                return {"id": id_, "router_id": port["device_id"], "subnet_id": port["fixed_ips"][0]["subnet_id"]}
            if kind == "route":
                wish = dict(zip(("router_id", "destination", "nexthop"), id_.split()))
                there = self.plain(self.cloud.get_router(wish["router_id"]))["routes"]
                return {"id": id_, **wish} if self.route(wish)["router"]["routes"][0] in there else None
            if kind in self.rules:
                policy, rule = id_.split()
                return {**self.plain(self.call("get", kind, rule, policy)), "policy": policy}
            return self.plain(self.call("get", kind, id_))
        except openstack.exceptions.NotFoundException:
            return None

    def update(self, kind, id_, changes):
        changes = dict(changes)
        if kind in self.rules:
            policy, rule = id_.split()
            return self.call("update", kind, rule, policy, **changes)
        now = self.call("get", kind, id_)
        if "tags" in changes:
            self.cloud.set_tags(now, changes.pop("tags"))
        if kind == "trunk" and "sub_ports" in changes:
            wished = changes.pop("sub_ports")
            ids = {s["port_id"] for s in wished}
            self.cloud.delete_trunk_subports(now, [{"port_id": s["port_id"]} for s in now.sub_ports if s["port_id"] not in ids])
            there = {s["port_id"] for s in now.sub_ports}
            self.cloud.add_trunk_subports(now, [s for s in wished if s["port_id"] not in there])
        if changes:
            # Of a resource that was looked up only what differs is sent.
            self.call("update", kind, id_, **changes)
        return None

    def delete(self, kind, id_):
        if kind == "interface":
            port = self.cloud.get_port(id_)
            return self.cloud.remove_interface_from_router(port.device_id, port=id_)
        if kind == "route":
            router, destination, nexthop = id_.split()
            wish = {"destination": destination, "nexthop": nexthop}
            return self.cloud.remove_extra_routes_from_router(router, self.route(wish))
        if kind in self.rules:
            policy, rule = id_.split()
            return self.call("delete", kind, rule, policy, ignore_missing=False)
        return self.call("delete", kind, id_, ignore_missing=False)


class State:
    """What was made, by name, as Terraform's file has it."""

    def __init__(self, provider):
        self.provider = provider
        self.made = {}  # name -> (kind, id)

    def refresh(self):
        found = {name: self.provider.read(kind, id_) for name, (kind, id_) in self.made.items()}
        return {name: one for name, one in found.items() if one is not None}

    def plan(self, configuration):
        """[(what, name, fields)]: what would have to be done."""
        found, steps = self.refresh(), []
        for kind, name, wish in configuration:
            if name not in found:
                steps.append(("create", name, []))
                continue
            wish = {**settle(wish, found)}
            differs = sorted(n for n, value in wish.items() if not holds(n, value, found[name].get(n)))
            if differs:
                anew = FIXED.get(kind, set()) & set(differs)
                steps.append(("replace" if anew else "update", name, differs))
        wished = {name for _, name, _ in configuration}
        steps += [("delete", name, []) for name in self.made if name in found and name not in wished]
        return steps

    def apply(self, configuration):
        """Does what the plan says, in the order of the configuration; deletes from its end."""
        steps = {name: (what, fields) for what, name, fields in self.plan(configuration)}
        for name in reversed(list(self.made)):
            if steps.get(name, ("", 0))[0] in ("delete", "replace"):
                self.provider.delete(*self.made.pop(name))
        self.made = {name: one for name, one in self.made.items() if steps.get(name, ("", 0))[0] != "create"}
        for kind, name, wish in configuration:
            what, fields = steps.get(name, (None, []))
            found = self.refresh() if what else {}
            if what in ("create", "replace"):
                self.made[name] = (kind, self.provider.create(kind, settle(wish, found)))
            elif what == "update":
                wish = settle(wish, found)
                self.provider.update(kind, self.made[name][1], {n: wish[n] for n in fields})
        return steps


def topology(public, second=False):
    """A small site; `second`: as it is written a week later."""
    ports = [{"port_id": ref("sub"), "segmentation_type": "vlan", "segmentation_id": 7}]
    return [
        ("scope", "scope", {"name": "tf", "ip_version": 4, "shared": False}),
        ("pool", "pool", {"name": "tf", "prefixes": ["10.80.0.0/16"], "default_prefixlen": 26, "description": "d",
                          "address_scope_id": ref("scope"), "tags": ["tf"], "min_prefixlen": 24}),
        ("policy", "slow", {"name": "tf-slow", "description": "two" if second else "one", "shared": False}),
        ("limit", "limit", {"policy": ref("slow"), "max_kbps": 2000 if second else 1000, "max_burst_kbps": 500,
                            "direction": "egress"}),
        ("mark", "mark", {"policy": ref("slow"), "dscp_mark": 28 if second else 26}),
        ("network", "net", {"name": "tf-two" if second else "tf", "description": "d", "admin_state_up": True, "mtu": 1400,
                            "port_security_enabled": True, "dns_domain": "tf.example.", "shared": False,
                            "qos_policy_id": None if second else ref("slow"), "tags": ["blue", "tf"] if second else ["tf", "red"]}),
        ("subnet", "four", {"network_id": ref("net"), "cidr": "10.40.0.0/24", "ip_version": 4, "name": "tf-four",
                            "gateway_ip": "10.40.0.1", "enable_dhcp": True, "tags": ["tf"],
                            "dns_nameservers": ["192.0.2.54", "192.0.2.53"] if second else ["192.0.2.53", "192.0.2.54"],
                            "allocation_pools": [{"start": "10.40.0.10", "end": "10.40.0.99"},
                                                 {"start": "10.40.0.120", "end": "10.40.0.200" if second else "10.40.0.150"}],
                            "host_routes": [{"destination": "10.90.0.0/16", "nexthop": "10.40.0.9"}] if second else []}),
        ("subnet", "six", {"network_id": ref("net"), "cidr": "fd00:40::/64", "ip_version": 6, "ipv6_ra_mode": "slaac",
                           "ipv6_address_mode": "slaac", "name": "tf-six"}),
        ("subnet", "pooled", {"network_id": ref("net"), "ip_version": 4, "subnetpool_id": ref("pool"), "name": "tf-pooled",
                              "enable_dhcp": not second}),
        ("router", "router", {"name": "tf", "admin_state_up": True, "description": "d", "tags": ["tf"],
                              "external_gateway_info": {"network_id": public, "enable_snat": True}}),
        ("interface", "leg", {"router_id": ref("router"), "subnet_id": ref("four")}),
        *([("route", "route", {"router_id": ref("router"), "destination": "10.91.0.0/16", "nexthop": "10.40.0.77"})]
          if second else []),
        ("interface", "leg6", {"router_id": ref("router"), "subnet_id": ref("six")}),
        ("group", "web", {"name": "tf-web", "description": "three" if second else "web", "stateful": True, "tags": ["tf"]}),
        ("group", "db", {"name": "tf-db", "description": "db"}),
        ("rule", "http", {"security_group_id": ref("web"), "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
                          "port_range_min": 80, "port_range_max": 81 if second else 80, "remote_ip_prefix": "0.0.0.0/0",
                          "description": ""}),
        ("rule", "inside", {"security_group_id": ref("db"), "direction": "ingress", "ethertype": "IPv6", "protocol": "tcp",
                            "port_range_min": 5432, "port_range_max": 5432, "remote_group_id": ref("web")}),
        ("rule", "ping", {"security_group_id": ref("web"), "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp",
                          "port_range_min": 8, "port_range_max": 0}),
        ("port", "door", {"network_id": ref("net"), "name": "tf-door", "admin_state_up": not second, "tags": ["tf"],
                          "fixed_ips": [{"subnet_id": ref("four"), "ip_address": "10.40.0.50"},
                                        {"subnet_id": ref("six")}],
                          "security_groups": [ref("db"), ref("web")] if second else [ref("web"), ref("db")],
                          "allowed_address_pairs": [{"ip_address": "10.40.0.222"}, {"ip_address": "10.41.0.0/24"}]
                          if second else [{"ip_address": "10.40.0.222"}], "dns_name": "door",
                          "qos_policy_id": ref("slow") if second else None, "port_security_enabled": True}),
        ("port", "bare", {"network_id": ref("net"), "name": "tf-bare", "port_security_enabled": False, "security_groups": [],
                          "fixed_ips": [{"subnet_id": ref("four")}, {"subnet_id": ref("six")}]}),
        ("port", "sub", {"network_id": ref("net"), "name": "tf-sub"}),
        ("port", "late", {"network_id": ref("net"), "name": "tf-late"}),
        ("trunk", "trunk", {"name": "tf", "port_id": ref("bare"), "admin_state_up": True, "description": "d", "tags": ["tf"],
                            "sub_ports": [{**ports[0], "port_id": ref("late"), "segmentation_id": 8}] if second else ports}),
        ("floating", "way", {"floating_network_id": public, "port_id": ref("bare") if second else ref("door"),
                             "description": "d", "tags": ["tf"],
                             "fixed_ip_address": (lambda made: made["bare" if second else "door"]["fixed_ips"][0]["ip_address"])}),
    ]


def site(admin):
    """Made, changed in place, changed behind the back, taken away: after each nothing is left to do."""
    cloud = admin.sdk()
    public = cloud.network.find_network("public", ignore_missing=False).id
    state, first, second = State(Provider(cloud)), topology(public), topology(public, second=True)
    same({what for what, _, _ in state.plan(first)}, {"create"})
    state.apply(first)
    same(state.plan(first), [], "a second plan")
    ids = dict(state.made)

    done = {name: what for name, (what, _) in state.apply(second).items()}
    same(state.plan(second), [], "a second plan of the second writing")
    same({name: what for name, what in done.items() if what != "update"}, {"http": "replace", "route": "create"})
    same({name for name in ids if state.made[name] != ids[name]}, {"http"})

    # Somebody changes and deletes by hand: the plan finds just that, and it is put right.
    cloud.network.update_port(state.made["door"][1], name="moved")
    cloud.network.set_tags(cloud.network.get_network(state.made["net"][1]), ["tf"])
    cloud.network.delete_security_group_rule(state.made["ping"][1])
    same(sorted(state.plan(second)), [("create", "ping", []), ("update", "door", ["name"]), ("update", "net", ["tags"])])
    state.apply(second)
    same(state.plan(second), [])

    # Some of it is no longer written down.
    less = [one for one in second if one[1] not in ("trunk", "late", "sub", "way", "inside", "leg6")]
    same({what for what, _, _ in state.plan(less)}, {"delete"})
    state.apply(less)
    same(state.plan(less), [])
    state.apply([])
    same((state.made, list(cloud.network.networks(tags="tf")), list(cloud.network.ips(tags="tf"))), ({}, [], []))


steps = [site]
