#!/usr/bin/env bash
# Inside the machine, after each of its boots: installs the package and the demo's scene, looks at
# them after a reboot, then upgrades, removes and purges it. Called by payload.service.
#
# Says what happens on the second serial line, in the words that tests/kernels/verdict.awk reads.
set -u
exec > /dev/ttyS1 2>&1 < /dev/null
# A line ends as a file's does.
stty -F /dev/ttyS1 -opost
cd /payload || exit 1

up() { cut -d ' ' -f 1 /proc/uptime; }

# ---- suites and tests -----------------------------------------------------------

suite=''
begin() { suite=$1 passed=0 failed=0; echo "suite: $suite begins at $(up) s"; }
end() {
  echo "test result: $passed passed; $failed failed;"
  echo "suite: $suite ends with $((failed > 0)) at $(up) s"
}
# A test: its name, and the command that must succeed.
holds() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "test $name ... ok"
    passed=$((passed + 1))
  else
    echo "test $name ... FAILED"
    printf '%s\n' "$said" | tail -n 30 | sed 's/^/  | /'
    systemctl status --no-pager -n 0 netpold.service | sed 's/^/  status | /'
    journalctl -b -u 'netpold*' -n 12 --no-pager -o short-monotonic | sed 's/^/  journal | /'
    failed=$((failed + 1))
  fi
}
refuses() { ! "$@"; }
# Until a command succeeds, or a minute and a half are over.
soon() {
  local until=$((SECONDS + 90))
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 1
  done
}
show() { systemctl show --value -p "$2" "$1"; }
is() { [ "$1" = "$2" ] || { echo "is \`$1\`, not \`$2\`"; return 1; }; }

# ---- the scene ------------------------------------------------------------------

# Namespace, name, what it runs, one more label: config/examples/payments/compose.yaml.
scene() {
  mkdir /tmp/image
  cp /bin/busybox /tmp/image/
  tar -C /tmp/image -c busybox | docker import - scene
  docker network create payments
  while read -r namespace name label command; do
    # shellcheck disable=SC2086 # the command is words.
    docker run -d --restart always --name "$name" --network payments --stop-signal SIGKILL \
      --label "netpold.io/namespace=$namespace" --label "app=$name" --label "$label" scene /busybox $command || return 1
  done <<'END'
web frontend a=b httpd -f -p 80
payments api-server monitoring.io/expose-metrics=true httpd -f -p 8080
payments postgres-primary a=b nc -ll -p 5432 -e /busybox cat
payments postgres-replica a=b nc -ll -p 5432 -e /busybox cat
monitoring prometheus a=b httpd -f -p 9090
kube-system dns k8s-app=kube-dns nc -ll -p 53 -e /busybox cat
END
}
address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
# A real connection.
reaches() { docker exec "$1" /busybox nc -w 3 "$(address "$2")" "$3" -e /busybox true; }
# All that policy allows, and some of what it denies.
as_policy_says() {
  reaches frontend api-server 8080 || { echo "frontend does not reach api-server"; return 1; }
  reaches prometheus api-server 8080 || { echo "prometheus does not reach api-server"; return 1; }
  reaches api-server postgres-primary 5432 || { echo "api-server does not reach postgres-primary"; return 1; }
  ! reaches frontend postgres-primary 5432 || { echo "frontend reaches postgres-primary"; return 1; }
  ! reaches postgres-primary postgres-replica 5432 || { echo "postgres-primary reaches postgres-replica"; return 1; }
}
all_run() { is "$(docker ps --format '{{.Names}}' | wc -l)" 6; }
main() { show netpold.service MainPID; }

# ---- the tests ------------------------------------------------------------------

ready_before_docker() {
  local ready docker
  ready=$(show netpold.service ActiveEnterTimestampMonotonic)
  docker=$(show docker.service ExecMainStartTimestampMonotonic)
  [ "$ready" -gt 0 ] && [ "$ready" -le "$docker" ] || { echo "ready at $ready µs, Docker begins at $docker µs"; return 1; }
}
gate() { nft list tables | grep netpold; }
counts_are_shown() {
  case $(show netpold.service StatusText) in
    "4 policies in force, 6 endpoints"*) ;;
    *) show netpold.service StatusText; return 1 ;;
  esac
}
journal_says() { journalctl -b -u netpold.service -o cat | grep -F "$1"; }
started_is_in_the_journal() { journalctl -b _PID=1 UNIT=netpold.service -o cat | grep -q '^Started netpold.service'; }
echoed() { docker exec api-server /busybox wc -c /echoed; }
echoed_more() { [ "$(echoed)" != "$1" ]; }
# While something is done to the daemon: nothing denied gets through, and a connection that is
# allowed lives.
meanwhile() {
  local primary before found=0
  primary=$(address postgres-primary)
  docker exec -d frontend /busybox sh -c "
    until [ -e /stop ]; do
      ! /busybox nc -w 1 $primary 5432 -e /busybox true || echo >> /leaked
      echo >> /tried
    done"
  docker exec -d api-server /busybox sh -c "
    until [ -e /stop ]; do echo; /busybox sleep 1; done | /busybox nc $primary 5432 > /echoed"
  soon docker exec api-server /busybox test -s /echoed || { echo "the connection did not open"; found=1; }
  "$@" || found=1
  before=$(echoed)
  # A firewall that is reloaded drops for seconds, and TCP tries again after ever longer ones.
  soon echoed_more "$before" || { echo "the connection is dead"; found=1; }
  docker exec frontend /busybox test -e /tried || { echo "nothing was tried"; found=1; }
  ! docker exec frontend /busybox test -e /leaked || { echo "denied connections got through"; found=1; }
  for pod in frontend api-server; do
    docker exec "$pod" /busybox touch /stop
    sleep 3
    docker exec "$pod" /busybox rm -f /stop /tried /leaked /echoed
  done
  return "$found"
}
upgrade() { dpkg -i newer.deb && is "$(dpkg-query -W -f '${Version}' netpold)" "$(dpkg-deb -f newer.deb Version)"; }
another_runs() { soon is_another "$1" && soon systemctl is-active netpold.service; }
is_another() {
  local pid
  pid=$(main)
  [ "$pid" != 0 ] && [ "$pid" != "$1" ]
}
nothing_pinned() { [ ! -e /sys/fs/bpf/netpold ] || find /sys/fs/bpf/netpold; }
left() { find / -xdev -path /payload -prune -o -path /proc -prune -o -name '*netpol*' ! -path '/var/lib/docker/*' ! -path '/var/log/*' ! -path '/var/lib/dpkg/*' -print; }
nothing_left() { is "$(left)" '' && is "$(ls /var/lib/dpkg/info/netpold.* 2> /dev/null)" ''; }

restarts_itself() {
  local old
  old=$(main)
  kill "-$1" "$old" && another_runs "$old" && soon netpol wait
}
has_fields() { journalctl -b -u netpold.service -o cat NETPOLD_POLICY=payments/default-deny | grep -F 'the policy is in force'; }
# Another configuration, by the same process; then the one of before.
reloads() {
  local old
  old=$(main)
  cp /etc/netpold/netpold.toml /tmp/before.toml
  printf '[enforcement]\nmode = "audit"\n' > /etc/netpold/netpold.toml
  systemctl reload netpold.service && soon shows_mode audit && is "$(main)" "$old"
  local applied=$?
  cp /tmp/before.toml /etc/netpold/netpold.toml
  [ "$applied" = 0 ] || return 1
  systemctl reload netpold.service && soon shows_mode enforce && is "$(main)" "$old"
}
shows_mode() { netpol status -o json | tr -d " \n" | grep -E "\"generation\":[0-9]+,\"mode\":\"$1\""; }
# One that can't be is refused and said, and the daemon goes on with the one it has.
refuses_to_reload() {
  local old
  old=$(main)
  cp /etc/netpold/netpold.toml /tmp/before.toml
  printf '[enforcement]\nmode = "enforced"\n' > /etc/netpold/netpold.toml
  ! systemctl reload netpold.service || { echo "reloaded"; return 1; }
  cp /tmp/before.toml /etc/netpold/netpold.toml
  systemctl is-active netpold.service && is "$(main)" "$old" && journal_says enforced
}

# ---- systemd-resolved -------------------------------------------------------------

# The resolver that it asks, in a network namespace of its own, knows one name. The host's resolv.conf names its stub.
resolved() {
  ip netns add world
  ip link add world type veth peer name eth0 netns world
  ip addr add 198.51.100.1/24 dev world
  ip link set world up
  ip -n world addr add 198.51.100.53/24 dev eth0
  ip -n world link set eth0 up
  ip -n world link set lo up
  ip -n world route add default via 198.51.100.1
  # It goes on in the background.
  ip netns exec world dnsmasq --user=root --no-hosts --no-resolv --pid-file= --bind-interfaces \
    --listen-address=198.51.100.53 --address=/world.test/192.0.2.77
  mkdir -p /etc/systemd/resolved.conf.d
  printf '[Resolve]\nDNS=198.51.100.53\nDNSSEC=no\n' > /etc/systemd/resolved.conf.d/world.conf
  systemctl start systemd-resolved.service && ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
  grep -q '^nameserver 127.0.0.53' /etc/resolv.conf && soon host_resolves
}
host_resolves() { resolvectl query world.test | grep -F 192.0.2.77; }
asker() {
  docker run -d --name asker --network payments --label netpold.io/namespace=names scene /busybox sleep 1d &&
    printf '%s\n' 'apiVersion: networking.k8s.io/v1' 'kind: NetworkPolicy' 'metadata: {name: shut, namespace: names}' \
      'spec: {podSelector: {}, policyTypes: [Egress]}' > /etc/netpold/manifests/names.yaml && netpol wait --timeout 60s
}
resolves() { docker exec asker /busybox nslookup world.test | grep -F 192.0.2.77; }
allow_names() {
  printf '%s\n' 'apiVersion: networking.k8s.io/v1' 'kind: NetworkPolicy' 'metadata: {name: names, namespace: names}' \
    'spec:' '  podSelector: {}' '  policyTypes: [Egress]' '  egress:' \
    '  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}]' \
    '    ports: [{protocol: UDP, port: 53}]' > /etc/netpold/manifests/names-2.yaml && netpol wait --timeout 60s
}
forget_asker() {
  docker rm -f asker && rm /etc/netpold/manifests/names*.yaml && netpol wait --timeout 60s
}

# ---- one boot after another -------------------------------------------------------

boot=$(($(cat /var/lib/payload-boot 2> /dev/null || echo 0) + 1))
echo "$boot" > /var/lib/payload-boot
case $boot in
  1)
    echo "init: Linux $(uname -r), up at $(up) s"
    begin install
    holds package-installs dpkg -i netpold.deb
    holds service-is-enabled systemctl is-enabled netpold.service
    holds service-is-active systemctl is-active netpold.service
    holds gate-is-shut gate
    holds status-exits-with-0 netpol status
    holds containers-start scene
    cp manifests/* /etc/netpold/manifests/
    holds policies-are-accepted netpol wait --timeout 60s
    holds connections-are-as-policy-says as_policy_says
    end
    # Docker follows firewalld where that is there before it.
    systemctl enable firewalld.service
    systemctl reboot
    ;;
  2)
    begin reboot
    holds ready-before-docker ready_before_docker
    holds gate-is-shut gate
    holds ready-is-in-the-journal started_is_in_the_journal
    holds containers-come-up soon all_run
    holds everything-is-in-force soon netpol wait
    holds connections-are-as-policy-says as_policy_says
    holds status-exits-with-0 netpol status
    holds systemd-shows-the-counts counts_are_shown
    holds journal-has-fields has_fields
    holds reload-applies-a-configuration reloads
    holds reload-refuses-a-wrong-one refuses_to_reload
    holds kill-is-not-noticed meanwhile restarts_itself KILL
    # The watchdog's business.
    holds standstill-is-not-noticed meanwhile restarts_itself STOP
    holds firewalld-is-not-noticed meanwhile firewall-cmd --reload
    holds connections-are-as-policy-says as_policy_says
    holds gate-is-shut gate
    end
    begin names
    holds systemd-resolved-resolves resolved
    holds a-container-is-shut asker
    holds it-does-not-resolve refuses resolves
    holds status-says-nothing-else netpol status
    holds names-are-allowed allow_names
    holds it-resolves soon resolves
    holds it-is-forgotten forget_asker
    end
    begin package
    holds upgrade-is-not-noticed meanwhile upgrade
    holds policies-are-in-force-after-it as_policy_says
    holds remove dpkg -r netpold
    holds nothing-is-enforced-after-it reaches frontend postgres-primary 5432
    holds nothing-is-pinned-after-it nothing_pinned
    holds gate-is-gone-after-it refuses gate
    holds policies-stay test -e /etc/netpold/manifests/10-default-deny.yaml
    holds install-again dpkg -i netpold.deb
    holds policies-are-in-force-again soon as_policy_says
    holds purge dpkg -P netpold
    holds nothing-is-left nothing_left
    end
    echo "init: done at $(up) s"
    systemctl poweroff
    ;;
esac
