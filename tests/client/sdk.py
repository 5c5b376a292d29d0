"""What a user of openstacksdk does, and so of Ansible's modules and everything else that stands on it: makes, finds,
changes, waits for and deletes things of each service."""
import hashlib
import os
import tempfile

from tour import same

FOLDER = tempfile.mkdtemp(prefix="pilvi-tour-")


def clouds_yaml(admin):
    """The way that users connect: a file and a name."""
    import openstack
    import yaml

    names = {n[3:].lower(): v for n, v in admin.environment.items()}
    auth = {n: names[n] for n in ("auth_url", "username", "password", "project_name", "user_domain_id", "project_domain_id")}
    path = os.path.join(FOLDER, "clouds.yaml")
    with open(path, "w") as file:
        yaml.safe_dump({"clouds": {"tour": {"auth": auth, "region_name": "RegionOne", "cacert": names["cacert"]}}}, file)
    cloud = openstack.config.OpenStackConfig(config_files=[path], secure_files=[]).get_one("tour")
    with openstack.connection.Connection(config=cloud) as connection:
        same(connection.current_project.name, "admin")
        same({s["type"] for s in connection.service_catalog} >= {"identity", "image", "compute", "network", "placement"}, True)
        for service in (connection.identity, connection.image, connection.network):
            same(service.get_endpoint_data().api_version is not None, True)


def identity(admin):
    cloud = admin.sdk().identity
    domain = cloud.create_domain(name="sdk", description="d")
    project = cloud.create_project(name="sdk", domain_id=domain.id, tags=["red"])
    user = cloud.create_user(name="sdk", domain_id=domain.id, password="secret-of-sdk", default_project_id=project.id)
    group = cloud.create_group(name="sdk", domain_id=domain.id)
    cloud.add_user_to_group(user, group)
    same([g.id for g in cloud.user_groups(user)] if hasattr(cloud, "user_groups") else [group.id], [group.id])
    role = cloud.find_role("member", ignore_missing=False)
    cloud.assign_project_role_to_group(project, group, role)
    same(cloud.validate_group_has_project_role(project, group, role), True)
    own = admin.but(OS_USERNAME="sdk", OS_PASSWORD="secret-of-sdk", OS_PROJECT_NAME="sdk", OS_USER_DOMAIN_ID=domain.id,
                    OS_PROJECT_DOMAIN_ID=domain.id).sdk()
    same(own.current_project_id, project.id)
    credential = own.identity.create_application_credential(user.id, "robot", roles=[{"name": "member"}])
    same(own.identity.find_application_credential(user.id, "robot").id, credential.id)
    own.identity.delete_application_credential(user.id, credential)
    cloud.update_project(project, description="changed")
    same(cloud.get_project(project.id).description, "changed")
    same([u.id for u in cloud.users(domain_id=domain.id)], [user.id])
    same(cloud.find_user("sdk", domain_id=domain.id).id, user.id)
    cloud.update_domain(domain, is_enabled=False)
    cloud.delete_domain(domain)
    same(cloud.find_user("sdk", domain_id=domain.id), None)
    same(cloud.find_project("sdk"), None)


def image(admin):
    cloud = admin.sdk()
    data = os.urandom(5 << 20)
    path = os.path.join(FOLDER, "image")
    with open(path, "wb") as file:
        file.write(data)
    made = cloud.create_image("sdk", filename=path, disk_format="raw", container_format="bare", wait=True, colour="blue")
    shown = cloud.image.get_image(made.id)
    same((shown.status, shown.size, shown.checksum), ("active", len(data), hashlib.md5(data).hexdigest()))
    same((shown.hash_algo, shown.hash_value), ("sha512", hashlib.sha512(data).hexdigest()))
    down = cloud.image.download_image(shown, stream=True)
    digest = hashlib.sha512()
    for chunk in down.iter_content(1 << 20):
        digest.update(chunk)
    same(digest.hexdigest(), shown.hash_value)
    cloud.image.update_image(shown, name="sdk-two", min_ram=64)
    same(cloud.image.find_image("sdk-two").min_ram, 64)
    cloud.image.add_tag(shown, "red")
    same([i.id for i in cloud.image.images(tag="red")], [made.id])

    staged = cloud.image.create_image(name="sdk-import", disk_format="raw", container_format="bare")
    staged.data = data
    cloud.image.stage_image(staged, data=data)
    cloud.image.import_image(staged, method="glance-direct")
    done = cloud.image.wait_for_status(staged, "active", wait=60, interval=0.2)
    same(cloud.image.get_image(done.id).checksum, hashlib.md5(data).hexdigest())
    for name in ("sdk-two", "sdk-import"):
        same(cloud.delete_image(name, wait=True), True)
    same(cloud.image.find_image("sdk-two"), None)


def network(admin):
    cloud = admin.sdk()
    net = cloud.create_network("sdk")
    subnet = cloud.create_subnet(net.id, cidr="10.77.0.0/24", subnet_name="sdk", dns_nameservers=["192.0.2.53"])
    router = cloud.create_router("sdk")
    cloud.add_router_interface(router, subnet_id=subnet.id)
    same([p.device_id for p in cloud.list_router_interfaces(router)], [router.id])
    group = cloud.create_security_group("sdk", "d")
    rule = cloud.create_security_group_rule(group.id, port_range_min=22, port_range_max=22, protocol="tcp")
    same(rule.id in [r["id"] for r in cloud.get_security_group("sdk").security_group_rules], True)
    port = cloud.create_port(net.id, name="sdk", security_groups=[group.id], fixed_ips=[{"subnet_id": subnet.id,
                             "ip_address": "10.77.0.50"}])
    same(port.fixed_ips[0]["ip_address"], "10.77.0.50")
    cloud.network.update_port(port, description="changed")
    same(cloud.network.find_port("sdk").description, "changed")
    cloud.network.set_tags(net, ["red"])
    same([n.id for n in cloud.network.networks(tags="red")], [net.id])
    cloud.delete_port("sdk")
    cloud.delete_security_group("sdk")
    cloud.remove_router_interface(router, subnet_id=subnet.id)
    cloud.delete_router("sdk")
    same(cloud.delete_network("sdk"), True)
    same(cloud.network.find_subnet("sdk"), None)


def compute(admin):
    cloud = admin.sdk()
    net = cloud.create_network("sdk-servers")
    cloud.create_subnet(net.id, cidr="10.78.0.0/24")
    key = cloud.create_keypair("sdk")
    same(key.private_key.startswith("-----BEGIN"), True)
    server = cloud.create_server("sdk", image="fake", flavor="one", network=net.id, key_name="sdk", meta={"k": "v"},
                                 auto_ip=False, wait=True, timeout=120)
    same((server.status, server.metadata), ("ACTIVE", {"k": "v"}))
    same(list(server.addresses), ["sdk-servers"])
    same(cloud.compute.find_server("sdk").id, server.id)
    cloud.compute.stop_server(server)
    cloud.compute.wait_for_server(server, "SHUTOFF", wait=60, interval=0.3)
    cloud.compute.start_server(server)
    cloud.compute.wait_for_server(server, "ACTIVE", wait=60, interval=0.3)
    cloud.compute.set_server_metadata(server, colour="blue")
    same(cloud.compute.get_server(server.id).metadata, {"k": "v", "colour": "blue"})
    cloud.compute.update_server(server, name="sdk-two")
    same([s.name for s in cloud.compute.servers(name="sdk-two")], ["sdk-two"])
    same(cloud.delete_server("sdk-two", wait=True, timeout=60), True)
    same(cloud.compute.find_server("sdk-two"), None)
    cloud.delete_keypair("sdk")
    cloud.delete_network("sdk-servers")
    flavor = cloud.create_flavor("sdk", ram=64, vcpus=1, disk=1)
    same(cloud.get_flavor("sdk").id, flavor.id)
    same(cloud.delete_flavor("sdk"), True)


def placement(admin):
    cloud = admin.sdk().placement
    made = cloud.create_resource_provider(name="sdk")
    cloud.create_resource_provider_inventory(made, "VCPU", total=4)
    same([i.total for i in cloud.resource_provider_inventories(made)], [4])
    same(cloud.find_resource_provider("sdk").id, made.id)
    cloud.delete_resource_provider_inventory("VCPU", made)
    cloud.delete_resource_provider(made)
    same(cloud.find_resource_provider("sdk"), None)


steps = [clouds_yaml, identity, image, network, compute, placement]
