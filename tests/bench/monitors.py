"""What `tests/bench/vmm` compares: how each monitor is told to start the same guest, and what is read off it from outside."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LIMIT_S = 60
MEMORY_MIB = 128
TAP, MAC = "pilvi-bench", "02:00:00:00:00:02"


class Guest:
    """What is started: a kernel with a command line, and perhaps an initramfs, a disk, a card on the tap."""

    def __init__(self, kernel, cmdline, initramfs=None, disk=None, card=False, queues=1):
        self.kernel, self.cmdline, self.initramfs, self.disk, self.card, self.queues = kernel, cmdline, initramfs, disk, card, queues


class Monitor:
    """One program under test: how to start a guest with it, and where its serial line comes out."""

    def __init__(self, name, program):
        self.name, self.program = name, program

    def arguments(self, folder, guest):
        raise NotImplementedError

    def start(self, folder, guest):
        """The process, the file its guest writes to, and when it was started."""
        arguments = self.arguments(folder, guest)
        with open(folder / "serial", "wb") as out, open(folder / "stderr", "wb") as errors:
            begin = time.monotonic()
            child = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=folder)
        return child, self.output(folder), begin

    def output(self, folder):
        return folder / "serial"


class Pilvi(Monitor):
    def config(self, folder, guest):
        config = {
            "id": "bench", "vcpus": 1, "memory_mib": MEMORY_MIB, "kernel": {"path": str(guest.kernel)}, "cmdline": guest.cmdline, "rng": False,
            "control_socket": {"path": str(folder / "control")}, "console": {"log": {"path": str(folder / "console")}}, "transport": "mmio",
        }
        if guest.initramfs:
            # Huge pages as others ask for by themselves.
            config |= {"initramfs": {"path": str(guest.initramfs)}, "cpu_mask": ["cx16"], "huge_pages": True}
        if guest.disk:
            config["disks"] = [{"source": {"path": str(guest.disk)}, "queues": guest.queues}]
        if guest.card:
            config["nics"] = [{"tap": {"name": TAP}, "mac": MAC}]
        return config

    def arguments(self, folder, guest):
        (folder / "config").write_text(json.dumps(self.config(folder, guest)))
        return [self.program, "--config", folder / "config"]

    def output(self, folder):
        return folder / "console"


class Qemu(Monitor):
    def __init__(self, name, program, aio="io_uring"):
        super().__init__(name, program)
        self.aio = aio

    def arguments(self, folder, guest):
        out = [self.program, "-M", "microvm,rtc=off,isa-serial=on", "-accel", "kvm", "-cpu", "host,-arch-capabilities,-cx16", "-m", str(MEMORY_MIB),
               "-smp", "1", "-nodefaults", "-no-user-config", "-nographic", "-name", "bench,debug-threads=on", "-serial", "stdio",
               "-global", "virtio-mmio.force-legacy=false", "-kernel", guest.kernel, "-append", guest.cmdline]
        if guest.initramfs:
            out += ["-initrd", guest.initramfs]
        if guest.disk:
            out += ["-object", "iothread,id=io", "-drive", f"id=d,file={guest.disk},format=raw,if=none,aio={self.aio},cache=writeback",
                    "-device", f"virtio-blk-device,drive=d,iothread=io,num-queues={guest.queues}"]
        if guest.card:
            out += ["-netdev", f"tap,id=n,ifname={TAP},script=no,downscript=no", "-device", f"virtio-net-device,netdev=n,mac={MAC}"]
        return out


class Firecracker(Monitor):
    def arguments(self, folder, guest):
        config = {"boot-source": {"kernel_image_path": str(guest.kernel), "boot_args": guest.cmdline}, "drives": [],
                  "machine-config": {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB}}
        if guest.initramfs:
            config["boot-source"]["initrd_path"] = str(guest.initramfs)
        if guest.disk:
            config["drives"] = [{"drive_id": "d", "path_on_host": str(guest.disk), "is_root_device": False, "is_read_only": False,
                                 "cache_type": "Writeback", "io_engine": "Async"}]
        if guest.card:
            config["network-interfaces"] = [{"iface_id": "n", "host_dev_name": TAP, "guest_mac": MAC}]
        (folder / "config").write_text(json.dumps(config))
        return [self.program, "--no-api", "--config-file", folder / "config"]


class CloudHypervisor(Monitor):
    def arguments(self, folder, guest):
        out = [self.program, "--kernel", guest.kernel, "--cmdline", guest.cmdline, "--cpus", "boot=1", "--memory", f"size={MEMORY_MIB}M",
               "--serial", "tty", "--console", "off"]
        if guest.initramfs:
            out += ["--initramfs", guest.initramfs]
        if guest.disk:
            out += ["--disk", f"path={guest.disk},num_queues={guest.queues}"]
        if guest.card:
            out += ["--net", f"tap={TAP},mac={MAC}"]
        return out


def wait_for(path, child, marks, begin, limit=LIMIT_S):
    """Seconds from `begin` until each of `marks` is in the file (an empty one: until anything is); None when the monitor
    ended without, or it took too long."""
    seen = []
    while time.monotonic() - begin < limit:
        text = path.read_bytes() if path.exists() else b""
        while len(seen) < len(marks) and text and marks[len(seen)] in text:
            seen.append(time.monotonic() - begin)
        if len(seen) == len(marks):
            return seen
        if child.poll() is not None:
            return None
        time.sleep(0.0005)
    return None


def overhead_kib(pid):
    """Resident memory without the guest's own: the one mapping of 128 MiB or its pieces."""
    total = guests = 0
    size = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0] and not fields[0].endswith(":"):
            start, end = (int(part, 16) for part in fields[0].split("-"))
            size = end - start
        elif fields[0] == "Rss:":
            total += int(fields[1])
            guests += int(fields[1]) if size >= 120 << 20 else 0
    return total - guests


def cpu_seconds(pid):
    """CPU time of all threads but the processor's, kernel threads of the process's io_uring among them."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            if "cpu" not in (thread / "comm").read_text().lower():
                total += int((thread / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            pass
    return total / 1e9


def end(child):
    child.send_signal(signal.SIGKILL)
    child.wait()


def fail(monitor, folder, what):
    sys.exit(f"{monitor.name} {what}: {(folder / 'stderr').read_text()[-500:]}")


def libraries(program):
    """Bytes of the program, and of it with the libraries that it is linked to."""
    own = os.stat(program).st_size
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    paths = {word for word in listed.split() if word.startswith("/")}
    return own, own + sum(os.stat(os.path.realpath(path)).st_size for path in paths)
