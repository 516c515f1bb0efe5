#!/usr/bin/env bash
# Starts a MySQL server of Debian sid on any distribution: mysql.sh PREFIX [PORT]. It and its libraries are unpacked into PREFIX, once, and
# run by the loader that came with them. Says `mysql://root@127.0.0.1:PORT`, and ends when it is interrupted.
# DEBIAN: a mirror. Needs apt and dpkg, and the keys of the package debian-archive-keyring. VERSION: another than sid has, which the mirror must hold.
set -euo pipefail
prefix=${1:?a folder for the server} port=${2:-3307}
mirror=${DEBIAN:-http://deb.debian.org/debian}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$prefix"
prefix=$(realpath "$prefix")

# An apt of its own, for which nothing is installed.
private_apt() {
  apt-get -qq -o Dir="$prefix/apt" -o Dir::State::status="$prefix/apt/status" -o APT::Architecture=amd64 \
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@"
}

unpack() {
  local apt=$prefix/apt
  mkdir -p "$apt"/etc/apt/{apt.conf.d,preferences.d,sources.list.d} "$apt"/var/lib/apt/lists/partial \
    "$apt"/var/cache/apt/archives/partial "$prefix/root"
  : > "$apt/status"
  echo "deb [signed-by=$keys] $mirror sid main" > "$apt/etc/apt/sources.list"
  private_apt update
  private_apt --download-only --yes install "mysql-server-core${VERSION:+=$VERSION}"
  for package in "$apt"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$prefix/root" --keep-directory-symlink
  done
  rm -rf "$apt"
}

[ -x "$prefix/root/usr/sbin/mysqld" ] || unpack >&2
root=$prefix/root data=$prefix/data
libraries=$root/usr/lib/x86_64-linux-gnu
mysqld() {
  "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries:$root/usr/lib/mysql/private" "$root/usr/sbin/mysqld" \
    --no-defaults --user="$(id -un)" --datadir="$data" --lc-messages-dir="$root/usr/share/mysql" \
    --character-sets-dir="$root/usr/share/mysql/charsets" --plugin-dir="$root/usr/lib/mysql/plugin" "$@"
}

mysqld --version >&2
[ -d "$data/mysql" ] || mysqld --initialize-insecure
mysqld --port="$port" --socket="$prefix/s" --pid-file="$prefix/pid" --mysqlx=OFF --bind-address=127.0.0.1 \
  --secure-file-priv=NULL 2> "$prefix/log" &
trap 'kill $! && wait $!' EXIT
until (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; do
  kill -0 $! || { cat "$prefix/log" >&2; exit 1; }
  sleep 0.2
done
echo "mysql://root@127.0.0.1:$port"
wait $!
