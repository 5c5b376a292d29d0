//! Reading and writing pinned kernel tables by bytes: the four commands of bpf(2) that a table needs.
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const MAP_NEXT: libc::c_long = 4;
const OBJ_GET: libc::c_long = 7;
/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

/// One `union bpf_attr` of the map commands; the tail is zero.
#[repr(C)]
#[derive(Default)]
struct Attr {
    fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct PinAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is a live, initialised, exclusively borrowed structure of the given size whose pointers
    // lead to buffers that the caller keeps alive and sized for the table during the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r) }
}

/// A pinned map whose rows are plain bytes.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key: usize,
    /// Bytes of a value as bpf(2) copies it: per-CPU maps give one slot of eight bytes for each CPU.
    value: usize,
}

impl Map {
    /// Opens a pin. `key` and `value` must be the table's sizes, or the kernel writes past our buffers:
    /// `open` asks the kernel and refuses others.
    pub fn open(path: &Path, key: usize, value: usize, per_cpu: bool) -> io::Result<Self> {
        let c = CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut attr = PinAttr { path: c.as_ptr() as u64, ..PinAttr::default() };
        let fd = bpf(OBJ_GET, &mut attr)?;
        let raw = i32::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: BPF_OBJ_GET has just returned this descriptor to us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let says = |name: &str| {
            info.lines().find_map(|l| l.strip_prefix(name)?.trim_start_matches(':').trim().parse::<usize>().ok())
        };
        if says("key_size") != Some(key) || says("value_size") != Some(value) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "table has another layout"));
        }
        let value = if per_cpu { value.next_multiple_of(8) * possible_cpus()? } else { value };
        Ok(Self { fd, key, value })
    }

    fn attr(&self, key: *const u8, value: *const u8) -> Attr {
        #[allow(clippy::cast_sign_loss)] // a live descriptor is not negative
        Attr { fd: self.fd.as_raw_fd() as u32, key: key as u64, value: value as u64, ..Attr::default() }
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key)?;
        if value.len() != self.value {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        bpf(MAP_UPDATE, &mut self.attr(key.as_ptr(), value.as_ptr())).map(drop)
    }

    /// Makes a row; one that is there stays as it is.
    pub fn put_new(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.check(key)?;
        if value.len() != self.value {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr = Attr { flags: NO_EXIST, ..self.attr(key.as_ptr(), value.as_ptr()) };
        match bpf(MAP_UPDATE, &mut attr) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// Deletes a row; a row that is not there is no error.
    pub fn delete(&self, key: &[u8]) -> io::Result<()> {
        self.check(key)?;
        match bpf(MAP_DELETE, &mut self.attr(key.as_ptr(), std::ptr::null())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key)?;
        let mut value = vec![0u8; self.value];
        match bpf(MAP_LOOKUP, &mut self.attr(key.as_ptr(), value.as_mut_ptr())) {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All keys. A row that goes away meanwhile may restart the walk, so `limit` bounds it.
    pub fn keys(&self, limit: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut out: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0u8; self.key];
            let from = out.last().map_or(std::ptr::null(), |k| k.as_ptr());
            match bpf(MAP_NEXT, &mut self.attr(from, next.as_mut_ptr())) {
                Ok(_) if out.len() < limit => out.push(next),
                Ok(_) => return Ok(out),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(out),
                Err(e) => return Err(e),
            }
        }
    }

    fn check(&self, key: &[u8]) -> io::Result<()> {
        if key.len() == self.key { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

/// CPUs that the kernel keeps per-CPU values for (`0-3` means four).
fn possible_cpus() -> io::Result<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit([',', '-']).next().and_then(|n| n.parse::<usize>().ok());
    last.map(|n| n + 1).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
