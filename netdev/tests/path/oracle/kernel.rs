//! The programs that a packet path has loaded, run on single frames by BPF_PROG_TEST_RUN: no device carries anything.
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const LOOKUP: libc::c_long = 1;
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const NEXT: libc::c_long = 4;
const GET: libc::c_long = 7;
const RUN: libc::c_long = 10;
/// Where `struct __sk_buff` has the mark and the interface.
const MARK_AT: usize = 8;
const IFINDEX_AT: usize = 40;
const CONTEXT: usize = 192;

fn bpf(command: libc::c_long, attr: &mut [u64; 16]) -> i64 {
    // SAFETY: all commands used here read at most these 128 bytes, whose pointers lead to live buffers of the callers.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), 80usize) }
}

fn open(path: &Path) -> OwnedFd {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut attr = [0u64; 16];
    attr[0] = name.as_ptr() as u64;
    let fd = bpf(GET, &mut attr);
    assert!(fd >= 0, "{}: {}", path.display(), std::io::Error::last_os_error());
    // SAFETY: the kernel has just given this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

fn number(fd: &OwnedFd) -> u64 {
    u64::try_from(fd.as_raw_fd()).unwrap()
}

pub struct Kernel {
    from_guest: OwnedFd,
    to_guest: OwnedFd,
    wrap_copy: OwnedFd,
    collectors: OwnedFd,
    flows: [(OwnedFd, usize); 2],
    fragments: [(OwnedFd, usize); 2],
    live: OwnedFd,
    settings: OwnedFd,
}

impl Kernel {
    pub fn open(bpffs: &Path) -> Self {
        let folder = |start: &str| -> PathBuf {
            let found = std::fs::read_dir(bpffs).unwrap().map(|e| e.unwrap().path());
            let ours = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().starts_with(start);
            found.into_iter().find(ours).unwrap()
        };
        let (tables, programs) = (folder("t"), folder("p-"));
        let table = |name: &str| open(&tables.join(name));
        Self {
            from_guest: open(&programs.join("from_guest")),
            to_guest: open(&programs.join("to_guest")),
            wrap_copy: open(&programs.join("wrap_copy")),
            collectors: table("collectors"),
            flows: [(table("flows"), 20), (table("flows6"), 44)],
            fragments: [(table("fragments"), 16), (table("fragments6"), 40)],
            live: table("live"),
            settings: table("settings"),
        }
    }

    fn run(program: &OwnedFd, ifindex: u32, frame: &[u8]) -> u32 {
        let mut context = [0u8; CONTEXT];
        context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut attr = [0u64; 16];
        attr[0] = number(program);
        attr[1] = frame.len() as u64;
        attr[2] = frame.as_ptr() as u64;
        attr[4] = 1;
        attr[5] = CONTEXT as u64;
        attr[6] = context.as_ptr() as u64;
        let r = bpf(RUN, &mut attr);
        assert!(r >= 0, "test run: {}", std::io::Error::last_os_error());
        u32::try_from(attr[0] >> 32).unwrap()
    }

    /// Whether the guest's frame goes anywhere.
    pub fn sends(&self, ifindex: u32, frame: &[u8]) -> bool {
        match Self::run(&self.from_guest, ifindex, frame) {
            7 => true,
            2 => false,
            other => panic!("verdict {other}"),
        }
    }

    /// Whether the guest gets the frame.
    pub fn gets(&self, ifindex: u32, frame: &[u8]) -> bool {
        match Self::run(&self.to_guest, ifindex, frame) {
            0 => true,
            2 => false,
            other => panic!("verdict {other}"),
        }
    }

    /// Names of collectors, each with how its row begins: flags, key or session.
    pub fn collectors(&self) -> Vec<(u32, u32, u32)> {
        let (mut found, mut key) = (Vec::new(), [0u8; 4]);
        loop {
            let mut attr = [0u64; 16];
            (attr[0], attr[2]) = (number(&self.collectors), key.as_mut_ptr() as u64);
            // Before the first is whatever is not there.
            attr[1] = if found.is_empty() { 0 } else { key.as_ptr() as u64 };
            if bpf(NEXT, &mut attr) < 0 {
                return found;
            }
            let (key, mut row) = (std::hint::black_box(key), [0u8; 56]);
            let mut attr = [0u64; 16];
            (attr[0], attr[1], attr[2]) = (number(&self.collectors), key.as_ptr() as u64, row.as_mut_ptr() as u64);
            assert!(bpf(LOOKUP, &mut attr) >= 0);
            let word = |at: usize| u32::from_ne_bytes(*std::hint::black_box(&row)[at..].first_chunk().unwrap());
            found.push((u32::from_ne_bytes(key), word(0), word(4)));
        }
    }

    /// A copy as it is sent to a collector, if it is.
    pub fn wraps(&self, collector: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let mut context = [0u8; CONTEXT];
        context[MARK_AT..MARK_AT + 4].copy_from_slice(&collector.to_ne_bytes());
        context[IFINDEX_AT..IFINDEX_AT + 4].copy_from_slice(&1u32.to_ne_bytes());
        let mut out = vec![0u8; 4096];
        let mut attr = [0u64; 16];
        attr[0] = number(&self.wrap_copy);
        attr[1] = frame.len() as u64 | (out.len() as u64) << 32;
        (attr[2], attr[3]) = (frame.as_ptr() as u64, out.as_mut_ptr() as u64);
        attr[4] = 1;
        attr[5] = CONTEXT as u64;
        attr[6] = context.as_ptr() as u64;
        let r = bpf(RUN, &mut attr);
        assert!(r >= 0, "test run: {}", std::io::Error::last_os_error());
        out.truncate(usize::try_from(attr[1] >> 32).unwrap());
        match attr[0] >> 32 {
            7 => Some(out),
            2 => None,
            other => panic!("verdict {other}"),
        }
    }

    /// Forgets all flows and fragments, and how many there were.
    pub fn forget(&self, ports: &[u32]) {
        for (map, size) in self.flows.iter().chain(&self.fragments) {
            let mut key = vec![0u8; *size];
            loop {
                let mut attr = [0u64; 16];
                (attr[0], attr[2]) = (number(map), key.as_mut_ptr() as u64);
                if bpf(NEXT, &mut attr) < 0 {
                    break;
                }
                let mut attr = [0u64; 16];
                (attr[0], attr[1]) = (number(map), key.as_ptr() as u64);
                bpf(DELETE, &mut attr);
            }
        }
        for port in ports {
            let (key, value) = (port.to_ne_bytes(), [0u8; 32]);
            let mut attr = [0u64; 16];
            (attr[0], attr[1], attr[2]) = (number(&self.live), key.as_ptr() as u64, value.as_ptr() as u64);
            assert!(bpf(UPDATE, &mut attr) >= 0);
        }
    }

    /// The version of the rules.
    pub fn version(&self) -> u32 {
        let (key, value) = ([0u8; 4], [0u8; 80]);
        let mut attr = [0u64; 16];
        (attr[0], attr[1], attr[2]) = (number(&self.settings), key.as_ptr() as u64, value.as_ptr() as u64);
        assert!(bpf(LOOKUP, &mut attr) >= 0);
        u32::from_ne_bytes(*std::hint::black_box(&value).first_chunk().unwrap())
    }
}
