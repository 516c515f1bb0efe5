#!/usr/bin/env bash
# README's two commands on a machine with a Rust toolchain alone: a fresh root made by debootstrap (Debian stable, gcc and git
# besides), in which this checkout is cloned, built and run. Outside CI; needs root and half an hour or more.
# ROOT: where the root goes (kept, if named). MIRROR: of Debian. COMMAND: what is run in the clone (default: the first of README's).
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=${ROOT:-$(mktemp -d)}
[ -n "${ROOT:-}" ] || trap 'rm -rf --one-file-system "$root"' EXIT
if [ ! -e "$root/usr/bin/gcc" ]; then
  debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,git "${SUITE:-bookworm}" "$root" "${MIRROR:-http://deb.debian.org/debian}"
fi
mkdir -p "$root"/{checkout,cargo,rustup}
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
export checkout root cargo=${CARGO_HOME:-$HOME/.cargo} rustup=${RUSTUP_HOME:-$HOME/.rustup}
export toolchain=${RUSTUP_TOOLCHAIN:-stable} command=${COMMAND:-cargo run --release -- run nano}
# What is mounted goes with the namespace: the toolchain, and crates that were fetched before.
unshare --mount --propagation private bash -euc '
  mount --bind "$checkout" "$root/checkout"
  mount --bind "$cargo" "$root/cargo"
  mount --bind "$rustup" "$root/rustup"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  chroot "$root" /usr/bin/env -i HOME=/root PATH=/cargo/bin:/usr/bin:/bin:/usr/sbin CARGO_HOME=/cargo RUSTUP_HOME=/rustup \
    CARGO_TERM_COLOR=never RUSTUP_TOOLCHAIN="$toolchain" command="$command" bash -euc "
      git config --global --add safe.directory \"*\"
      [ -d /clone ] || git clone -q /checkout /clone
      cd /clone
      git pull -q
      eval \"\$command\""'
