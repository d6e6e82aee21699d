//! seccomp: which system calls a process can make.
//!
//! The compile process has a list of allowed calls. All others fail, and calls that only an attack makes kill it. The
//! host has a list of denied calls, because what it and its libraries need differs between systems.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

/// The system calls of a filter, each with the rules of which one has to match; without rules, each call matches.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// The error of a denied call.
const DENIED: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);

/// What compiling needs, whatever the arguments: memory, threads, time, and the files that are open.
const COMPILING: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Filtered by CLONE3: its flags are in memory, where a filter can't read them.
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls that only an attack makes: a compile process that makes one is killed.
const HOSTILE: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_io_uring_setup,
    libc::SYS_kill,
    libc::SYS_listen,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_sendto,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_tkill,
];

/// Calls that neither the host nor a compile process makes, and that reach other processes, the kernel or the machine.
const DANGEROUS: &[c_long] = &[
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Namespaces and file systems.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // By handle instead of by name, past the folder's permissions.
    libc::SYS_fanotify_init,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Kernel code, and interfaces of the kernel that had many flaws.
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Keys of the kernel.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // The machine.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_personality,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// The families of sockets that the host uses: local, internet, and the kernel's list of addresses.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// The flags of `clone` that create a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Allows the calls that compiling needs. Can't be undone, and no further filter can be added.
pub fn allow_compiling() -> Result<(), String> {
    let own_id = rustix::process::getpid().as_raw_nonzero().get();
    let program = || -> Result<_, BackendError> {
        let mut allowed = all(COMPILING.iter().copied());
        let thread = flag(libc::CLONE_THREAD);
        // Neither pages nor files become executable: the compiled code is only written to a file.
        let not_executable = || rule([argument(2, Dword, MaskedEq(flag(libc::PROT_EXEC)), 0)]);
        allowed.extend([
            // Threads only: a child process would outlive this one, and its limits wouldn't count.
            (libc::SYS_clone, vec![rule([argument(0, Qword, MaskedEq(thread), thread)])?]),
            (libc::SYS_mmap, vec![not_executable()?]),
            (libc::SYS_mprotect, vec![not_executable()?]),
            // Its own limits, and only to read them.
            (libc::SYS_prlimit64, vec![rule([argument(0, Dword, Eq, 0), argument(2, Qword, Eq, 0)])?]),
            (libc::SYS_prctl, vec![rule([argument(0, Dword, Eq, flag(libc::PR_SET_NAME))])?]),
            // To its own threads, to abort.
            (libc::SYS_tgkill, vec![rule([argument(0, Dword, Eq, flag(own_id))])?]),
        ]);
        let hostile = all(HOSTILE.iter().chain(DANGEROUS).copied());
        Ok([
            filter(hostile, SeccompAction::Allow, SeccompAction::KillProcess)?,
            without_clone3()?,
            filter(allowed, DENIED, SeccompAction::Allow)?,
        ])
    };
    install(program().map_err(|error| error.to_string())?)
}

/// Denies the calls that the host never needs.
pub fn deny_unneeded() -> Result<(), String> {
    let program = || -> Result<_, BackendError> {
        let mut denied = all(with_x32(DANGEROUS));
        let namespaces =
            NAMESPACES.map(flag).map(|namespace| rule([argument(0, Qword, MaskedEq(namespace), namespace)]));
        denied.insert(libc::SYS_clone, namespaces.into_iter().collect::<Result<_, _>>()?);
        let families = FAMILIES.map(|family| argument(0, Dword, Ne, flag(family)));
        denied.insert(libc::SYS_socket, vec![rule(families)?]);
        Ok([without_clone3()?, filter(denied, SeccompAction::Allow, DENIED)?])
    };
    install(program().map_err(|error| error.to_string())?)
}

/// Makes `clone3` fail as on an old kernel, so that the C library uses `clone`, whose flags a filter can read.
fn without_clone3() -> Result<BpfProgram, BackendError> {
    let unknown = SeccompAction::Errno(flag(libc::ENOSYS) as u32);
    filter(all([libc::SYS_clone3]), SeccompAction::Allow, unknown)
}

/// Installs filters, the last one last: it may forbid to install more. Of several filters, the strictest answer counts.
fn install<const N: usize>(programs: [BpfProgram; N]) -> Result<(), String> {
    programs.iter().try_for_each(|program| apply_filter_all_threads(program)).map_err(|error| error.to_string())
}

fn filter(rules: Rules, others: SeccompAction, listed: SeccompAction) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, others, listed, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn all(calls: impl IntoIterator<Item = c_long>) -> Rules {
    calls.into_iter().map(|call| (call, Vec::new())).collect()
}

/// Adds the numbers by which the x32 interface, where the kernel has it, makes the same calls.
fn with_x32(calls: &[c_long]) -> impl Iterator<Item = c_long> {
    const X32: c_long = 0x4000_0000;
    let aliases = calls.iter().filter(|_| cfg!(target_arch = "x86_64")).map(|call| call | X32);
    calls.iter().copied().chain(aliases)
}

/// A rule that matches if all its conditions do.
fn rule<const N: usize>(conditions: [Result<SeccompCondition, BackendError>; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

fn argument(
    index: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, length, operator, value)
}

/// A flag or number of C as an argument: none of those used here is negative.
fn flag(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}
