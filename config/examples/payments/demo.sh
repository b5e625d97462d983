#!/usr/bin/env bash
# The main job of netpold on real packets: the scene of README.md in this folder, with
# Docker where an engine answers, else with network namespaces as declared Pods.
#
# usage: demo.sh [auto|docker|namespaces]     (as root; `make demo` builds first)
#
# It runs a netpold of its own, with its own socket, pin and state directories, and
# takes everything away again when it ends, also on Ctrl-C.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${NETPOLD_BIN:-$here/../../../target/release}
mode=${1:-auto}
id=netpold-demo-$$
# The engine that netpold will follow, whatever the caller's docker talks to.
export DOCKER_HOST=unix:///run/docker.sock

# Namespace, name, one more label beside `app`.
pods=(
  "web frontend"
  "payments api-server monitoring.io/expose-metrics=true"
  "payments postgres-primary"
  "payments postgres-replica"
  "monitoring prometheus"
  "kube-system dns k8s-app=kube-dns"
)
# What each asks of the others.
services=(
  "payments/api-server 8080 TCP"
  "payments/postgres-primary 5432 TCP"
  "payments/postgres-replica 5432 TCP"
  "kube-system/dns 53 UDP"
  "kube-system/dns 53 TCP"
)

bold='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi
heading() { printf '\n%s%s%s\n\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 2; }
# In a session of its own: what the engine was asked for is there, or it is not, when Ctrl-C is met.
docker() { setsid -w docker "$@"; }
netpol() { "$bin/netpol" --socket "$work/netpold.sock" "$@"; }
# Inside the network namespace that plays the host; with Docker that is the host itself.
on_host() { if [ "$mode" = namespaces ]; then nsenter --net="/run/netns/$id-host" "$@"; else "$@"; fi; }

[ "$(id -u)" = 0 ] || fail "it needs root, for network namespaces and BPF: sudo $0 $*"
for program in netpold netpol; do
  [ -x "$bin/$program" ] || fail "\`$bin/$program\` is not built: run \`make\` first"
done

engine_is_free() {
  command -v docker >/dev/null && docker version >/dev/null 2>&1 || return 1
  # Another netpold has this host's containers; and other containers may have these names.
  [ ! -S /run/netpold/netpold.sock ] || return 1
  for pod in "${pods[@]}"; do
    read -r _ name _ <<<"$pod"
    ! docker container inspect "$name" >/dev/null 2>&1 || return 1
  done
}
if [ "$mode" = auto ]; then
  if engine_is_free; then mode=docker; else mode=namespaces; fi
fi

work=''
netpold=''
mounted=''
cleanup() {
  trap '' INT TERM
  if [ -n "$netpold" ]; then
    kill "$netpold" 2>/dev/null || :
    wait "$netpold" 2>/dev/null || :
    on_host "$bin/netpol" uninstall --config "$work/netpold.toml" >/dev/null || :
  fi
  for pod in "${pods[@]}"; do
    read -r _ name _ <<<"$pod"
    case $mode in
      docker) docker rm -f "$name" ;;
      namespaces) ip netns del "$id-$name" ;;
    esac >/dev/null 2>&1 || :
  done
  case $mode in
    docker) docker network rm "$id"; docker image rm "$id" ;;
    namespaces) ip netns del "$id-host" ;;
  esac >/dev/null 2>&1 || :
  [ -z "$mounted" ] || umount /sys/fs/bpf
  rm -rf "$work"
  [ ! -e "/sys/fs/bpf/$id" ] || echo "demo: \`/sys/fs/bpf/$id\` is still there" >&2
}
trap cleanup EXIT
trap 'exit 130' INT TERM
work=$(mktemp -d)

# ---- the scene --------------------------------------------------------------

in_docker() {
  local namespace name label labels
  mkdir "$work/image"
  cp "$(command -v busybox)" "$work/image/busybox"
  tar -C "$work/image" -c busybox | docker import - "$id" >/dev/null
  docker network create "$id" >/dev/null
  for pod in "${pods[@]}"; do
    read -r namespace name label <<<"$pod"
    labels=(--label "netpold.io/namespace=$namespace" --label "app=$name")
    [ -z "$label" ] || labels+=(--label "$label")
    docker run -d --name "$name" --network "$id" "${labels[@]}" "$id" /busybox sleep 3600 >/dev/null
  done
}

in_namespaces() {
  local namespace name label number=10
  ip netns add "$id-host"
  ip -n "$id-host" link add br0 type bridge forward_delay 0
  ip -n "$id-host" addr add 10.77.0.1/24 dev br0
  ip -n "$id-host" link set br0 up
  ip -n "$id-host" link set lo up
  for pod in "${pods[@]}"; do
    read -r namespace name label <<<"$pod"
    ip netns add "$id-$name"
    ip -n "$id-host" link add "veth$number" type veth peer name eth0 netns "$id-$name"
    ip -n "$id-host" link set "veth$number" master br0 up
    ip -n "$id-$name" addr add "10.77.0.$number/24" dev eth0
    ip -n "$id-$name" link set lo up
    ip -n "$id-$name" link set eth0 up
    number=$((number + 1))
    cat >"$work/manifests/pod-$name.yaml" <<POD
apiVersion: v1
kind: Pod
metadata:
  name: $name
  namespace: $namespace
  labels:
    app: $name
    ${label:+${label%%=*}: \"${label#*=}\"}
  annotations:
    netpold.io/netns: /run/netns/$id-$name
POD
  done
}

start_netpold() {
  local docker=false unidentified=deny
  # This host may have containers that are none of the demo's business.
  if [ "$mode" = docker ]; then docker=true unidentified=allow; fi
  cat >"$work/netpold.toml" <<CONFIG
[manifests]
directory = "$work/manifests"
[docker]
enabled = $docker
[containerd]
enabled = false
[enforcement]
unidentified = "$unidentified"
[dns]
kube-dns = false
[datapath]
pin-directory = "/sys/fs/bpf/$id"
[state]
directory = "$work/state"
[api]
socket = "$work/netpold.sock"
CONFIG
  if ! mountpoint -q /sys/fs/bpf; then
    mount -t bpf bpf /sys/fs/bpf
    mounted=yes
  fi
  # Not through a function: a subshell's child would not be ours to wait for.
  local enter=()
  [ "$mode" = docker ] || enter=(nsenter --net="/run/netns/$id-host")
  "${enter[@]}" "$bin/netpold" --config "$work/netpold.toml" >"$work/log" 2>&1 &
  netpold=$!
}

in_force() {
  netpol wait --timeout 30s || { cat "$work/log" >&2; fail "netpold did not get ready"; }
}

# ---- the tables ---------------------------------------------------------------

declare -A measured predicted

# Real connections, from inside each Pod. Where no server listens, `netpol test` listens meanwhile.
measure() {
  local from to port protocol namespace name verdict
  echo 'probes:' >"$work/probes.yaml"
  for pod in "${pods[@]}"; do
    read -r namespace name _ <<<"$pod"
    for service in "${services[@]}"; do
      read -r to port protocol <<<"$service"
      [ "$to" = "$namespace/$name" ] ||
        echo "  - {from: $namespace/$name, to: $to, port: $port, protocol: $protocol, allow: true}"
    done
  done >>"$work/probes.yaml"
  measured=()
  # `FAIL` is what half of them should say: nothing is held against anything here.
  netpol test "$work/probes.yaml" >"$work/probes" 2>"$work/errors" || [ -s "$work/probes" ] || {
    cat "$work/errors" >&2
    fail "no probes"
  }
  # `PASS web/frontend (10.1.0.1) -> payments/api-server (10.1.0.2) 8080/TCP: expected allowed, reached`
  while read -r verdict from _ _ to _ port rest; do
    case "$verdict $rest" in
      PASS*) verdict=yes ;;
      *timed\ out*) verdict=no ;;
      *) verdict='?' ;;
    esac
    port=${port%:}
    measured["$from $to ${port%/*} ${port#*/}"]=$verdict
  done <"$work/probes"
}

# The same from the policies alone.
predict() {
  local from to port protocol verdict
  predicted=()
  for service in "8080 TCP" "5432 TCP" "53 UDP" "53 TCP"; do
    read -r port protocol <<<"$service"
    while read -r from to protocol port verdict; do
      predicted["$from $to $port $protocol"]=$verdict
    done < <(netpol matrix --port "$port" --protocol "$protocol" -o wide | tail -n +2)
  done
}

# A table by the name of its array.
show() {
  local -n cells=$1
  local namespace name to port protocol cell colour names ports width widths=()
  printf -v names '%-17s' 'from \ to'
  printf -v ports '%-17s' ''
  for service in "${services[@]}"; do
    read -r to port protocol <<<"$service"
    to=${to#*/} port=$port/$protocol
    width=$((${#to} > ${#port} ? ${#to} + 1 : ${#port} + 1))
    widths+=("$width")
    printf -v names "%s%-${width}s" "$names" "$to"
    printf -v ports "%s%-${width}s" "$ports" "$port"
  done
  printf '%s\n%s\n' "$names" "$ports"
  for pod in "${pods[@]}"; do
    read -r namespace name _ <<<"$pod"
    printf '%-17s' "$name"
    for column in "${!services[@]}"; do
      read -r to port protocol <<<"${services[column]}"
      cell=${cells["$namespace/$name $to $port $protocol"]:--}
      case $cell in yes) colour=$green ;; no) colour=$red ;; *) colour='' ;; esac
      printf "%s%-${widths[column]}s%s" "$colour" "$cell" "$plain"
    done
    printf '\n'
  done
}

compare() {
  local cell wrong=0
  for cell in "${!measured[@]}"; do
    [ "${measured[$cell]}" = "${predicted[$cell]:-}" ] || wrong=$((wrong + 1))
  done
  [ "$wrong" = 0 ] || fail "$wrong of ${#measured[@]} probes are not as predicted"
  printf '\nAll %d probes are as predicted.\n' "${#measured[@]}"
}

# ---- the story ----------------------------------------------------------------

mkdir "$work/manifests"
case $mode in
  docker) heading "The scene: six containers on one Docker network"; in_docker ;;
  namespaces) heading "The scene: six network namespaces on one bridge, declared as Pods"; in_namespaces ;;
  *) fail "the mode is auto, docker or namespaces, not \`$mode\`" ;;
esac
start_netpold
in_force
run netpol get pods -A --show-labels

heading "1. No policy: everything reaches everything (real connections)"
measure
show measured

heading "2. Three files go into the manifests directory"
for file in 10-default-deny 20-api-server 30-metrics; do
  printf '  %-24s %s\n' "$file.yaml" "$(sed -n '1s/^# //p' "$here/manifests/$file.yaml")"
  cp "$here/manifests/$file.yaml" "$work/manifests/"
done
in_force
printf '\nReal connections now:\n\n'
measure
show measured
printf '\nWhat `netpol matrix` predicts from the policies alone:\n\n'
predict
show predicted
compare

heading "3. api-server has a rule for postgres-primary. Why does it not get through?"
asked=(--from payments/api-server --to payments/postgres-primary)
run netpol explain "${asked[@]}" --port 5432 || [ $? = 1 ]
printf '\nThe packet itself, as the kernel dropped it:\n\n'
run netpol observe "${asked[@]}" --verdict dropped --last 1

heading "4. The fourth file: postgres-primary lets api-server in"
grep -v '^#' "$here/manifests/40-postgres-primary.yaml"
cp "$here/manifests/40-postgres-primary.yaml" "$work/manifests/"
in_force
printf '\nReal connections now:\n\n'
measure
show measured
predict
compare
[ "${measured["payments/api-server payments/postgres-primary 5432 TCP"]}" = yes ] ||
  fail "the path did not open"

heading "That was it. Everything is taken away again."
