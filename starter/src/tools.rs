//! What the image with tools has besides the starter image: Bash as its shell and the programs that people look for in
//! a guest when they test a network. Where BusyBox has a program of that name, the real one takes its place for users;
//! the guest's own scripts go on with BusyBox, whose shell runs its own programs without starting any.

use crate::recipe::MIB;

/// First the programs' packages, then those of their libraries.
pub const PACKAGES: &[&str] = &[
    "bash",
    "curl",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "libpython3.11-minimal",
    "ncat",
    "nmap",
    "python3.11-minimal",
    "tcpdump",
    "libbpf1",
    "libbrotli1",
    "libbsd0",
    "libcap2",
    "libcurl4",
    "libdbus-1-3",
    "libelf1",
    "libexpat1",
    "libgcc-s1",
    "libgcrypt20",
    "libgnutls30",
    "libgpg-error0",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libidn2-0",
    "libiperf0",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "liblua5.3-0",
    "liblz4-1",
    "liblzma5",
    "libmd0",
    "libmnl0",
    "libnettle8",
    "libnghttp2-14",
    "libp11-kit0",
    "libffi8",
    "libpcap0.8",
    "libpsl5",
    "librtmp1",
    "libsasl2-2",
    "libsctp1",
    "libssh2-1",
    "libssl3",
    "libstdc++6",
    "libsystemd0",
    "libtasn1-6",
    "libtinfo6",
    "libtirpc3",
    "libunistring2",
    "libxtables12",
    "libzstd1",
];

/// (package, path in the package, mode).
pub const FILES: &[(&str, &str, u16)] = &[
    ("bash", "bin/bash", 0o755),
    ("curl", "usr/bin/curl", 0o755),
    ("iperf3", "usr/bin/iperf3", 0o755),
    ("iproute2", "bin/ip", 0o755),
    ("iproute2", "bin/ss", 0o755),
    ("iproute2", "sbin/bridge", 0o755),
    ("iproute2", "sbin/tc", 0o755),
    ("iputils-ping", "bin/ping", 0o4755),
    ("ncat", "usr/bin/ncat", 0o755),
    ("nmap", "usr/bin/nping", 0o755),
    ("python3.11-minimal", "usr/bin/python3.11", 0o755),
    ("tcpdump", "usr/bin/tcpdump", 0o755),
];

/// Python's library, as far as its smallest package has it: sockets are in it, TLS is not.
pub const FOLDERS: &[(&str, &str)] =
    &[("libpython3.11-minimal", "usr/lib/python3.11"), ("libpython3.11-minimal", "etc/python3.11")];

/// (path, target).
pub const LINKS: &[(&str, &str)] =
    &[("usr/bin/sh", "bash"), ("usr/bin/nc", "ncat"), ("usr/bin/python3", "python3.11"), ("usr/sbin/ip", "../bin/ip")];

/// Programs of BusyBox that would hide a real one.
pub const NO_APPLETS: &[&str] = &["bash", "sh", "ip", "nc", "netcat", "ping", "ping6", "ss", "tc"];

/// Files of our own whose place a real program takes.
pub const LEFT_OUT: &[&str] = &["usr/bin/curl"];

/// Lines at the end of files of our own: (path, lines). Debian's tcpdump gives its rights up to a user of its own.
pub const FURTHER: &[(&str, &str)] =
    &[("etc/passwd", "tcpdump:x:107:107::/nonexistent:/usr/sbin/nologin\n"), ("etc/group", "tcpdump:x:107:\n")];

/// The root, which grows to the end of the disk in the guest.
pub const ROOT_SIZE: u64 = 120 * MIB;
