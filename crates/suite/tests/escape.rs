//! What model-written shell tries, and what the host has to be spared. Every box is tried: the host's programs read-only, and
//! an image (here the host's own root, under an overlay) with either root; Docker's, on the image that
//! `ROLEGRAFT_TEST_DOCKER` names.
#![allow(missing_docs, clippy::print_stderr)]

use rolegraft_suite::sandbox::{BoxUser, CommandOutput, Image, Sandbox};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// Tells the test's own copy what to do.
const HELPER: &str = "ROLEGRAFT_TEST_ESCAPE_HELPER";

/// Boxes that work here, by name.
fn boxes() -> Vec<(&'static str, Image)> {
    let image = |user| Image::Root { path: "/".into(), user };
    let docker =
        std::env::var("ROLEGRAFT_TEST_DOCKER").unwrap_or_else(|_| "none: ROLEGRAFT_TEST_DOCKER is not set".into());
    let all = [
        ("host's programs", Image::Host),
        ("image, namespace", image(BoxUser::Namespace)),
        ("image, root", image(BoxUser::Root)),
        ("docker", Image::Docker(docker)),
    ];
    let works = |(name, image): &(&str, Image)| match start(image) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: {name}: {error}");
            false
        }
    };
    all.into_iter().filter(works).collect()
}

fn start(image: &Image) -> Result<Sandbox, String> {
    match image {
        Image::Host => Sandbox::start().map_err(|e| e.to_string()),
        image => Sandbox::with_terminal(image).map(|(sandbox, _)| sandbox).map_err(|e| e.to_string()),
    }
}

/// Tries something in every box at once: by its number, its name, its image.
fn in_every_box(attempt: impl Fn(usize, &str, &Image) + Sync) {
    let (boxes, attempt) = (boxes(), &attempt);
    std::thread::scope(|scope| {
        for (number, (name, image)) in boxes.iter().enumerate() {
            scope.spawn(move || attempt(number, name, image));
        }
    });
}

fn text(output: &CommandOutput) -> String {
    String::from_utf8_lossy(&output.bytes).into_owned()
}

/// Processes of this machine whose command line holds a word.
fn census(word: &str) -> usize {
    let lines =
        fs::read_dir("/proc").unwrap().flatten().map(|e| fs::read(e.path().join("cmdline")).unwrap_or_default());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(word)).count()
}

/// Waits until as many processes are there as should be.
fn until(word: &str, enough: impl Fn(usize) -> bool) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        enough(census(word))
    })
}

/// Waits for processes to end.
fn gone(word: &str) -> bool {
    until(word, |there| there == 0)
}

#[test]
fn nothing_of_the_host_is_changed_or_reached() {
    let canary = tempfile::tempdir().unwrap();
    let file = canary.path().join("canary");
    fs::write(&file, "alive").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (name, image) in boxes() {
        let mut sandbox = start(&image).unwrap();
        for attempt in [
            &format!("echo > /dev/tcp/127.0.0.1/{port}"),
            "timeout 3 bash -c 'echo > /dev/tcp/1.1.1.1/80'",
            "echo x > /proc/sys/kernel/core_pattern",
            "echo x > /proc/sys/kernel/hostname",
            "echo b > /proc/sysrq-trigger",
            "head -c 1 /proc/kcore | grep -q .",
            "mount -t tmpfs x /usr",
            "mount -t proc x /mnt",
            "umount /proc/sys",
            "mount -o remount,rw /proc/sys",
            "rm -f /tmp/disk; mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
            "rm -f /tmp/memory; mknod /tmp/memory c 1 1 && head -c 1 /tmp/memory",
            "ls /dev/vda /dev/sda /dev/nvme0n1",
            "date -s '2001-01-01'",
            "python3 -c 'import ctypes, sys; sys.exit(0 if ctypes.CDLL(None).reboot(0x1234567) == 0 else 1)'",
            "insmod /x.ko",
            "nice -n -20 true 2>&1 | grep -qv ermission",
        ] {
            let done = sandbox.run(attempt, 10 * SECOND).unwrap();
            assert_ne!(done.status, Some(0), "{name}: {attempt}: {}", text(&done));
        }
        // Nobody else's processes and variables.
        let seen = text(&sandbox.run("cat /proc/[0-9]*/environ | tr '\\0' '\\n'; env", 5 * SECOND).unwrap());
        assert!(!seen.contains("CARGO"), "{name}: {seen}");
        let seen = text(&sandbox.run("echo /proc/[0-9]*", 5 * SECOND).unwrap());
        assert!(seen.split_whitespace().count() < 20, "{name}: {seen}");
        let settings =
            "for f in /sys/kernel/mm/*/* /sys/fs/cgroup/*/*; do echo 0 2>/dev/null > $f && exit 0; done; exit 1";
        let done = sandbox.run(&format!("({settings}) 2>/dev/null"), 10 * SECOND).unwrap();
        assert_ne!(done.status, Some(0), "{name}: {}", text(&done));
        // What it destroys is its own.
        let ruin = format!(
            "rm -rf {0}; mkdir -p {0} && echo dead > {0}/canary; rm -rf --no-preserve-root /etc/passwd /usr/bin/env",
            canary.path().display()
        );
        sandbox.run(&ruin, 20 * SECOND).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "alive", "{name}");
        assert!(Path::new("/etc/passwd").exists() && Path::new("/usr/bin/env").exists(), "{name}");
    }
}

#[test]
fn floods_and_bombs_are_bounded() {
    in_every_box(|number, name, image| {
        let asleep = format!("sleep {}", 424_242 + number);
        let mut sandbox = start(image).unwrap();
        let begun = Instant::now();
        let flood = sandbox.run("yes | head -c 100000000", 20 * SECOND).unwrap();
        assert_eq!(flood.bytes.len(), 1 << 20, "{name}");
        let fill = "rm -f /tmp/fill*; for i in 1 2 3 4 5 6 7 8 9; do head -c 120000000 /dev/zero > /tmp/fill$i || exit 1; done";
        // Docker bounds a container's disk on few storage drivers; a file's size it always bounds.
        let fill = if name == "docker" { "head -c 200000000 /dev/zero > /tmp/fill" } else { fill };
        assert_ne!(sandbox.run(&format!("({fill})"), 30 * SECOND).unwrap().status, Some(0), "{name}");
        sandbox.run("rm -f /tmp/fill*", 5 * SECOND).unwrap();
        let memory = "python3 -c 'x = bytearray(4 << 30); print(len(x))'";
        assert_ne!(sandbox.run(memory, 20 * SECOND).unwrap().status, Some(0), "{name}");
        assert!(begun.elapsed() < 60 * SECOND, "{name}");
        drop(sandbox);
        // A bomb may end its box, but not more.
        let mut sandbox = start(image).unwrap();
        let begun = Instant::now();
        let _ = sandbox.run(&format!("bomb() {{ {asleep} & bomb | bomb & }}; bomb; {asleep}"), 3 * SECOND);
        assert!(begun.elapsed() < 10 * SECOND, "{name}: {:?}", begun.elapsed());
        assert!(census(&asleep) < 1_000, "{name}");
        drop(sandbox);
        assert!(gone(&asleep), "{name}: {} left", census(&asleep));
    });
}

#[test]
fn what_is_left_running_ends_with_its_box() {
    for (name, image) in boxes() {
        let mut sandbox = start(&image).unwrap();
        let leave = "setsid sleep 535353 & nohup sleep 535353 >/dev/null 2>&1 & (trap '' TERM HUP INT; sleep 535353) & disown -a; \
                     python3 -c 'import os,time\nif os.fork()==0:\n os.setsid()\n if os.fork()==0: os.execvp(\"sleep\",[\"sleep\",\"535353\"])'";
        sandbox.run(leave, 5 * SECOND).unwrap();
        assert!(until("sleep 535353", |there| there >= 4), "{name}");
        drop(sandbox);
        assert!(gone("sleep 535353"), "{name}");
        // A signal to everybody reaches nobody outside.
        let mut sandbox = start(&image).unwrap();
        let _ = sandbox.run("kill -9 -1", 3 * SECOND);
        let _ = sandbox.run("kill -9 1; kill -9 2", 3 * SECOND);
        let begun = Instant::now();
        let stuck = start(&image).unwrap().run("exec 0<&- 1>&- 2>&-; sleep 30", SECOND);
        assert!(stuck.is_err() || stuck.is_ok_and(|done| done.status.is_none()), "{name}");
        assert!(begun.elapsed() < 5 * SECOND, "{name}");
    }
}

#[test]
fn a_killed_harness_leaves_nothing() {
    if let Ok(which) = std::env::var(HELPER) {
        let (_, image) = boxes().into_iter().find(|(name, _)| *name == which).unwrap();
        let mut sandbox = start(&image).unwrap();
        let _ = sandbox.run("setsid sleep 646464 & sleep 646464", 60 * SECOND);
        return;
    }
    for (name, _) in boxes() {
        let mut helper = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_harness_leaves_nothing", "--nocapture"])
            .env(HELPER, name)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let running = until("sleep 646464", |there| there >= 2);
        helper.kill().unwrap();
        helper.wait().unwrap();
        assert!(running, "{name}");
        assert!(gone("sleep 646464"), "{name}: {} left", census("sleep 646464"));
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains("rolegraft"), "{name}");
    }
}

/// System calls by number, as any program may make them: none gets through.
#[test]
fn the_kernel_is_asked_in_vain() {
    let calls = [
        ("a namespace", format!("{}, 0x10000000", libc::SYS_unshare)),
        ("a mount namespace", format!("{}, 0x20000", libc::SYS_unshare)),
        ("a child in a namespace", format!("{}, 0x10000011, 0, 0, 0, 0", libc::SYS_clone)),
        ("a child by a structure", format!("{}, 0, 0", libc::SYS_clone3)),
        ("another's namespace", format!("{}, 0, 0", libc::SYS_setns)),
        ("a mount", format!("{}, b'x', b'/mnt', b'tmpfs', 0, 0", libc::SYS_mount)),
        ("an unmount", format!("{}, b'/proc', 2", libc::SYS_umount2)),
        ("a file system", format!("{}, b'tmpfs', 0", libc::SYS_fsopen)),
        ("another root", format!("{}, b'/tmp', b'/tmp'", libc::SYS_pivot_root)),
        ("a key", format!("{}, b'user', b'k', b'v', 1, -3", libc::SYS_add_key)),
        ("a keyring", format!("{}, 0, -3, 1", libc::SYS_keyctl)),
        ("a program in the kernel", format!("{}, 0, 0, 0", libc::SYS_bpf)),
        ("a module", format!("{}, 0, 0, b''", libc::SYS_init_module)),
        ("counters", format!("{}, 0, 0, -1, -1, 0", libc::SYS_perf_event_open)),
        ("faults", format!("{}, 0", libc::SYS_userfaultfd)),
        ("a ring", format!("{}, 1, 0", libc::SYS_io_uring_setup)),
        ("a handle", format!("{}, -100, 0, 0", libc::SYS_open_by_handle_at)),
        ("the kernel's log", format!("{}, 3, 0, 0", libc::SYS_syslog)),
        ("a name", format!("{}, b'x', 1", libc::SYS_sethostname)),
    ];
    for (name, image) in boxes().into_iter().filter(|(name, _)| *name != "docker") {
        let mut sandbox = start(&image).unwrap();
        for (what, arguments) in &calls {
            let asked = format!(
                "python3 -c \"import ctypes, sys; k = ctypes.CDLL(None, use_errno=True); r = k.syscall({arguments}); \
                 sys.stdout.write(f'{{r}} {{ctypes.get_errno()}}')\""
            );
            let said = text(&sandbox.run(&asked, 10 * SECOND).unwrap());
            // The end of the login shell, whose terminal nobody holds, may be told as well.
            assert!(said.contains("-1 1") || said.contains("-1 38"), "{name}: {what}: {said}");
        }
        // Nothing of ours is left open, and nothing more can be gained.
        let open = text(&sandbox.run("for f in /proc/self/fd/*; do readlink $f; done", 5 * SECOND).unwrap());
        let own = |line: &str| ["pipe:", "/dev/", "/proc/"].iter().any(|start| line.starts_with(start));
        assert!(open.lines().filter(|line| !line.contains("Hangup")).all(own), "{name}: {open}");
        let gains =
            text(&sandbox.run("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t\\n'", 5 * SECOND).unwrap());
        assert!(gains.contains("NoNewPrivs:1Seccomp:2"), "{name}: {gains}");
    }
}

/// Ways out by kind, each tried as any program may: what it prints says that it did not get out.
#[test]
fn every_kind_of_way_out_is_shut() {
    let canary = tempfile::tempdir().unwrap();
    fs::write(canary.path().join("canary"), "alive").unwrap();
    let canary = canary.path().join("canary");
    let (canary, host) = (canary.display(), std::process::id());
    // CLONE_NEW: mounts, control groups, host name, messages, users, processes, network, time.
    let namespaces = "0x20000 0x2000000 0x4000000 0x8000000 0x10000000 0x20000000 0x40000000 0x80";
    let python =
        |body: &str| format!("python3 -c \"import ctypes, os; k = ctypes.CDLL(None, use_errno=True); {body}\"");
    // Of capabilities there are none, a box's own, those of a box with the machine's root, or Docker's.
    let kinds = [
        ("clone flags", python(&format!(
            "print(max(k.syscall({}, f) for f in map(lambda f: int(f, 16), '{namespaces}'.split())))", libc::SYS_unshare
        )), "-1"),
        ("namespaces", "nsenter -t 1 -m true 2>/dev/null && echo out || echo shut".into(), "shut"),
        ("namespaces of others", python("print(len({os.readlink('/proc/%s/ns/pid' % p) for p in os.listdir('/proc') if p.isdigit()}))"), "1"),
        ("mounts", "mount --bind / /mnt 2>/dev/null && echo out || echo shut".into(), "shut"),
        ("a root behind a process", format!("for p in /proc/[0-9]*; do echo dead 2>/dev/null > $p/root{canary}; done 2>/dev/null; echo shut"), "shut"),
        ("a folder behind a process", format!("for p in /proc/[0-9]*; do echo dead 2>/dev/null > $p/cwd/../../..{canary}; done 2>/dev/null; echo shut"), "shut"),
        ("devices", "for d in mem kmem port kmsg fuse kvm loop-control mapper/control net/tun vhost-net uinput rtc0; do test -e /dev/$d && echo $d; done; echo shut".into(), "shut"),
        ("signals", format!("kill -0 {host} 2>/dev/null && grep -qz escape /proc/{host}/cmdline && echo out || echo shut"), "shut"),
        ("the first process", "kill -STOP 1 2>/dev/null; grep -E '^State:\\s+T' /proc/1/status || echo shut".into(), "shut"),
        ("keyrings", "cat /proc/keys /proc/key-users 2>/dev/null | grep -c keyring".into(), "0"),
        ("abstract sockets", "grep -c @ /proc/net/unix".into(), "0"),
        ("interfaces", "tail -n +3 /proc/net/dev | grep -vc ' lo:' ".into(), "0"),
        ("messages", "tail -n +2 /proc/sysvipc/shm /proc/sysvipc/msg /proc/sysvipc/sem | grep -c '^ *[0-9]'".into(), "0"),
        ("priorities", python("print(max(k.setpriority(0, 0, -5), k.setpriority(2, 0, -5)))"), "-1"),
        ("limits", "ulimit -Hn 99999999 2>/dev/null && echo out || echo shut".into(), "shut"),
        ("the kernel's settings", "find /proc/sys /sys -writable -type f 2>/dev/null -exec sh -c 'true 2>/dev/null >>\"$1\" && echo \"$1\"' _ {} \\; | head -n 1; echo shut".into(), "shut"),
        ("privileges", "sed -n 's/^CapEff:\\s*//p' /proc/self/status | grep -vxE '0{16}|0{14}fb|0{8}a00405fb|0{8}a80425fb'; echo shut".into(), "shut"),
    ];
    for (name, image) in boxes() {
        let mut sandbox = start(&image).unwrap();
        for (kind, attempt, shut) in &kinds {
            let said = text(&sandbox.run(attempt, 20 * SECOND).unwrap());
            let said: Vec<_> =
                said.lines().filter(|line| !line.contains("Hangup") && !line.trim().is_empty()).collect();
            assert_eq!(said, [*shut], "{name}: {kind}: {attempt}");
        }
    }
    assert_eq!(fs::read_to_string(canary.to_string()).unwrap(), "alive");
}
