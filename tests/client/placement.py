"""Every command that the client's plug-in offers for placement (1.0 to 1.39), at the versions that it knows."""
import uuid

from tour import no_row, row, same

GROUPS = ["openstack.placement.v1"]
LATER = {}


def at(admin, version):
    return admin.but(OS_PLACEMENT_API_VERSION=version)


def new():
    return str(uuid.uuid4())


def providers(admin):
    now, old = at(admin, "1.39"), at(admin, "1.0")
    root = now("resource provider create tour-root", name="tour-root", generation=0, parent_provider_uuid=None)["uuid"]
    child = new()
    now("resource provider create --parent-provider", root, "--uuid", child, "tour-child",
        uuid=child, parent_provider_uuid=root, root_provider_uuid=root)
    now.refused("resource provider create tour-root", "409")
    row(now("resource provider list"), uuid=child, name="tour-child", root_provider_uuid=root)
    row(old("resource provider list --name tour-root"), uuid=root)
    row(now("resource provider list --uuid", child), uuid=child)
    same(len(now("resource provider list --in-tree", child)), 2)
    now("resource provider show", child, name="tour-child", generation=0)
    same("root_provider_uuid" in old("resource provider show", child), False)
    now("resource provider set --name tour-two", child, name="tour-two", parent_provider_uuid=root)
    other = now("resource provider create tour-other")["uuid"]
    at(admin, "1.29").refused("resource provider set --name tour-two --parent-provider", "400", other, child)
    now("resource provider set --name tour-two --parent-provider", other, child, root_provider_uuid=other)
    now.refused("resource provider delete", "409", other)
    for one in (child, other, root):
        now("resource provider delete", one)
    now.refused("resource provider show", "404", root)


def inventories(admin):
    now = at(admin, "1.39")
    one, two = [now("resource provider create", name)["uuid"] for name in ("tour-one", "tour-two")]
    rows = now("resource provider inventory set --resource VCPU=8 --resource VCPU:allocation_ratio=2.0 --resource MEMORY_MB=1024", one)
    row(rows, resource_class="VCPU", total=8, allocation_ratio=2.0, max_unit=2147483647)
    now("resource provider inventory set --amend --resource DISK_GB=100 --resource DISK_GB:reserved=10", one)
    same(sorted(r["resource_class"] for r in now("resource provider inventory list", one)), ["DISK_GB", "MEMORY_MB", "VCPU"])
    now("resource provider inventory class set --total 16 --step_size 2", one, "VCPU", total=16, step_size=2)
    now("resource provider inventory show", one, "VCPU", total=16, used=0)
    now.refused("resource provider inventory set --resource CUSTOM_NO=1", "400", one)
    now("resource provider inventory delete --resource-class DISK_GB", one)
    now.refused("resource provider inventory show", "404", one, "DISK_GB")
    now("resource provider inventory delete", one)
    same(now("resource provider inventory list", one), [])
    aggregate = new()
    for provider in (one, two):
        now("resource provider aggregate set --aggregate", aggregate, "--generation",
            str(now("resource provider show", provider)["generation"]), provider)
    now("resource provider inventory set --aggregate --resource VCPU=4", aggregate)
    for provider in (one, two):
        row(now("resource provider inventory list", provider), resource_class="VCPU", total=4)
        now("resource provider delete", provider)


def aggregates_and_traits(admin):
    now = at(admin, "1.39")
    one = now("resource provider create tour")["uuid"]
    aggregate, other = new(), new()
    row(now("resource provider aggregate set --generation 0 --aggregate", aggregate, one), uuid=aggregate)
    now.refused("resource provider aggregate set --generation 0 --aggregate", "409", other, one)
    row(at(admin, "1.1")("resource provider aggregate set --aggregate", other, one), uuid=other)
    row(now("resource provider aggregate list", one), uuid=other)
    row(now("resource provider list --aggregate-uuid", other), uuid=one)
    no_row(now("resource provider list --member-of", aggregate), uuid=one)

    now("trait create CUSTOM_TOUR")
    now.refused("trait create tour", "400")
    now("trait show CUSTOM_TOUR", name="CUSTOM_TOUR")
    row(now("trait list --name startswith:CUSTOM_"), name="CUSTOM_TOUR")
    row(now("resource provider trait set --trait CUSTOM_TOUR --trait HW_CPU_X86_AVX", one), name="HW_CPU_X86_AVX")
    row(now("resource provider trait list", one), name="CUSTOM_TOUR")
    row(now("trait list --associated --name in:CUSTOM_TOUR"), name="CUSTOM_TOUR")
    row(now("resource provider list --required CUSTOM_TOUR"), uuid=one)
    row(now("resource provider list --required CUSTOM_TOUR,HW_CPU_X86_SSE"), uuid=one)
    no_row(now("resource provider list --forbidden CUSTOM_TOUR"), uuid=one)
    now.refused("trait delete CUSTOM_TOUR", "409")
    now("resource provider trait delete", one)
    same(now("resource provider trait list", one), [])
    now("trait delete CUSTOM_TOUR")
    now.refused("trait show CUSTOM_TOUR", "404")
    now("resource provider delete", one)


def classes(admin):
    now = at(admin, "1.39")
    row(now("resource class list"), name="VCPU")
    now("resource class create CUSTOM_TOUR")
    now.refused("resource class create CUSTOM_TOUR", "409")
    now("resource class set CUSTOM_TOUR_TWO")
    now("resource class set CUSTOM_TOUR_TWO")
    now("resource class show CUSTOM_TOUR_TWO", name="CUSTOM_TOUR_TWO")
    now.refused("resource class set tour", "400")
    for name in ("CUSTOM_TOUR", "CUSTOM_TOUR_TWO"):
        now("resource class delete", name)
    now.refused("resource class show CUSTOM_TOUR", "404")
    now.refused("resource class delete VCPU", "400")


def allocations(admin):
    now, middle, old = at(admin, "1.39"), at(admin, "1.29"), at(admin, "1.0")
    one, two = [now("resource provider create", name)["uuid"] for name in ("tour-one", "tour-two")]
    for provider in (one, two):
        now("resource provider inventory set --resource VCPU=8 --resource MEMORY_MB=1024", provider)
    guest, project, user = new(), new(), new()
    owner = ["--project-id", project, "--user-id", user]
    both = ["--allocation", f"rp={one},VCPU=2,MEMORY_MB=64", "--allocation", f"rp={two},VCPU=1"]
    rows = now("resource provider allocation set", *both, *owner, "--consumer-type", "INSTANCE", guest)
    same({r["resource_provider"]: r["resources"] for r in rows}, {one: {"VCPU": 2, "MEMORY_MB": 64}, two: {"VCPU": 1}})
    row(now("resource provider allocation show", guest), resource_provider=two, project_id=project, user_id=user, consumer_type="INSTANCE")
    same(now("resource provider show --allocations", one)["allocations"][guest]["resources"]["VCPU"], 2)
    row(now("resource provider usage show", one), resource_class="VCPU", usage=2)
    row(middle("resource usage show", project), resource_class="VCPU", usage=3)
    row(middle("resource usage show --user-id", user, project), resource_class="MEMORY_MB", usage=64)
    now.refused("resource provider allocation set", "409", "--allocation", f"rp={one},VCPU=9", *owner, "--consumer-type", "INSTANCE", guest)
    now.refused("resource provider inventory delete", "409", one)
    now.refused("resource provider delete", "409", one)
    rows = middle("resource provider allocation unset --provider", two, guest)
    same([r["resource_provider"] for r in rows], [one])
    middle("resource provider allocation unset --resource-class MEMORY_MB", guest)
    row(old("resource provider allocation show", guest), resource_provider=one, resources={"VCPU": 2})
    now("resource provider allocation delete", guest)
    same(now("resource provider allocation show", guest), [])
    now.refused("resource provider allocation delete", "404", guest)
    old("resource provider allocation set", "--allocation", f"rp={one},VCPU=1", guest)
    old("resource provider allocation delete", guest)
    for provider in (one, two):
        now("resource provider delete", provider)


def candidates(admin):
    now = at(admin, "1.39")
    one, two = [now("resource provider create", name)["uuid"] for name in ("tour-one", "tour-two")]
    for provider in (one, two):
        now("resource provider inventory set --resource FPGA=2 --resource PGPU=1", provider)
    now("resource provider trait set --trait STORAGE_DISK_SSD", two)
    found = now("allocation candidate list --resource FPGA=1 --resource PGPU=1")
    same({r["resource provider"] for r in found}, {one, two})
    same(len(now("allocation candidate list --resource FPGA=1 --limit 1")), 1)
    found = now("allocation candidate list --resource FPGA=1 --required STORAGE_DISK_SSD")
    same([r["resource provider"] for r in found], [two])
    found = at(admin, "1.25")("allocation candidate list --resource FPGA=1 --forbidden STORAGE_DISK_SSD")
    same([r["resource provider"] for r in found], [one])
    aggregate = new()
    at(admin, "1.1")("resource provider aggregate set --aggregate", aggregate, one)
    found = now("allocation candidate list --resource FPGA=1 --aggregate-uuid", aggregate)
    same([r["resource provider"] for r in found], [one])
    same(now("allocation candidate list --resource FPGA=1 --member-of", new()), [])
    found = now("allocation candidate list --group 1 --resource FPGA=1 --group 2 --resource PGPU=1 --group-policy none")
    same({r["resource provider"] for r in found}, {one, two})
    same(now("allocation candidate list --group 1 --resource FPGA=1 --group 2 --resource PGPU=1 --group-policy isolate"), [])
    same(now("allocation candidate list --resource FPGA=3"), [])
    now.refused("allocation candidate list --resource CUSTOM_NO=1", "400")
    for provider in (one, two):
        now("resource provider delete", provider)


steps = [providers, inventories, aggregates_and_traits, classes, allocations, candidates]
