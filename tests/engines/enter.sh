#!/usr/bin/env bash
# Runs a command inside a root file system, in mount and process namespaces of its own. Called by run.sh, as root.
#
# usage: enter.sh ROOT COMMAND [ARGUMENT…]
#
# The repository is at its own path in there, to be read. What the command writes is forgotten when it ends, and what it
# started ends with it. The kernel and its network are this machine's: the suites make network namespaces of
# their own.
set -euo pipefail

root=${1:?usage: enter.sh ROOT COMMAND [ARGUMENT…]}
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export root repository

# An engine's runtime changes the root of its containers by pivot_root(2), which works only where the caller's own root is
# a mount; so it has to be one here, and chroot(8) would not do.
prepare='
umask 022
mount -t tmpfs engines /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay engines -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
cd /mnt/root
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
for own in tmp run dev/shm; do mount -t tmpfs "${own##*/}" "$own"; done
chmod 1777 tmp dev/shm
# Pins of suites that run outside at the same time have the same names.
mount -t bpf bpf sys/fs/bpf
# What Debian boots with, and what crun insists on. Where the machine has the older layout, its controllers stay there.
if [ ! -e sys/fs/cgroup/cgroup.controllers ]; then
  umount --recursive sys/fs/cgroup
  mount -t cgroup2 cgroup sys/fs/cgroup
fi
if [ -d /lib/modules ]; then
  mkdir -p lib/modules
  mount --bind -o ro /lib/modules lib/modules
fi
mkdir -p ".$repository"
mount --bind "$repository" ".$repository"
mount -o remount,bind,ro ".$repository"
pivot_root . mnt
umount -l /mnt
cd "$repository"
exec "$@"
'
exec unshare --mount --propagation private --pid --fork --kill-child \
  env PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 bash -euc "$prepare" bash "${@:2}"
