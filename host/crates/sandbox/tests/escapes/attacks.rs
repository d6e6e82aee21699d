//! The attacks, and the work that the restrictions must permit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a process can try to reach: the test, which started it, and a folder of it.
pub struct Target {
    /// A folder that every user can write to.
    pub folder: PathBuf,
    /// The id of the test process.
    pub parent: libc::pid_t,
    /// The port on which the test listens.
    pub port: u16,
    /// A file that the test left open in this process.
    pub inherited: libc::c_int,
    /// Memory of the test process.
    pub memory: usize,
}

impl Target {
    /// The file that every user can read and write.
    pub fn file(&self) -> PathBuf {
        self.folder.join("file")
    }

    /// The abstract name of the local socket on which the test listens.
    pub fn abstract_name(&self) -> Vec<u8> {
        format!("modhost-escapes-{}-{}", self.parent, self.port).into_bytes()
    }

    fn of_parent(&self, entry: &str) -> PathBuf {
        Path::new("/proc").join(self.parent.to_string()).join(entry)
    }
}

/// An attack or a piece of work; an error says that it didn't succeed.
pub type Attempt = fn(&Target) -> io::Result<()>;

/// Attempts by their names.
pub type Attempts = &'static [(&'static str, Attempt)];

/// What a compile process must not reach.
pub const ON_COMPILER: Attempts = &[
    ("read a file", |it| fs::read(it.file()).map(drop)),
    ("read /etc/passwd", |_| fs::read("/etc/passwd").map(drop)),
    ("list a folder", |it| fs::read_dir(&it.folder).map(drop)),
    ("write to a file", |it| OpenOptions::new().append(true).open(it.file())?.write_all(b"more")),
    ("create a file", |it| File::create(it.folder.join("new")).map(drop)),
    ("remove a file", |it| fs::remove_file(it.file())),
    ("use an inherited file", inherited),
    ("open a socket", |_| socket(libc::AF_INET, libc::SOCK_STREAM)),
    ("connect to a port", |it| TcpStream::connect(("127.0.0.1", it.port)).map(drop)),
    ("listen on a port", |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("send a datagram", |it| UdpSocket::bind("127.0.0.1:0")?.send_to(b"secret", ("127.0.0.1", it.port)).map(drop)),
    ("connect to a local socket", abstract_socket),
    ("execute a program", |_| Command::new("/bin/true").status().map(drop)),
    ("start a process", fork),
    ("signal the host", |it| signal(it.parent)),
    ("signal a thread of the host", thread_signal),
    ("trace the host", trace),
    ("read the host's memory", read_memory),
    ("read the host's environment", |it| fs::read(it.of_parent("environ")).map(drop)),
    ("read the host's memory as a file", |it| File::open(it.of_parent("mem")).map(drop)),
    ("list the host's open files", |it| fs::read_dir(it.of_parent("fd")).map(drop)),
    ("raise a limit", raise_limit),
    ("make memory executable", executable_memory),
    ("create a namespace", namespace),
];

/// The work of a compile process.
pub const BY_COMPILER: Attempts = &[
    ("allocate memory", |_| allocate()),
    ("start threads", |_| threads()),
    ("write to standard output", |_| io::stdout().write_all(b"\n")),
    ("read standard input", |_| io::stdin().read(&mut [0]).map(drop)),
    ("read the clock", |_| {
        let earlier = std::time::Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        if earlier.elapsed().is_zero() { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }),
    ("catch a panic", |_| {
        std::panic::set_hook(Box::new(|_| {}));
        let caught = std::panic::catch_unwind(|| panic!("on purpose"));
        if caught.is_err() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    }),
];

/// What a host must not reach.
pub const ON_HOST: Attempts = &[
    ("write to a file", |it| OpenOptions::new().append(true).open(it.file())?.write_all(b"more")),
    ("truncate a file", |it| OpenOptions::new().write(true).truncate(true).open(it.file()).map(drop)),
    ("create a file", |it| File::create(it.folder.join("new")).map(drop)),
    ("create a folder", |it| fs::create_dir(it.folder.join("folder"))),
    ("remove a file", |it| fs::remove_file(it.file())),
    ("move a file out of its folder", |it| {
        let inside = it.folder.join("data/inside");
        fs::write(&inside, b"mine")?;
        fs::rename(inside, it.folder.join("outside"))
    }),
    ("execute another program", |_| Command::new("/bin/true").status().map(drop)),
    ("signal another process", |it| signal(it.parent)),
    ("trace another process", trace),
    ("read another process's memory", read_memory),
    ("create a namespace", namespace),
    ("use an unusual socket", |_| socket(libc::AF_PACKET, libc::SOCK_DGRAM)),
];

/// The work of a host.
pub const BY_HOST: Attempts = &[
    ("read a file", |it| fs::read(it.file()).map(drop)),
    ("write to its data", |it| {
        let (data, moved) = (it.folder.join("data/folder"), it.folder.join("data/moved"));
        fs::create_dir_all(&data)?;
        fs::write(data.join("file"), b"mine")?;
        fs::rename(data.join("file"), &moved)?;
        OpenOptions::new().write(true).truncate(true).open(&moved)?;
        fs::remove_file(moved)?;
        fs::remove_dir(data)
    }),
    ("write to the null device", |_| OpenOptions::new().write(true).open("/dev/null")?.write_all(b"x")),
    ("execute its own program", |_| {
        let output = Command::new("/proc/self/exe").arg("--nothing").env_clear().output()?;
        if output.status.success() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    }),
    ("kill its own child process", |_| {
        let mut child = Command::new("/proc/self/exe").arg("--wait").stdin(std::process::Stdio::piped()).spawn()?;
        child.kill()?;
        child.wait().map(drop)
    }),
    ("connect to a port", |it| TcpStream::connect(("127.0.0.1", it.port)).map(drop)),
    ("listen on a port", |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("resolve a name", |_| std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)).map(drop)),
    ("start threads", |_| threads()),
    ("allocate memory", |_| allocate()),
    ("make memory executable", executable_memory),
];

fn inherited(target: &Target) -> io::Result<()> {
    let mut byte = [0_u8];
    // SAFETY: the buffer has room for the one byte, and the number may be that of any file or of none.
    checked(unsafe { libc::read(target.inherited, byte.as_mut_ptr().cast(), 1) })
}

fn abstract_socket(target: &Target) -> io::Result<()> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(target.abstract_name())?).map(drop)
}

fn fork(_: &Target) -> io::Result<()> {
    // SAFETY: this process has one thread, and the child exits at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it ends this process.
        unsafe { libc::_exit(0) };
    }
    checked(child as isize)
}

fn signal(process: libc::pid_t) -> io::Result<()> {
    // SAFETY: the call takes numbers only; signal 0 checks the permission and sends nothing.
    checked(unsafe { libc::kill(process, 0) } as isize)
}

fn thread_signal(target: &Target) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_tgkill, target.parent, target.parent, 0) } as isize)
}

fn trace(target: &Target) -> io::Result<()> {
    // SAFETY: attaching takes numbers only; the kernel detaches when this process exits.
    checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, target.parent, 0, 0) } as isize)
}

fn read_memory(target: &Target) -> io::Result<()> {
    let mut byte = [0_u8];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: target.memory as *mut libc::c_void, iov_len: 1 };
    // SAFETY: the local part is the buffer; the kernel checks the remote one.
    checked(unsafe { libc::process_vm_readv(target.parent, &raw const local, 1, &raw const remote, 1, 0) })
}

fn raise_limit(_: &Target) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a structure that outlives the call.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } as isize)?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } as isize)
}

fn executable_memory(_: &Target) -> io::Result<()> {
    let (length, flags) = (4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the mapping is new and not used.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    checked(unsafe { libc::mprotect(page, length, libc::PROT_READ | libc::PROT_EXEC) } as isize)
}

fn namespace(_: &Target) -> io::Result<()> {
    // SAFETY: the call takes numbers only, and nothing in this process depends on the namespace.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) } as isize)
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    checked(unsafe { libc::socket(family, kind, 0) } as isize)
}

fn allocate() -> io::Result<()> {
    let mut memory = vec![1_u8; 64 << 20];
    memory.resize(96 << 20, 2);
    if memory.iter().step_by(4096).all(|byte| *byte > 0) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
}

fn threads() -> io::Result<()> {
    let started = (0..4).map(|index| std::thread::Builder::new().name(format!("{index}")).spawn(allocate));
    let started = started.collect::<io::Result<Vec<_>>>()?;
    started.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("it panicked"))?)
}

fn checked(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
