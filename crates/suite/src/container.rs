//! The command lines of containers: what is seen, what may be written, what root may do.

use crate::cgroup::Cgroup;
use crate::sandbox_error::SandboxError;
use crate::seccomp::filters;
use serde::{Deserialize, Serialize};
use std::process::Command;

/// Bytes each writable place may hold.
pub(crate) const DISK: &str = "67108864";
/// Bytes that an episode may change of an image.
const IMAGE_DISK: &str = "512m";
/// Writable places.
const WRITABLE: [&str; 7] = ["/tmp", "/home", "/root", "/var", "/run", "/opt", "/srv"];
/// Parts of the host that are visible, read-only.
const VISIBLE: [&str; 8] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/passwd", "/etc/group"];

/// Address space (KiB), file size (blocks) and processes of everything inside.
pub(crate) const LIMITS: &str = "ulimit -v 2097152 -f 131072 -u 256 2>/dev/null";

/// Who root is in a box on an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BoxUser {
    /// Root of a user namespace: what it may do ends there. Where we are root ourselves it is the only user.
    #[default]
    Namespace,
    /// The machine's root with the capabilities that Docker leaves it, but for making devices: several users work. Needs us to be
    /// root, and a control group to bound its processes.
    Root,
}

impl BoxUser {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Root, Self::Namespace];

    /// The name used in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Namespace => "namespace",
        }
    }
    /// The one with which most tasks work here.
    #[must_use]
    pub fn best() -> Self {
        let root = rustix::process::geteuid().is_root() && Cgroup::new().is_some();
        if root { Self::Root } else { Self::Namespace }
    }
}

/// A folder of the host that a single command sees.
#[derive(Debug, Clone, Copy)]
pub struct Mount<'m> {
    /// Where it is.
    pub from: &'m std::path::Path,
    /// Where the command sees it.
    pub to: &'m str,
    /// Whether it may write there.
    pub writable: bool,
}

/// Whether bubblewrap is there.
pub(crate) fn installed() -> Result<(), SandboxError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join("bwrap").is_file());
    found.then_some(()).ok_or(SandboxError::NotInstalled)
}

/// The container's frame over the host's programs: what is seen, what may be written.
pub(crate) fn container() -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-user", "--uid", "0", "--gid", "0"]);
    frame(&mut command);
    for path in VISIBLE {
        command.args(["--ro-bind-try", path, path]);
    }
    for path in WRITABLE {
        command.args(["--size", DISK, "--tmpfs", path]);
    }
    command
}

/// Mounts an overlay of a folder in a mount namespace of its own and enters it. Everything goes with the process: the namespace,
/// the overlay's changes on a tmpfs of limited size, the container.
const OVERLAY: &str = r#"set -e
cd "$1"
base=/tmp
mount -t tmpfs -o size="$2",mode=755 rolegraft "$base"
mkdir "$base/up" "$base/work" "$base/root"
mount -t overlay rolegraft -o "${3}lowerdir=.,upperdir=$base/up,workdir=$base/work" "$base/root"
shift 3
ulimit -n 1048576 2>/dev/null || true
exec "$@""#;

/// Opens the filters of system calls, puts itself into control groups, then becomes another program.
const ENTER: &str = r#"[ "$1" = - ] || exec 8<"$1" 9<"$2" || exit 1
shift 2
while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done
shift; exec "$@""#;
/// How bubblewrap is told of the filters.
const FILTERED: [&str; 4] = ["--add-seccomp-fd", "8", "--add-seccomp-fd", "9"];

/// A command in a control group, and without our variables: a container's first process shows its own to the others.
pub(crate) fn entered(group: Option<&Cgroup>, command: Command) -> Command {
    let mut outer = Command::new("sh");
    let filters = filters().unwrap_or_else(|| ["-".into(), "-".into()]);
    outer.args(["-c", ENTER, "sh"]).args(filters).args(group.into_iter().flat_map(Cgroup::doors)).arg("--");
    outer.arg(command.get_program()).args(command.get_args());
    outer.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    outer
}

/// The container's frame over a root folder.
pub(crate) fn overlaid(root: &std::path::Path, user: BoxUser, group: Option<&Cgroup>) -> Result<Command, SandboxError> {
    if !root.join("bin/bash").exists() {
        let reason = format!("`{}` is no root folder: it has no bin/bash", root.display());
        return Err(SandboxError::Broken(reason));
    }
    let mut command = Command::new("unshare");
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        command.args(["--user", "--map-auto", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "sh", "-c", OVERLAY, "sh"]);
    command.arg(root).arg(IMAGE_DISK).arg(if is_root { "" } else { "userxattr," });
    command.args(["bwrap", "--bind", "/tmp/root", "/"]);
    match user {
        BoxUser::Namespace => {
            command.args(["--unshare-user", "--uid", "0", "--gid", "0"]);
            frame(&mut command);
            // `find /` trips over this in a user namespace.
            command.args(["--tmpfs", "/proc/tty/driver"]);
        }
        BoxUser::Root if !is_root || group.is_none() => {
            let reason = "a box with the machine's root needs us to be root and control groups `pids` and `memory` that we may make";
            return Err(SandboxError::Broken(reason.into()));
        }
        BoxUser::Root => {
            frame(&mut command);
            for capability in ["AUDIT_WRITE", "NET_BIND_SERVICE", "SETFCAP", "SETPCAP", "SYS_CHROOT"] {
                command.args(["--cap-add", &format!("CAP_{capability}")]);
            }
        }
    }
    Ok(entered(group, command))
}

/// Namespaces, devices, processes and variables of a container.
fn frame(command: &mut Command) {
    command.args(["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]);
    command.args(["--die-with-parent", "--new-session", "--clearenv"]);
    command.args(filters().map_or(&[][..], |_| &FILTERED[..]));
    command.args(["--hostname", "sandbox", "--dev", "/dev", "--proc", "/proc"]);
    // Whoever is the machine's root may write to these without any capability, in a namespace too; Docker hides the same.
    for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"] {
        command.args(["--ro-bind-try", path, path]);
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug"] {
        if std::path::Path::new(path).exists() {
            command.args(["--ro-bind", "/dev/null", path]);
        }
    }
    for path in ["/proc/acpi", "/proc/scsi"].into_iter().filter(|p| std::path::Path::new(p).is_dir()) {
        command.args(["--tmpfs", path]);
    }
    // What root of a container may do to its own files and processes, and nothing more.
    command.args(["--cap-drop", "ALL"]);
    for capability in ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"] {
        command.args(["--cap-add", &format!("CAP_{capability}")]);
    }
    for (name, value) in [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("TERM", "xterm"),
        ("LANG", "C.UTF-8"),
    ] {
        command.args(["--setenv", name, value]);
    }
}
