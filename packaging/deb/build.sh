#!/usr/bin/env bash
# Makes the Debian package of what is built. Called by `make deb`, which builds it.
#
# usage: build.sh [VERSION]        (default: the workspace's)
#
# What goes where is `make install`'s business; here it is told Debian's folders, and what dpkg
# wants to know is added. Leaves target/debian/netpold_VERSION_ARCHITECTURE.deb, and prints its
# name. Needs no root and no network. The same sources give the same package: what has a date has
# the newest commit's.
#
# BUILT, NETPOL and ARCHITECTURE (for `make dist`): the folder of programs without shared libraries, a netpol that runs here,
# and Debian's name of the processor that those programs are for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
umask 022

version=${1:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
architecture=${ARCHITECTURE:-$(dpkg --print-architecture)}
# Debian's own variables, for those who publish what they build.
maintainer="${DEBFULLNAME:-The netpold authors} <${DEBEMAIL:-netpold@netpold.invalid}>"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

out=$PWD/target/debian
stage=$out/stage
documents=$stage/usr/share/doc/netpold
rm -rf "$stage"
mkdir -p "$stage/DEBIAN" "$documents"
make -s install DESTDIR="$stage" PREFIX=/usr ${BUILT:+BUILT="$BUILT" NETPOL="$NETPOL"} ZSH="$stage/usr/share/zsh/vendor-completions" > /dev/null
find "$stage/usr/share/man" -type f -exec gzip -9n {} +
# dpkg asks before it replaces one that was edited.
echo /etc/netpold/netpold.toml > "$stage/DEBIAN/conffiles"
# The unit wants it there before the first file is.
[ -d "$stage/etc/netpold/manifests" ]

cat > "$documents/copyright" <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: netpold

Files: *
Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) The netpold authors
License: MIT or Apache-2.0
Comment: The terms of the libraries that are linked into the programs are in
 /usr/share/doc/netpold/third-party-licenses.gz.

License: MIT
$(sed -n '/^Permission/,$s/^/ /p' LICENSE-MIT | sed 's/^ $/ ./')

License: Apache-2.0
 On Debian systems, the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
END
packaging/notices.sh | gzip -9n > "$documents/third-party-licenses.gz"
gzip -9n > "$documents/changelog.gz" <<END
netpold ($version) unstable; urgency=medium

  * Built from the sources of $version.

 -- $maintainer  $(date -R -u -d "@$SOURCE_DATE_EPOCH")
END

# Units that the package enables, and those that they bring along.
enabled=() all=()
for unit in systemd/*.service; do
  all+=("$(basename "$unit")")
  ! grep -q '^\[Install\]' "$unit" || enabled+=("$(basename "$unit")")
done
for script in postinst prerm postrm; do
  sed "s/@ENABLED@/${enabled[*]}/; s/@UNITS@/${all[*]}/" "packaging/deb/$script" > "$stage/DEBIAN/$script"
  chmod 755 "$stage/DEBIAN/$script"
done

# dpkg-shlibdeps reads the libraries of Debian that the programs ask for; it wants a source tree.
libraries=
if [ -z "${BUILT:-}" ]; then
  mkdir -p "$out/source/debian"
  printf 'Source: netpold\n\nPackage: netpold\nArchitecture: any\n' > "$out/source/debian/control"
  libraries="$(cd "$out/source" && dpkg-shlibdeps -O "$stage"/usr/bin/* | sed -n 's/^shlibs:Depends=//p'), "
  rm -r "$out/source"
fi

cat > "$stage/DEBIAN/control" <<END
Package: netpold
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$stage" | cut -f 1)
Depends: ${libraries}nftables
Recommends: docker.io | docker-ce | podman | containerd
Section: net
Priority: optional
Description: Kubernetes NetworkPolicy for hosts without Kubernetes
 A daemon that enforces networking.k8s.io/v1 NetworkPolicy on the containers of
 Docker, Podman and containerd, and on network namespaces, by eBPF programs on
 the host's end of their interfaces. Policies are files below
 /etc/netpold/manifests, in force as soon as they are saved.
 .
 The command netpol validates and lints policies, predicts and explains
 verdicts, and shows what is dropped, and why.
 .
 It needs Linux 5.10 or newer.
END
(cd "$stage" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z |
  xargs -0 md5sum > DEBIAN/md5sums)

package=$out/netpold_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" > /dev/null
rm -r "$stage"
echo "${package#"$PWD/"}"
