"""Every command that the client offers for images (Glance v2)."""
import functools
import hashlib
import http.server
import os
import tempfile
import threading
import time

from tour import no_row, row, same

GROUPS = ["openstack.image.v2"]
FOLDER = tempfile.mkdtemp(prefix="pilvi-tour-")
BYTES = os.urandom(3 << 20)


def file(name, data):
    path = os.path.join(FOLDER, name)
    with open(path, "wb") as out:
        out.write(data)
    return path


def path_of(name):
    return os.path.join(FOLDER, name)


def images(admin):
    made = admin("image create --disk-format raw --container-format bare --min-disk 2 --min-ram 64 --tag red "
                 "--property colour=blue --property hw_disk_bus=virtio --protected --file", file("raw", BYTES), "tour")
    shown = admin("image show tour", id=made["id"], status="active", disk_format="raw", container_format="bare",
                  min_disk=2, min_ram=64, size=len(BYTES), protected=True, tags=["red"], visibility="shared",
                  checksum=hashlib.md5(BYTES).hexdigest())
    properties = shown["properties"]
    same((properties["colour"], properties["hw_disk_bus"]), ("blue", "virtio"))
    same((properties["os_hash_algo"], properties["os_hash_value"]), ("sha512", hashlib.sha512(BYTES).hexdigest()))
    admin("image save tour --file", path_of("back"))
    with open(path_of("back"), "rb") as back:
        same(back.read() == BYTES, True, "what comes down is what went up:")
    row(admin("image list --long"), ID=made["id"], Name="tour", Disk_Format="raw", Size=len(BYTES), Status="active",
        Visibility="shared", Protected=True, Tags=["red"])
    row(admin("image list --property colour=blue --tag red --name tour --status active"), ID=made["id"])
    no_row(admin("image list --property colour=red"), ID=made["id"])
    no_row(admin("image list --public"), ID=made["id"])
    admin.refused("image delete tour", "403")

    admin("image set --name tour-two --tag green --property colour=red --min-ram 128 --os-distro debian --public "
          "--unprotected tour")
    shown = admin("image show tour-two", min_ram=128, visibility="public", protected=False)
    same((sorted(shown["tags"]), shown["properties"]["colour"]), (["green", "red"], "red"))
    same(shown["properties"]["os_distro"], "debian")
    row(admin("image list --public"), ID=made["id"])
    admin("image unset --tag red --property colour tour-two")
    shown = admin("image show tour-two", tags=["green"])
    same("colour" in shown["properties"], False)
    admin("image set --hidden tour-two")
    no_row(admin("image list"), ID=made["id"])
    row(admin("image list --hidden"), ID=made["id"])
    admin("image set --unhidden tour-two")
    admin("image set --deactivate tour-two")
    admin("image show tour-two", status="deactivated")
    admin("image set --activate tour-two")
    admin("image show tour-two", status="active")
    admin("image delete tour-two")
    admin.refused("image show tour-two", "tour-two")


def lists(admin):
    for number in range(5):
        admin(f"image create --property series=tour tour-{number}", status="queued")
    rows = admin("image list --property series=tour --sort name:desc")
    same([r["Name"] for r in rows], [f"tour-{n}" for n in (4, 3, 2, 1, 0)])
    rows = admin("image list --property series=tour --sort name:asc --page-size 2")
    same([r["Name"] for r in rows], [f"tour-{n}" for n in range(5)])
    same(len(admin("image list --property series=tour --limit 2")), 2)
    admin("image delete", *[f"tour-{n}" for n in range(5)])
    same(admin("image list --property series=tour"), [])


def members(admin):
    project = admin("project create guests")["id"]
    admin("user create --password secret-of-tour guest")
    admin("role add --user guest --project guests member")
    other = admin.but(OS_USERNAME="guest", OS_PASSWORD="secret-of-tour", OS_PROJECT_NAME="guests")
    image = admin("image create --shared shared", status="queued")["id"]
    other.refused("image show", "No Image found", image)
    admin("image add project shared guests", image_id=image, member_id=project, status="pending")
    row(admin("image member list shared"), Image_ID=image, Member_ID=project, Status="pending")
    no_row(other("image list"), ID=image)
    other("image set --accept", image)
    other("image member get", image, project, status="accepted")
    row(other("image list"), ID=image)
    admin("image remove project shared guests")
    same(admin("image member list shared"), [])
    other.refused("image show", "No Image found", image)
    admin("image delete shared")
    admin("user delete guest")
    admin("project delete guests")


def imports(admin):
    same("glance-direct" in admin("image import info")["import-methods"], True)
    image = admin("image create --disk-format raw --container-format bare imported")["id"]
    admin("image stage imported --file", file("staged", BYTES))
    admin("image show imported", status="uploading")
    admin("image import --method glance-direct imported")
    admin.until("image show imported", status="active", size=len(BYTES), checksum=hashlib.md5(BYTES).hexdigest())
    task = row(admin("image task list --status success"), Type="api_image_import", Status="success")
    shown = admin("image task show", task["ID"], status="success", type="api_image_import")
    same(image in str(shown["input"]), True, "the task names its image:")
    admin("image delete imported")
    admin("image create --import --disk-format raw --container-format bare --file", file("staged", BYTES), "tour-two")
    admin("image delete tour-two")


def web_download(admin):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=FOLDER)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        file("web", BYTES)
        admin("image create --disk-format raw --container-format bare web")
        admin("image import --method web-download --uri", url + "web", "web")
        admin.until("image show web", status="active", size=len(BYTES), checksum=hashlib.md5(BYTES).hexdigest())
        admin("image delete web")
        # The metadata service of whatever the scheduler itself runs on is nobody's business.
        admin("image create --disk-format raw --container-format bare local")
        # The cloud says 400, which the client does not pass on.
        admin("image import --method web-download --uri http://169.254.169.254/ local")
        admin("image show local", status="queued", size=None)
        admin("image delete local")
        server.shutdown()


def finished(admin, stores, name):
    """Waits until an image lies in so many stores: the client's own `--wait` waits for new images only."""
    end = time.monotonic() + 60
    while len(admin("image show", name)["properties"]["stores"].split(",")) != stores:
        same(time.monotonic() < end, True, f"{name} is in {stores} stores:")
        time.sleep(0.3)


def stores(admin):
    rows = admin("image stores list")
    row(rows, ID="first", Default=True)
    row(rows, ID="second")
    image = admin("image create --disk-format raw --container-format bare --file", file("raw", BYTES), "stored")
    same(admin("image show stored")["properties"]["stores"], "first")
    admin("image import --store second --method copy-image stored")
    finished(admin, 2, "stored")
    admin("image delete", image["id"])


def stores_one_by_one(admin):
    admin("image create --disk-format raw --container-format bare --file", file("raw", BYTES), "copied")
    admin("image import --store second --method copy-image copied")
    finished(admin, 2, "copied")
    admin.refused("image delete --store nowhere copied", "is not available")
    admin("image delete --store first copied")
    same(admin("image show copied")["properties"]["stores"], "second")
    admin("image save copied --file", path_of("second"))
    with open(path_of("second"), "rb") as back:
        same(back.read() == BYTES, True, "what comes down is what went up:")
    admin("image delete copied")


def cache(admin):
    image = admin("image create --disk-format raw --container-format bare --file", file("raw", BYTES), "cached")["id"]
    admin("cached image queue cached")
    row(admin("cached image list"), ID=image)
    admin("cached image delete cached")
    no_row(admin("cached image list"), ID=image)
    admin("cached image queue cached")
    admin("cached image clear")
    same(admin("cached image list"), [])
    admin("image delete cached")


def namespaces(admin):
    base = "image metadef namespace"
    admin(f"{base} create --display-name Tours --description d --private --unprotected Tour::One",
          namespace="Tour::One", display_name="Tours", description="d", visibility="private", protected=False)
    same("Tour::One" in str(admin(f"{base} list --visibility private")), True)
    admin(f"{base} set --display-name Voyages --public --protected --tag red --tag blue Tour::One")
    shown = admin(f"{base} show Tour::One", display_name="Voyages", visibility="public", protected=True)
    same(sorted(t if isinstance(t, str) else t["name"] for t in shown["tags"]), ["blue", "red"])
    admin.refused(f"{base} delete Tour::One", "403")
    admin(f"{base} unset --tag red Tour::One")
    shown = admin(f"{base} show Tour::One")
    same([t if isinstance(t, str) else t["name"] for t in shown["tags"]], ["blue"])
    admin(f"{base} set --unprotected Tour::One")
    admin(f"{base} delete Tour::One")
    admin.refused(f"{base} show Tour::One", "No MetadefNamespace found")


def definitions(admin):
    admin("image metadef namespace create Tour::Two")
    base = "image metadef property"
    admin(f'{base} create --name colour --title Colour --type string --schema', '{"enum": ["red", "blue"]}', "Tour::Two",
          name="colour", title="Colour", type="string")
    row(admin(f"{base} list Tour::Two"), name="colour", title="Colour", type="string")
    admin(f"{base} set --title Hue --schema", '{"enum": ["green"]}', "Tour::Two", "colour")
    shown = admin(f"{base} show Tour::Two colour", title="Hue")
    same(shown["enum"], ["green"])
    admin(f"{base} delete Tour::Two colour")
    same(admin(f"{base} list Tour::Two"), [])

    base = "image metadef object"
    admin(f"{base} create --namespace Tour::Two bus", name="bus", namespace_name="Tour::Two")
    row(admin(f"{base} list Tour::Two"), name="bus")
    # The client can make objects without properties only; it shows those that others made.
    admin.sdk().image.update_metadef_object("bus", "Tour::Two", name="bus", properties={
        "seats": {"title": "Seats", "type": "integer", "minimum": 1}})
    admin(f"{base} property show Tour::Two bus seats", name="seats", title="Seats", type="integer", minimum=1)
    admin(f"{base} update --name coach Tour::Two bus")
    admin(f"{base} show Tour::Two coach", name="coach")
    admin.refused(f"{base} show Tour::Two bus", "No MetadefObject found")
    admin(f"{base} delete Tour::Two coach")
    same(admin(f"{base} list Tour::Two"), [])

    row(admin("image metadef resource type list"), Name="OS::Glance::Image")
    base = "image metadef resource type association"
    admin(f"{base} create --properties-target image Tour::Two OS::Nova::Server", name="OS::Nova::Server")
    row(admin(f"{base} list Tour::Two"), Name="OS::Nova::Server")
    admin(f"{base} delete Tour::Two OS::Nova::Server")
    same(admin(f"{base} list Tour::Two"), [])
    admin("image metadef namespace delete Tour::Two")


steps = [images, lists, members, imports, web_download, stores, stores_one_by_one, cache, namespaces, definitions]
LATER = {}
