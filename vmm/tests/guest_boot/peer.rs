//! The other end of a guest's wire: a network namespace with a tap, a DHCP server for one client, and ping.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 9];
const TAP: &str = "guest0";
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

fn check(what: &str, code: libc::c_int) {
    assert!(code >= 0, "{what}: {}", io::Error::last_os_error());
}

fn request() -> libc::ifreq {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(TAP.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

/// Runs `story` on a thread in a namespace of its own, which goes when the thread ends.
pub fn in_own_network(story: impl FnOnce(OwnedFd) + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: a namespace for this thread alone.
        check("unshare", unsafe { libc::unshare(libc::CLONE_NEWNET) });
        let tap = make_tap();
        story(tap);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn make_tap() -> OwnedFd {
    let tap: OwnedFd = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap().into();
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut flags = request();
    flags.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    let address = |ip: Ipv4Addr| {
        let mut request = request();
        let bytes = ip.octets();
        // SAFETY: a sockaddr_in is as large as the union's sockaddr and all its bytes are set or zero.
        unsafe {
            let to = (&raw mut request.ifr_ifru.ifru_addr).cast::<libc::sockaddr_in>();
            (*to).sin_family = libc::AF_INET as u16;
            (*to).sin_addr.s_addr = u32::from_ne_bytes(bytes);
        }
        request
    };
    let (host, mask) = (address(HOST), address(Ipv4Addr::new(255, 255, 255, 0)));
    let mut up = request();
    up.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
    // SAFETY: each ioctl reads one live ifreq.
    unsafe {
        check("TUNSETIFF", libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw const flags));
        check("SIOCSIFADDR", libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR, &raw const host));
        check("SIOCSIFNETMASK", libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFNETMASK, &raw const mask));
        check("SIOCSIFFLAGS", libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const up));
    }
    tap
}

fn set_option(fd: &impl AsRawFd, option: libc::c_int, value: &[u8]) {
    // SAFETY: pointer and length are of one live slice.
    let code = unsafe {
        let length = value.len() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, value.as_ptr().cast(), length)
    };
    check("setsockopt", code);
}

/// Leases `GUEST` to whoever asks, until a request was acknowledged. Fails after `limit`.
pub fn serve_dhcp(limit: Duration) {
    let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
    socket.set_broadcast(true).unwrap();
    set_option(&socket, libc::SO_BINDTODEVICE, TAP.as_bytes());
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let end = Instant::now() + limit;
    let mut packet = [0u8; 1500];
    loop {
        assert!(Instant::now() < end, "nobody asked for an address");
        let Ok((length, _)) = socket.recv_from(&mut packet) else { continue };
        let Some(kind) = message_kind(&packet[..length]) else { continue };
        let answer = if kind == 1 { 2 } else { 5 };
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);
        socket.send_to(&reply(&packet, answer), to).unwrap();
        if answer == 5 {
            return;
        }
    }
}

/// Option 53 of a DHCP packet.
fn message_kind(packet: &[u8]) -> Option<u8> {
    let mut options = packet.get(240..)?;
    while let [code, length, rest @ ..] = options {
        if *code == 53 {
            return rest.first().copied();
        }
        options = rest.get(usize::from(*length)..)?;
    }
    None
}

fn reply(asked: &[u8], kind: u8) -> Vec<u8> {
    let mut out = vec![0u8; 240];
    out[..4].copy_from_slice(&[2, 1, 6, 0]);
    out[4..8].copy_from_slice(&asked[4..8]);
    out[10] = 0x80;
    out[16..20].copy_from_slice(&GUEST.octets());
    out[28..44].copy_from_slice(&asked[28..44]);
    out[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    let host = HOST.octets();
    out.extend([53, 1, kind, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16]);
    for code in [54, 3, 6] {
        out.extend([code, 4]);
        out.extend(host);
    }
    out.push(255);
    out.resize(300, 0);
    out
}

/// Sends echo requests of `bytes` payload until one is answered. Returns the round trip time.
pub fn ping(to: Ipv4Addr, bytes: usize, limit: Duration) -> Duration {
    // SAFETY: a plain socket call; the result is checked and owned.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMP);
        check("socket", fd);
        UdpSocket::from(OwnedFd::from_raw_fd(fd))
    };
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let end = Instant::now() + limit;
    for sequence in 1u16.. {
        assert!(Instant::now() < end, "no answer to {bytes} bytes from {to}");
        let mut packet = vec![8, 0, 0, 0, 0x50, 0x49];
        packet.extend(sequence.to_be_bytes());
        packet.extend((0..bytes).map(|n| n as u8));
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        let begin = Instant::now();
        let _ = socket.send_to(&packet, SocketAddrV4::new(to, 0));
        let mut answer = vec![0u8; 70_000];
        while let Ok((length, from)) = socket.recv_from(&mut answer) {
            let body = &answer[20..length];
            if from.ip() == to && body[0] == 0 && body[4..] == packet[4..] {
                return begin.elapsed();
            }
        }
    }
    unreachable!()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0)));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// More datagrams than a guest that emulates can take.
pub fn flood(to: Ipv4Addr, datagrams: usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    for n in 0..datagrams {
        let _ = socket.send_to(&vec![n as u8; 1 + n % 1400], SocketAddrV4::new(to, 9));
    }
}

/// The interface's counter of this name.
pub fn tap_statistic(name: &str) -> u64 {
    // sysfs shows the namespace of whoever mounted it; /proc/self/net is per thread and always ours.
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find(|l| l.trim_start().starts_with(TAP)).unwrap();
    let values: Vec<u64> = line.split(':').nth(1).unwrap().split_whitespace().map(|v| v.parse().unwrap()).collect();
    match name {
        "received" => values[1],
        "sent" => values[9],
        other => panic!("no statistic {other}"),
    }
}

/// Takes the tap out of this thread's namespace, whoever has it open.
pub fn delete_tap() {
    let done = std::process::Command::new("ip").args(["link", "delete", TAP]).status().unwrap();
    assert!(done.success());
}

/// What a thread of a process does, as `/proc` has it: S for one that sleeps.
pub fn thread_state(process: u32, thread: &str) -> char {
    let mut tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap().path());
    let name = |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).unwrap();
    let task = tasks.find(|task| name(task).trim_end() == thread).unwrap();
    let stat = std::fs::read_to_string(task.join("stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().next().unwrap()
}
