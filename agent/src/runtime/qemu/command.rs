//! The command line of one QEMU guest: pure.
//!
//! Nothing of it is taken from a user unchecked: property values are chosen from short lists, file
//! names go through JSON, and what has no place on a command line (secrets) is not there at all.
use super::device::{self, Board, PLACES};
use crate::runtime::{Guest, Machine, places};
use serde_json::json;
use std::ffi::OsString;

/// What the host decides about every guest.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The emulator.
    pub binary: OsString,
    /// KVM runs ordinary guests here.
    pub kvm: bool,
    /// Unprivileged user to change to once all files are open.
    pub user: Option<String>,
}

/// Where a guest begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// At its firmware, or the kernel that it is given.
    Fresh,
    /// Where it was when its state was saved.
    Saved,
    /// Where it is on another host, when it comes over.
    Elsewhere,
}

/// Name of the control socket in the guest's folder, which is the process' working directory.
pub const SOCKET: &str = "qmp";
/// Name of the socket at which the state of a guest comes in that moves here. QEMU binds it while it may still write
/// to the folder.
pub const STATE_DOOR: &str = "door-state";
/// Bytes of console output that QEMU holds for the agent.
pub const CONSOLE_RING: u64 = 1 << 20;
/// First file descriptor that a guest inherits: the saved state if any, then taps in order.
const FIRST_FD: usize = 3;

/// Builds the arguments, the program first.
///
/// # Errors
/// When the machine's devices do not fit on its bus.
pub fn arguments(host: &Host, guest: &Guest, machine: &Machine, begin: Begin) -> Result<Vec<OsString>, String> {
    let board = Board::of(&machine.properties);
    if board == Board::Pc && machine.uefi.as_ref().is_some_and(|uefi| uefi.secure) {
        return Err("its image asks for os_secure_boot=required, which needs hw_machine_type=q35".into());
    }
    let places = places::assign(machine, PLACES)?;
    let (disks, nics) = places.split_at(machine.disks.len());
    let mut line = Line(vec![host.binary.clone()]);
    line.base(host, guest, machine);
    line.firmware(machine);
    line.sandbox(host);
    line.channels();
    if board == Board::Q35 {
        for place in 0..PLACES {
            line.add("-device", device::port(place).to_string());
        }
    }
    for (at, (disk, place)) in machine.disks.iter().zip(disks).enumerate() {
        line.add("-blockdev", device::node(*place, disk, &disk.path.to_string_lossy()).to_string());
        let device = device::disk(board, *place, disk, &machine.properties, Some(at + 1));
        line.add("-device", device.to_string());
    }
    let mut fd = FIRST_FD;
    match begin {
        Begin::Fresh => {}
        Begin::Saved => {
            line.incoming(&format!("fd:{fd}"));
            fd += 1;
        }
        Begin::Elsewhere => line.incoming(&format!("unix:{STATE_DOOR}")),
    }
    line.nics(board, machine, nics, fd);
    if let Some(boot) = &machine.boot {
        line.add("-kernel", &boot.kernel);
        if let Some(ramdisk) = &boot.ramdisk {
            line.add("-initrd", ramdisk);
        }
        line.add("-append", &boot.cmdline);
    }
    Ok(line.0)
}

struct Line(Vec<OsString>);

impl Line {
    fn add(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }

    /// What comes in does not run before it is told to.
    fn incoming(&mut self, from: &str) {
        self.add("-incoming", from);
        self.0.push("-S".into());
    }

    fn base(&mut self, host: &Host, guest: &Guest, machine: &Machine) {
        for flag in ["-nodefaults", "-no-user-config", "-no-shutdown"] {
            self.0.push(flag.into());
        }
        self.add("-display", "none");
        self.add("-name", format!("guest=pilvi-{},debug-threads=on", guest.id));
        self.add("-uuid", &guest.id);
        let board = Board::of(&machine.properties).word();
        let pflash = if machine.uefi.is_some() { ",pflash0=uefi-code,pflash1=uefi-vars" } else { "" };
        let smm = if machine.uefi.as_ref().is_some_and(|uefi| uefi.secure) { ",smm=on" } else { "" };
        self.add("-machine", format!("{board},memory-backend=ram0,hpet=off{pflash}{smm}"));
        if host.kvm {
            self.add("-accel", "kvm");
            self.add("-cpu", "host");
        } else {
            self.add("-accel", "tcg,thread=multi");
            self.add("-cpu", "max");
        }
        let memory = machine.memory_mib.max(1);
        self.add("-m", format!("size={memory}M"));
        self.add("-object", format!("memory-backend-ram,id=ram0,size={memory}M"));
        self.add("-smp", machine.vcpus.max(1).to_string());
        self.add("-rtc", "base=utc,driftfix=slew");
        self.add("-object", "rng-random,id=rng0,filename=/dev/urandom");
        self.add("-device", "virtio-rng-pci,rng=rng0");
    }

    /// Code that nobody writes, and the server's own variables.
    fn firmware(&mut self, machine: &Machine) {
        let Some(uefi) = &machine.uefi else { return };
        for (node, path, read_only) in [("uefi-code", &uefi.code, true), ("uefi-vars", &uefi.vars, false)] {
            let file = json!({"driver": "file", "filename": path.to_string_lossy()});
            let node = json!({"node-name": node, "driver": "raw", "read-only": read_only, "file": file});
            self.add("-blockdev", node.to_string());
        }
        if uefi.secure {
            // Else the guest could write the keys as well.
            self.add("-global", "driver=cfi.pflash01,property=secure,value=on");
        }
    }

    fn sandbox(&mut self, host: &Host) {
        let mut rules = "on,obsolete=deny,spawn=deny,resourcecontrol=deny".to_owned();
        if host.user.is_none() {
            // Changing to another user needs setuid once. What has changed cannot change back, and
            // without spawn there is no set-user-id program to run.
            rules.push_str(",elevateprivileges=deny");
        }
        self.add("-sandbox", rules);
        if let Some(user) = &host.user {
            self.add("-runas", user);
        }
    }

    fn channels(&mut self) {
        // A ring inside QEMU bounds the console even while no agent runs.
        self.add("-chardev", format!("ringbuf,id=console,size={CONSOLE_RING}"));
        self.add("-serial", "chardev:console");
        self.add("-chardev", format!("socket,id=control,path={SOCKET},server=on,wait=off"));
        self.add("-mon", "chardev=control,mode=control");
    }

    fn nics(&mut self, board: Board, machine: &Machine, places: &[u8], mut fd: usize) {
        for (nic, place) in machine.nics.iter().zip(places) {
            let queues = nic.taps.len();
            if queues > 0 {
                let fds: Vec<String> = (fd..fd + queues).map(|n| n.to_string()).collect();
                let word = if queues == 1 { "fd" } else { "fds" };
                let (name, fds) = (device::net_name(*place), fds.join(":"));
                self.add("-netdev", format!("tap,id={name},{word}={fds},vhost=off"));
                fd += queues;
            }
            self.add("-device", device::nic(board, *place, nic, &machine.properties).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Log;
    use crate::runtime::{DirectBoot, DiskFormat, MachineDisk, MachineNic};
    use crate::uefi::Uefi;
    use std::fs::File;
    use std::path::Path;

    fn guest() -> Guest {
        Guest {
            id: "00000000-0000-4000-8000-000000000001".into(),
            dir: "/x".into(),
            console: Log::new(Path::new("/x"), 1024),
        }
    }

    fn text(host: &Host, machine: &Machine) -> String {
        text_from(host, machine, Begin::Fresh)
    }

    fn text_from(host: &Host, machine: &Machine, begin: Begin) -> String {
        let words = arguments(host, &guest(), machine, begin).unwrap();
        let words: Vec<_> = words.iter().map(|w| w.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn descriptors_follow_their_order() {
        let tap = || File::open("/dev/null").unwrap().into();
        let nic = |id: &str, taps| MachineNic { id: id.into(), mac: "02:00:00:00:00:01".into(), mtu: 1450, taps };
        let nics = vec![nic("a", vec![tap()]), nic("b", vec![]), nic("c", vec![tap(), tap()])];
        let machine = Machine { nics, ..Machine::default() };
        let line = text(&Host::default(), &machine);
        assert!(line.contains("id=net0,fd=3,") && line.contains("id=net2,fds=4:5,"), "{line}");
        assert!(!line.contains("id=net1") && line.contains("\"host_mtu\":1450"));
        let line = text_from(&Host::default(), &machine, Begin::Saved);
        assert!(line.contains("-incoming fd:3 -S") && line.contains("id=net0,fd=4,"), "{line}");
        let line = text_from(&Host::default(), &machine, Begin::Elsewhere);
        assert!(line.contains("-incoming unix:door-state -S") && line.contains("id=net0,fd=3,"), "{line}");
    }

    #[test]
    fn names_with_commas_stay_names() {
        let machine = Machine {
            disks: vec![MachineDisk {
                id: "root".into(),
                path: "/a,format=qcow2".into(),
                format: DiskFormat::Overlay("/b".into()),
                read_only: false,
                serial: "x".repeat(40),
            }],
            boot: Some(DirectBoot { kernel: "/k".into(), ramdisk: None, cmdline: "a=b -monitor stdio".into() }),
            ..Machine::default()
        };
        let words = arguments(&Host::default(), &guest(), &machine, Begin::Fresh).unwrap();
        assert_eq!(words.last().unwrap(), "a=b -monitor stdio");
        let line = text(&Host::default(), &machine);
        assert!(line.contains("\"filename\":\"/a,format=qcow2\""));
        assert!(line.contains(&format!("\"serial\":\"{}\"", "x".repeat(20))));
    }

    #[test]
    fn firmware_comes_in_two_parts() {
        let uefi = |secure| Uefi { code: "/a,b/code".into(), vars: "/i/vars".into(), secure };
        let mut machine = Machine { uefi: Some(uefi(false)), ..Machine::default() };
        let line = text(&Host::default(), &machine);
        assert!(line.contains("hpet=off,pflash0=uefi-code,pflash1=uefi-vars ") && !line.contains("smm"), "{line}");
        let words = arguments(&Host::default(), &guest(), &machine, Begin::Fresh).unwrap();
        let drives: Vec<serde_json::Value> =
            words.iter().filter_map(|word| serde_json::from_slice(word.as_encoded_bytes()).ok()).collect();
        for (name, path, read_only) in [("uefi-code", "/a,b/code", true), ("uefi-vars", "/i/vars", false)] {
            let drive = drives.iter().find(|d| d["node-name"] == name).unwrap();
            assert_eq!((&drive["file"]["filename"], &drive["read-only"]), (&path.into(), &read_only.into()));
        }
        machine.uefi = Some(uefi(true));
        let line = text(&Host::default(), &machine);
        assert!(line.contains(",smm=on ") && line.contains("property=secure,value=on"), "{line}");
        machine.properties.insert("hw_machine_type".into(), "pc".into());
        let refused = arguments(&Host::default(), &guest(), &machine, Begin::Fresh).unwrap_err();
        assert!(refused.contains("q35"), "{refused}");
        assert!(!text(&Host::default(), &Machine::default()).contains("pflash"));
    }

    #[test]
    fn properties_choose_from_lists_only() {
        let mut machine = Machine::default();
        machine.properties.insert("hw_machine_type".into(), "q35,accel=evil".into());
        machine.properties.insert("hw_vif_model".into(), "evil".into());
        let host = Host { kvm: true, user: Some("nobody".into()), ..Host::default() };
        let line = text(&host, &machine);
        assert!(!line.contains("evil") && line.contains("-accel kvm") && line.contains("-runas nobody"));
    }
}
