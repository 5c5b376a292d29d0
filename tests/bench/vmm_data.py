"""Block and network rows of `tests/bench/vmm`: the guest asks as fast as it can for a time (tests/guest/src/measure), its
lines say when a task begins and ends and how much it did; CPU time of the monitor's threads is read between them."""
import ctypes
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from monitors import LIMIT_S, TAP, Guest, cpu_seconds, end, fail

DISK_BYTES = 256 << 20
HOST, GUEST, PORT, MAC_HOST, MAC_GUEST = "192.0.2.1", "192.0.2.2", 7, "02:00:00:00:00:01", "02:00:00:00:00:02"
LARGE = 60_000
# Row, word for the guest, bytes of one request where the row is a throughput.
DISK = [("read 4 KiB, depth 1", "read:4096:1", 0), ("read 4 KiB, depth 32", "read:4096:32", 0), ("write 4 KiB, depth 1", "write:4096:1", 0),
        ("write 4 KiB, depth 32", "write:4096:32", 0), ("read 128 KiB in order, depth 8", "stream:131072:8", 131072), ("read 1 MiB in order, depth 4", "stream:1048576:4", 1 << 20)]
# The same of a disk with two queues; where a monitor has one thread for all of them, or no more than one queue, it is the same row.
SPREAD = [("read 4 KiB, depth 32 over two queues", "spread:4096:32", 0), ("read 128 KiB, depth 8 over two queues", "spread:131072:8", 131072)]
SEND = [("send 60 bytes", "send:60:64", 0), ("send 60,000 bytes", f"send:{LARGE}:32", LARGE)]
TAKE = [("receive 60 bytes", "take:60:128", 0), ("receive 60,000 bytes", f"take:{LARGE}:64", LARGE)]
ECHO = [("round trip, 60 bytes", "echo:60:64", 0)]


def tasks(monitor, kernel, kind, rows, ms, during=None, **devices):
    """Starts the guest with these tasks: for each row operations a second, and CPU microseconds of the monitor for one."""
    words = {f"{kind}={word}:{ms}": row for row, word, _ in rows}
    seen, begun = {}, {}
    with tempfile.TemporaryDirectory(prefix="pilvi-bench-vmm-") as name:
        folder = Path(name)
        child, output, start = monitor.start(folder, Guest(kernel, " ".join(words), **devices))
        try:
            read = 0
            while len(seen) < len(rows):
                lines = output.read_bytes().split(b"\n")[:-1] if output.exists() else []
                for line in lines[read:]:
                    now, cpu, fields = time.monotonic(), cpu_seconds(child.pid), line.decode(errors="replace").split()
                    if fields[:1] == ["begin"]:
                        begun[fields[1]] = now, cpu
                        if during:
                            during(words[fields[1]], now + ms / 1000)
                    elif fields[:1] == ["end"] and int(fields[2]):
                        since, before = begun[fields[1]]
                        count = int(fields[2])
                        seen[words[fields[1]]] = count / (now - since), (cpu - before) / count * 1e6
                    elif fields[:1] == ["end"] or fields[:1] in (["no"], ["disk"], ["PANIC"]):
                        fail(monitor, folder, f"has a guest that says {line!r}")
                read = len(lines)
                if child.poll() is not None or time.monotonic() - start > LIMIT_S + len(rows) * ms / 1000:
                    fail(monitor, folder, f"does not get through {' '.join(words)}")
                time.sleep(0.0005)
        finally:
            end(child)
    return seen


def own_network():
    """A network of this process's own, with a tap between host and guest; both end with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:
        return False
    for command in [f"tuntap add dev {TAP} mode tap vnet_hdr", f"link set {TAP} address {MAC_HOST} mtu 65521 up", f"addr add {HOST}/24 dev {TAP}",
                    f"neigh replace {GUEST} lladdr {MAC_GUEST} dev {TAP} nud permanent"]:
        subprocess.run(["ip", *command.split()], check=True)
    Path(f"/proc/sys/net/ipv6/conf/{TAP}/disable_ipv6").write_text("1")
    return True


def flood(row, until):
    """Datagrams to the guest, in parts that fill the tap's queue, with the kernel cutting small ones to size."""
    large = "60,000" in row
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if not large:
        sender.setsockopt(socket.IPPROTO_UDP, 103, 18)  # UDP_SEGMENT
    data = bytes(LARGE - 42) if large else bytes(18 * 64)

    def send():
        while time.monotonic() < until:
            for _ in range(16 if large else 8):
                sender.sendto(data, (GUEST, PORT))
            time.sleep(0.001)
    threading.Thread(target=send, daemon=True).start()


class Pings:
    """Datagrams that are echoed, one after the other."""

    def __init__(self):
        self.times = []

    def begin(self, _row, until):
        def ask():
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asker.settimeout(0.2)
            while time.monotonic() < until - 0.2:
                begin = time.perf_counter()
                asker.sendto(bytes(18), (GUEST, PORT))
                try:
                    asker.recv(100)
                    self.times.append((time.perf_counter() - begin) * 1e6)
                except TimeoutError:
                    pass
        self.thread = threading.Thread(target=ask, daemon=True)
        self.thread.start()


def disk_round(monitor, kernel, image, ms):
    return tasks(monitor, kernel, "disk", DISK, ms, disk=image) | tasks(monitor, kernel, "disk", SPREAD, ms, disk=image, queues=2)


def net_round(monitor, kernel, ms):
    # Whoever sends to a port that is open: nothing answers with errors, and the first datagrams show that they arrive.
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((HOST, PORT))
    seen = tasks(monitor, kernel, "card", SEND, ms, card=True)
    listener.settimeout(1)
    listener.recv(LARGE)
    listener.close()
    for row in TAKE:
        seen |= tasks(monitor, kernel, "card", [row], ms, during=flood, card=True)
    pings = Pings()
    seen |= tasks(monitor, kernel, "card", ECHO, ms, during=pings.begin, card=True)
    pings.thread.join()
    (_, cpu), = [seen[row] for row, _, _ in ECHO]
    seen[ECHO[0][0]] = statistics.median(pings.times), cpu
    return seen


def image(folder):
    """A disk in the page cache: what is compared is the way there, not the host's disk."""
    path = folder / "disk"
    with open(path, "wb") as file:
        for _ in range(DISK_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    return path


def measure(monitors, disks_only, kernel, rounds, ms, network=True):
    """{row: {monitor: [(figure, CPU us)]}} over all rounds, in turns."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="pilvi-bench-vmm-") as name:
        disk = image(Path(name))
        for _ in range(rounds):
            for monitor in monitors + disks_only:
                seen = disk_round(monitor, kernel, disk, ms)
                if network and monitor not in disks_only:
                    seen |= net_round(monitor, kernel, ms)
                for row, pair in seen.items():
                    found.setdefault(row, {}).setdefault(monitor.name, []).append(pair)
    return found


def show(found, monitors):
    """A table, a row for each task: our figure and CPU time, and those of each other with how many times ours they are."""
    sizes = {row: size for row, _, size in DISK + SPREAD + SEND + TAKE + ECHO}
    ours = monitors[0].name
    heads = [f"{m.name}: rate | CPU us" + ("" if m.name == ours else " (x ours)") for m in monitors]
    print(f"\nload {os.getloadavg()[0]:.1f}\n\n| a request, a frame | {' | '.join(heads)} |\n| --- |{' ---: |' * 2 * len(monitors)}")
    for row, seen in found.items():
        unit = "us" if row.startswith("round") else "MiB/s" if sizes[row] else "/s"
        base, base_cpu = (statistics.median(values) for values in zip(*seen[ours]))
        cells = []
        for monitor in monitors:
            if monitor.name not in seen:
                cells += ["", ""]
                continue
            figure, cpu = (statistics.median(values) for values in zip(*seen[monitor.name]))
            shown = figure * sizes[row] / 2**20 if sizes[row] else figure
            times, cpu_times = ("", "") if monitor.name == ours else (f" ({figure / base:.2f})", f" ({cpu / base_cpu:.2f})")
            cells += [f"{shown:,.0f} {unit}{times}", f"{cpu:.2f}{cpu_times}"]
        print(f"| {row} | {' | '.join(cells)} |")
