//! The system calls that no crate of the host's dependencies wraps.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

/// Closes all files but standard input, output and error.
pub fn close_inherited_files() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: the call takes numbers only. The caller promises that this process hasn't opened a file yet, so no value
    // in it owns one of the files.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return Ok(());
    }
    // Linux before 5.9 doesn't know the call.
    let open = std::fs::read_dir("/proc/self/fd")?.filter_map(|file| file.ok()?.file_name().to_str()?.parse().ok());
    // The list includes the file of the listing itself, which is closed when the list is complete.
    for file in open.filter(|file| *file >= FIRST.cast_signed()).collect::<Vec<libc::c_int>>() {
        // SAFETY: as above.
        unsafe { libc::close(file) };
    }
    Ok(())
}

/// Prevents this process and its children from gaining privileges by executing a program.
pub fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    succeeded(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
}

/// Leaves all supplementary groups.
pub fn leave_groups() -> io::Result<()> {
    // SAFETY: the list has the length 0, so the null pointer isn't followed.
    succeeded(unsafe { libc::setgroups(0, std::ptr::null()) })
}

/// Changes the real, effective and saved group, then user. As a user other than root, the process has no capabilities.
pub fn change_ids(gid: u32, uid: u32) -> io::Result<()> {
    // SAFETY: the calls take numbers only.
    succeeded(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: as above.
    succeeded(unsafe { libc::setresuid(uid, uid, uid) })
}

/// Gives up all capabilities, for example those that a service manager gave the host to listen on a privileged port.
pub fn drop_capabilities() -> io::Result<()> {
    /// `struct __user_cap_header_struct` of <linux/capability.h>.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }

    /// `struct __user_cap_data_struct`; version 3 takes two of them.
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }

    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;

    let mut header = Header { version: VERSION, pid: 0 };
    let none = [(); 2].map(|()| Data { effective: 0, permitted: 0, inheritable: 0 });
    // SAFETY: both pointers are to structures of the layout that this version prescribes, and outlive the call.
    let dropped = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, none.as_ptr()) };
    if dropped == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the time slice of the calling thread, and of those that it starts later. None restores the kernel's own.
pub fn set_time_slice(slice: Option<Duration>) -> io::Result<()> {
    /// `struct sched_attr` of <linux/sched/types.h>, as of its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }

    const SIZE: u32 = size_of::<Attributes>() as u32;
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes at most SIZE bytes, which is the size of the structure that the pointer refers to.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    succeeded(read as libc::c_int)?;
    attributes.size = SIZE;
    attributes.runtime = slice.map_or(0, |slice| u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX));
    // SAFETY: the kernel reads the SIZE bytes that `size` promises.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    succeeded(set as libc::c_int)
}
