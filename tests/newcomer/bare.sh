#!/usr/bin/env bash
# README's two commands on a machine with a Rust toolchain alone: a fresh root made by debootstrap (Debian stable, gcc and git
# besides), in which this checkout is cloned, built and run. Outside CI; needs root and half an hour or more.
# ROOT: where the root goes (kept, if named). MIRROR: of Debian. COMMAND: what is run in the clone (default: the first of README's).
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=${ROOT:-$(mktemp -d)}
mirror=${MIRROR:-http://deb.debian.org/debian}
command=${COMMAND:-cargo run --release -- run nano}
if [ ! -e "$root/usr/bin/gcc" ]; then
  debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,git "${SUITE:-bookworm}" "$root" "$mirror"
fi
cleanup() { for what in work/checkout cargo rustup proc dev; do umount "$root/$what" 2>/dev/null || true; done; [ -n "${ROOT:-}" ] || rm -rf "$root"; }
trap cleanup EXIT
mkdir -p "$root"/{work/checkout,cargo,rustup}
mount --bind "$checkout" "$root/work/checkout"
# The toolchain, and crates that were fetched before.
mount --bind "${CARGO_HOME:-$HOME/.cargo}" "$root/cargo"
mount --bind "${RUSTUP_HOME:-$HOME/.rustup}" "$root/rustup"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
chroot "$root" /usr/bin/env -i HOME=/root PATH=/cargo/bin:/usr/bin:/bin:/usr/sbin CARGO_HOME=/cargo RUSTUP_HOME=/rustup \
  CARGO_TERM_COLOR=never RUSTUP_TOOLCHAIN="${RUSTUP_TOOLCHAIN:-stable}" bash -ec "
    git config --global --add safe.directory '*'
    rm -rf /work/clone && git clone -q /work/checkout /work/clone && cd /work/clone
    $command"
