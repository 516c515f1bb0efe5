//! System calls that a box may not make: those that Docker's default profile refuses (moby/profiles@main:seccomp/default.json), in
//! every box, whoever its root is.

use rustix::fs::{MemfdFlags, memfd_create};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

/// Refused as if for want of a right: the kernel's modules, clocks, keys and counters, mounts and namespaces. As with Docker, processes of a
/// box may trace each other.
#[rustfmt::skip]
const REFUSED: &[i64] = &[
    libc::SYS_acct, libc::SYS_add_key, libc::SYS_bpf, libc::SYS_clock_adjtime, libc::SYS_clock_settime, libc::SYS_delete_module,
    libc::SYS_fanotify_init, libc::SYS_finit_module, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fsopen, libc::SYS_fspick,
    libc::SYS_init_module, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup, libc::SYS_kcmp,
    libc::SYS_kexec_load, libc::SYS_keyctl, libc::SYS_lookup_dcookie, libc::SYS_mount, libc::SYS_mount_setattr, libc::SYS_move_mount,
    libc::SYS_move_pages, libc::SYS_name_to_handle_at, libc::SYS_nfsservctl, libc::SYS_open_by_handle_at, libc::SYS_open_tree,
    libc::SYS_perf_event_open, libc::SYS_pivot_root, libc::SYS_quotactl, libc::SYS_reboot, libc::SYS_request_key, libc::SYS_setdomainname, libc::SYS_sethostname, libc::SYS_setns,
    libc::SYS_settimeofday, libc::SYS_swapoff, libc::SYS_swapon, libc::SYS_syslog, libc::SYS_umount2, libc::SYS_unshare,
    libc::SYS_userfaultfd, libc::SYS_vhangup,
];

/// The same on the processors that have them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const REFUSED_HERE: &[i64] = &[
    libc::SYS__sysctl, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_kexec_file_load, libc::SYS_sysfs, libc::SYS_uselib, libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Flags of `clone` that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Paths of the filters, while we live. None where they cannot be had.
pub(crate) fn filters() -> Option<[String; 2]> {
    static FILTERS: OnceLock<Option<[OwnedFd; 2]>> = OnceLock::new();
    let made = || {
        let refused = filter(refused()?, libc::EPERM)?;
        // Its flags lie in memory: as if it were not known, so that libraries take `clone`.
        let unknown = filter(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
        Some([file(&refused).ok()?, file(&unknown).ok()?])
    };
    let path = |file: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    FILTERS.get_or_init(made).as_ref().map(|files| files.each_ref().map(path))
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn refused() -> Option<Rules> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let makes = |flag: i32| {
        let (flag, length) = (flag as u32 as u64, SeccompCmpArgLen::Qword);
        let condition = SeccompCondition::new(0, length, SeccompCmpOp::MaskedEq(flag), flag).ok()?;
        SeccompRule::new(vec![condition]).ok()
    };
    rules.insert(libc::SYS_clone, NAMESPACES.into_iter().map(makes).collect::<Option<_>>()?);
    Some(rules)
}

fn filter(rules: Rules, error: i32) -> Option<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let refusal = SeccompAction::Errno(error as u32);
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, architecture).ok()?.try_into().ok()
}

/// A program in a file without a name, as bubblewrap reads it; programs that we start do not inherit it.
fn file(program: &BpfProgram) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("rolegraft-seccomp", MemfdFlags::CLOEXEC)?);
    for step in program {
        file.write_all(&step.code.to_ne_bytes())?;
        file.write_all(&[step.jt, step.jf])?;
        file.write_all(&step.k.to_ne_bytes())?;
    }
    Ok(file.into())
}
