//! What is taken from the process as a whole: file system, network, capabilities, user, limits.

use super::SandboxError;
use crate::config::User;
use std::io;

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// Descriptors: a machine of 128 processors and 16 devices needs about 400.
const FILES_MAX: u64 = 4096;

fn check(what: &'static str, code: libc::c_int) -> Result<(), SandboxError> {
    if code < 0 { Err(SandboxError::Jail { what, source: io::Error::last_os_error() }) } else { Ok(()) }
}

/// Closes the jail. Must run before any thread is started: namespaces belong to threads. Returns false when the process
/// was not privileged enough for namespaces of its own, which is no loss of privilege to a guest that breaks out.
pub fn close(user: Option<User>) -> Result<bool, SandboxError> {
    // SAFETY: a plain query.
    let root = unsafe { libc::geteuid() } == 0;
    if root {
        namespaces()?;
        drop_bounding_set();
    }
    if let Some(user) = user {
        become_user(user)?;
    }
    drop_capabilities()?;
    limits()?;
    // SAFETY: prctl options with integer arguments only.
    unsafe {
        check("forbid new privileges", libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        check("forbid tracing", libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    Ok(root)
}

/// Own mount, network, IPC and host name spaces; the root becomes an empty read-only file system.
fn namespaces() -> Result<(), SandboxError> {
    let spaces = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let none = std::ptr::null();
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let (here, place) = (c".".as_ptr(), c"/dev".as_ptr());
    // SAFETY: every pointer is to a constant C string or null where the call allows it; errors are checked.
    unsafe {
        check("make namespaces", libc::unshare(spaces))?;
        check("detach mounts", libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
        let options = c"size=4k,nr_inodes=2,mode=0".as_ptr();
        check("mount the empty root", libc::mount(c"none".as_ptr(), place, c"tmpfs".as_ptr(), flags, options.cast()))?;
        check("enter the empty root", libc::chdir(place))?;
        // Old and new root in one place, then the old one goes.
        if libc::syscall(libc::SYS_pivot_root, here, here) == 0 {
            check("leave the old root", libc::umount2(here, libc::MNT_DETACH))?;
        } else {
            // Where / is no mount point of its own (some containers) the old root stays mounted but out of reach.
            check("change the root", libc::chroot(here))?;
        }
        check("enter the new root", libc::chdir(c"/".as_ptr()))
    }
}

fn become_user(user: User) -> Result<(), SandboxError> {
    // SAFETY: calls with integer arguments, and a null pointer with a count of zero.
    unsafe {
        check("drop groups", libc::setgroups(0, std::ptr::null()))?;
        check("change the group", libc::setresgid(user.gid, user.gid, user.gid))?;
        check("change the user", libc::setresuid(user.uid, user.uid, user.uid))
    }
}

fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: integer arguments only; unknown capabilities are an error that means "no more".
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            break;
        }
    }
}

fn drop_capabilities() -> Result<(), SandboxError> {
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: version 3 reads a header of two words and data of six, as given.
    let code = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    check("drop capabilities", code as libc::c_int)
}

fn limits() -> Result<(), SandboxError> {
    for (what, maximum) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_NOFILE, FILES_MAX)] {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls take a live rlimit structure.
        unsafe {
            check("read limits", libc::getrlimit(what, &raw mut old))?;
            let bound = maximum.min(old.rlim_max);
            let new = libc::rlimit { rlim_cur: bound, rlim_max: bound };
            check("set limits", libc::setrlimit(what, &raw const new))?;
        }
    }
    Ok(())
}
