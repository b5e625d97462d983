#!/usr/bin/env bash
# Gets one of Debian's kernels: its image, and the few modules that the suites need.
#
# usage: kernel.sh 5.10|6.1|6.12|newest
#
# Leaves in target/kernels/linux-NAME: `version` (the package's), `vmlinuz`, `modules/` in the
# order of loading. What is there is kept; remove the folder to get what Debian has by now.
# apt is given sources, lists and caches of its own: nothing of this machine's changes, and
# nothing is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

name=${1:?usage: kernel.sh 5.10|6.1|6.12|newest}
cache=$PWD/target/kernels
there=$cache/linux-$name

mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
# Archive and suite. Old releases' last kernels are in their security archive.
suites=(
  debian:bullseye debian-security:bullseye-security
  debian:bookworm debian-security:bookworm-security
  debian:trixie debian-security:trixie-security debian:trixie-backports
  debian:sid
)
# What the suites' interfaces, filters and sockets are made of. Built in with some kernels.
modules=(veth bridge macvlan ipvlan dummy 8021q sctp sch_ingress cls_bpf act_bpf nf_tables nft_meta_bridge)
# Of network address translation, by iptables' nftables variant and by nftables itself, of bridged packets too; of a tunnel.
modules+=(nft_compat nft_chain_nat nft_masq nft_nat xt_MASQUERADE xt_nat br_netfilter vxlan)
# Parts of nf_tables itself with newer kernels, which do not know the names any more.
modules+=(nft_counter nft_objref)

# One that was got for other modules is got once more.
[ ! -e "$there/version" ] || [ "$(cat "$there/wanted" 2>/dev/null)" != "${modules[*]}" ] || exit 0

apt=$cache/apt
mkdir -p "$apt"/{lists,archives}/partial
[ -e "$apt/status" ] || : > "$apt/status"
cat > "$apt/conf" <<END
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::status "$apt/status";
Dir::State::lists "$apt/lists";
Dir::Cache "$apt";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
# Of the index files, the packages' alone.
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
# The lists are ours, and so is the user who reads them.
APT::Sandbox::User "root";
END
# Read after this machine's, and so above it.
own() { "apt-$1" -c "$apt/conf" "${@:2}"; }

# The lists of a day will do for all the kernels.
if [ -z "$(find "$apt/sources.list" -mtime -1 2>/dev/null)" ]; then
  printf '%s\n' "${suites[@]}" |
    sed "s|\\(.*\\):\\(.*\\)|deb [signed-by=$keys] $mirror/\\1 \\2 main|" > "$apt/sources.list.new"
  mv "$apt/sources.list.new" "$apt/sources.list"
  own get update -qq || { rm -f "$apt/sources.list"; exit 1; }
fi

[ "$name" = newest ] && series='[0-9]' || series="${name//./\\.}\\."
version=$(own cache madison linux-image-amd64 | awk -F ' *[|] *' '{ print $2 }' | sort -Vr |
  grep -m 1 "^$series") || { echo "kernel: $mirror has no Linux $name for amd64 any more" >&2; exit 1; }
image=$(own cache show "linux-image-amd64=$version" | sed -n 's/^Depends:.*\(linux-image-[0-9][^ ]*\) .*/\1/p')
release=${image#linux-image-}
echo "kernel: Linux $release, Debian's $version"

rm -rf "$there" && mkdir -p "$there/root"
# Since 7.3 the image's package is an empty one that names these.
packages=("$image=$version")
for part in linux-base linux-binary linux-modules; do
  ! own cache show "$part-$release=$version" >/dev/null 2>&1 || packages+=("$part-$release=$version")
done
(cd "$there" && own get download -qq "${packages[@]}")
for package in "$there"/*.deb; do
  # Drivers of hardware are most of it, and there is no hardware.
  dpkg-deb --fsys-tarfile "$package" | tar -x -C "$there/root" --wildcards --no-anchored \
    'vmlinuz*' 'modules.*' 'kernel/net' 'kernel/lib' 'kernel/crypto' 'kernel/arch' 'kernel/drivers/net/*.ko*' 2>/dev/null || true
done
rm "$there"/*.deb
find "$there/root" -name 'vmlinuz*' -exec mv {} "$there/vmlinuz" \;
[ -e "$there/vmlinuz" ] || { echo "kernel: no vmlinuz in ${packages[*]}" >&2; exit 1; }
# Releases of the merged /usr have them there.
[ -d "$there/root/lib" ] || ln -s usr/lib "$there/root/lib"

depmod -b "$there/root" "$release"
mkdir "$there/modules"
number=10
for module in "${modules[@]}"; do
  modprobe -d "$there/root" -S "$release" --show-depends "$module" 2>"$there/said" ||
    case $module in nft_counter | nft_objref) ;; *) cat "$there/said" >&2 && exit 1 ;; esac
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  plain=$there/modules/$number-$(basename "${file%.ko*}").ko
  case $file in
    *.xz) xz -dc "$file" > "$plain" ;;
    *) cp "$file" "$plain" ;;
  esac
  number=$((number + 1))
done
rm -rf "$there/root" "$there/said"
echo "${modules[*]}" > "$there/wanted"
echo "$version" > "$there/version"
