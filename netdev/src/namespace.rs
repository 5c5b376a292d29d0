//! Network namespaces that the packet path alone owns, visible to `ip netns`.
//!
//! A thread that enters a namespace is one made for that: it ends there. Nothing here ever moves a tokio
//! worker. Sockets keep the namespace that they were made in, which is how a listener or a connection
//! made by such a thread serves the caller outside.
use crate::config::{NETNS_DIR, Ns, ns_path};
use crate::error::{Error, Result, Step};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, sockopt::ReuseAddr};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Whether `path` is a bind mount of a namespace.
#[must_use]
pub fn exists(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type().0 == NSFS_MAGIC)
}

/// Makes the namespace unless it is there. Whether it was made.
pub fn ensure(name: &str) -> Result<bool> {
    let path = ns_path(name);
    if exists(&path) {
        return Ok(false);
    }
    share_directory()?;
    File::create(&path).step(format!("create {}", path.display()))?;
    on_thread({
        let path = path.clone();
        move || {
            unshare(CloneFlags::CLONE_NEWNET).step("make a network namespace")?;
            mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .step(format!("mount {}", path.display()))
        }
    })?;
    Ok(true)
}

/// `/run/netns` as iproute2 makes it: shared, so that an unmount reaches every mount namespace.
fn share_directory() -> Result<()> {
    let dir = Path::new(NETNS_DIR);
    fs::create_dir_all(dir).step("create the namespace directory")?;
    let share = || mount(None::<&str>, dir, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    if share().is_err() {
        mount(Some(dir), dir, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .step("bind the namespace directory")?;
        share().step("share the namespace directory")?;
    }
    Ok(())
}

/// Unmounts and removes the name. The namespace goes when its last socket does.
pub fn remove(name: &str) -> Result<()> {
    let path = ns_path(name);
    while exists(&path) {
        umount2(&path, MntFlags::MNT_DETACH).step(format!("unmount {}", path.display()))?;
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).step(format!("remove {}", path.display())),
        _ => Ok(()),
    }
}

/// Moves the calling thread into a namespace; the thread must be one of its own.
pub(crate) fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).step(format!("open {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).step(format!("enter {}", path.display()))
}

/// A number that tells the calling thread's namespace from all others that have been and will be, until the machine restarts.
pub(crate) fn cookie() -> Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).step("make a socket")?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(|_| Error::Closed)?;
    // SAFETY: the option writes at most `length` bytes, which is the size of `cookie`; both outlive the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    nix::errno::Errno::result(answer).step("ask for the namespace's number")?;
    Ok(cookie)
}

fn on_thread<T: Send + 'static>(job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(job)
        .step("start a thread")?
        .join()
        .unwrap_or(Err(Error::Closed))
}

/// Runs a job on a fresh thread inside the namespace and waits for it.
pub(crate) fn inside<T: Send + 'static>(path: &Path, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let path = path.to_owned();
    on_thread(move || {
        enter(&path)?;
        job()
    })
}

/// Writes a value below `/proc/sys/net` of the calling thread's namespace.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<()> {
    fs::write(format!("/proc/sys/net/{key}"), value).step(format!("set {key}"))
}

/// A listening socket made inside the namespace at `path`, for use outside, whoever runs its packet path. It is
/// non-blocking.
///
/// # Errors
/// The namespace is not there (yet), or the address cannot be bound in it.
pub fn listen(path: &Path, address: SocketAddr) -> Result<std::net::TcpListener> {
    inside(path, move || {
        let fd = tcp_socket(address)?;
        nix::sys::socket::setsockopt(&fd, ReuseAddr, &true).step("reuse address")?;
        let sockaddr = nix::sys::socket::SockaddrStorage::from(address);
        nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &sockaddr).step(format!("bind {address}"))?;
        let backlog = nix::sys::socket::Backlog::new(1024).step("backlog")?;
        nix::sys::socket::listen(&fd, backlog).step(format!("listen on {address}"))?;
        Ok(std::net::TcpListener::from(fd))
    })
}

fn tcp_socket(address: SocketAddr) -> Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None).step("open a socket")
}

/// Connects from inside the namespace at `ns` (a path such as `/run/netns/<name>`). Returns a blocking
/// stream; the connection is bounded by the kernel's own SYN timeout.
///
/// # Errors
/// The namespace cannot be entered, or nobody answers at `address`.
pub async fn connect_in(ns: impl AsRef<Path>, address: SocketAddr) -> Result<std::net::TcpStream> {
    let path = ns.as_ref().to_owned();
    let socket = tokio::task::spawn_blocking(move || inside(&path, move || tcp_socket(address)))
        .await
        .map_err(|_| Error::Closed)??;
    let socket = tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let stream = socket.connect(address).await.step(format!("connect to {address}"))?;
    let stream = stream.into_std().step("detach the stream")?;
    stream.set_nonblocking(false).step("make the stream blocking")?;
    Ok(stream)
}

/// The namespace's name for messages.
impl std::fmt::Display for Ns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ns::Node => "node",
            Ns::Edge => "edge",
        })
    }
}
