#!/usr/bin/env bash
# A real etcd for tests, on loopback and free ports, without root. Needs etcd, etcdctl and (for TLS) openssl.
#
#   tests/real/etcd.sh hold DIR [1|3] [tls|mtls] [users]   starts members, prints "ready URL,URL,…", and stays until its input
#                                     ends; then it stops them and removes DIR. So nothing is left when the test dies.
#   tests/real/etcd.sh kill DIR N     SIGKILL for member N           again DIR N    starts it anew, with its data
#   tests/real/etcd.sh freeze DIR N   SIGSTOP: it hangs              thaw DIR N     SIGCONT
#   tests/real/etcd.sh ctl DIR ARGS…  etcdctl, as root where there are users
#
# By hand: tests/real/etcd.sh hold /tmp/e 3      and Ctrl-D ends it.
# tls: DIR/pki has ca.crt, server.*, client.* (its name is the user "app"), stranger.* (no user's name), expired.*, and another
#   CA, wrong.crt. mtls: the members demand a client certificate. users: root/root-pw, app/app-pw (may use /thalweg/),
#   reader/reader-pw (may read /thalweg/).
# SERVER_CERTIFICATE=NAME: what members show to clients, else server. ETCD_FLAGS: more flags for each member. KEEP=1: DIR stays.
# Data is not synced (--unsafe-no-fsync): this is no test of power loss.
set -euo pipefail

die() { echo "etcd.sh: $*" >&2; exit 1; }
[ $# -ge 2 ] || { sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 64; }
command=$1 dir=$2
shift 2
[ "$command" = hold ] && mkdir -p "$dir"
dir=$(cd "$dir" && pwd) || die "no $dir"

has() { grep -qxs "$1" "$dir/words"; }
scheme() { if has tls || has mtls; then echo https; else echo http; fi; }
# Member N serves clients at base + 2N and its peers at base + 2N + 1.
client() { echo "$(scheme)://127.0.0.1:$(($(cat "$dir/base") + 2 * $1))"; }
peer() { echo "$(scheme)://127.0.0.1:$(($(cat "$dir/base") + 2 * $1 + 1))"; }
clients() { local n all=(); for n in $(seq "$(cat "$dir/size")"); do all+=("$(client "$n")"); done; (IFS=,; echo "${all[*]}"); }

# The member's pid, if it is still that process: numbers are used again.
running() {
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) && grep -qsF "$dir/data" "/proc/$pid/cmdline" && echo "$pid"
}

certificate() { # NAME COMMON-NAME DAYS-TEXT…
    local name=$1 subject=$2
    shift 2
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -subj "/CN=$subject" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$name.crt" "$@" \
        -extfile <(printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n')
}

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 7 -keyout "$1.key" -out "$1.crt" -subj "/CN=$1" \
        -addext basicConstraints=critical,CA:TRUE
}

pki() (
    mkdir -p "$dir/pki" && cd "$dir/pki"
    authority ca
    authority wrong
    certificate server server -days 7
    certificate client app -days 7
    certificate stranger stranger -days 7
    certificate expired app -days -1
) >"$dir/pki.log" 2>&1 || { cat "$dir/pki.log" >&2; die "no certificates"; }

member() {
    local n=$1 k all=()
    for k in $(seq "$(cat "$dir/size")"); do all+=("member-$k=$(peer "$k")"); done
    local flags=(
        --name "member-$n" --data-dir "$dir/data/$n" --unsafe-no-fsync --logger zap
        --listen-client-urls "$(client "$n")" --advertise-client-urls "$(client "$n")"
        --listen-peer-urls "$(peer "$n")" --initial-advertise-peer-urls "$(peer "$n")"
        --initial-cluster "$(IFS=,; echo "${all[*]}")" --initial-cluster-token "$(basename "$dir")"
    )
    local pki=$dir/pki
    if has tls || has mtls; then
        local server=${SERVER_CERTIFICATE:-server}
        flags+=(--cert-file "$pki/$server.crt" --key-file "$pki/$server.key" --peer-cert-file "$pki/server.crt"
            --peer-key-file "$pki/server.key" --peer-trusted-ca-file "$pki/ca.crt" --peer-client-cert-auth)
    fi
    # A trusted CA alone already makes etcd demand certificates, so only here.
    if has mtls; then flags+=(--trusted-ca-file "$pki/ca.crt" --client-cert-auth); fi
    # shellcheck disable=SC2086
    etcd "${flags[@]}" ${ETCD_FLAGS:-} >>"$dir/$n.log" 2>&1 </dev/null &
    echo $! >"$dir/$n.pid"
}

ctl() {
    local flags=(--endpoints "$(clients)" --dial-timeout 2s --command-timeout 5s)
    if has tls || has mtls; then flags+=(--cacert "$dir/pki/ca.crt"); fi
    # Its name is no user's, so that the password counts.
    if has mtls; then flags+=(--cert "$dir/pki/stranger.crt" --key "$dir/pki/stranger.key"); fi
    if [ -e "$dir/users" ]; then flags+=(--user root:root-pw); fi
    ETCDCTL_API=3 etcdctl "${flags[@]}" "$@"
}

users() {
    local user
    ctl role add root && ctl role add app && ctl role add reader
    ctl role grant-permission app readwrite --prefix=true /thalweg/
    ctl role grant-permission reader read --prefix=true /thalweg/
    for user in root app reader; do
        ctl user add "$user:$user-pw" && ctl user grant-role "$user" "$user"
    done
    ctl auth enable
    : >"$dir/users"
}

ports_are_free() { # BASE SIZE
    local port
    for port in $(seq $(($1 + 2)) $(($1 + 2 * $2 + 1))); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return 1; fi
    done
}

stop_all() {
    local n pid
    for n in $(seq "$(cat "$dir/size")"); do
        pid=$(running "$n") || continue
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
}

serves() {
    # With a bad certificate of its own, which is what some test is about, etcdctl would not say.
    if [ -n "${SERVER_CERTIFICATE:-}" ]; then
        timeout 1 openssl s_client -connect "$(client 1 | cut -d/ -f3)" </dev/null 2>/dev/null | grep -q "BEGIN CERTIFICATE"
    else
        ctl endpoint health
    fi >"$dir/health.log" 2>&1
}

hold() {
    local size=1 word n base tries
    : >"$dir/words"
    for word in "$@"; do
        case $word in
            1 | 3) size=$word ;;
            tls | mtls | users) echo "$word" >>"$dir/words" ;;
            *) die "what is $word?" ;;
        esac
    done
    command -v etcd >/dev/null && command -v etcdctl >/dev/null || die "etcd and etcdctl are not installed"
    echo "$size" >"$dir/size"
    trap 'stop_all; [ -n "${KEEP:-}" ] || rm -rf "$dir"' EXIT
    if has tls || has mtls; then pki; fi
    # Another process may take a port between the look and the start; then with other ones.
    for tries in 1 2 3 4 5; do
        base=$((20000 + RANDOM % 12000))
        ports_are_free "$base" "$size" || continue
        echo "$base" >"$dir/base"
        rm -rf "$dir/data"
        for n in $(seq "$size"); do member "$n"; done
        for _ in $(seq 100); do
            running 1 >/dev/null || break
            if serves; then
                if has users; then users >"$dir/users.log" 2>&1 || { cat "$dir/users.log" >&2; die "no users"; }; fi
                echo "ready $(clients)"
                cat >/dev/null
                return
            fi
            sleep 0.1
        done
        stop_all
    done
    tail -n 5 "$dir"/*.log >&2
    die "etcd does not start ($tries tries)"
}

signal() { # SIGNAL N
    kill "-$1" "$(running "$2" || die "member $2 does not run")"
}

# Is one of its threads not stopped?
runs() { # N
    local pid
    pid=$(running "$1") && grep -qsh '^State:[[:space:]]*[^Tt[:space:]]' /proc/"$pid"/task/*/status
}

case $command in
    hold) hold "$@" ;;
    kill) signal KILL "$1" ;;
    # A thread that has a processor runs on for a moment.
    freeze) signal STOP "$1"; while runs "$1"; do sleep 0.01; done ;;
    thaw) signal CONT "$1" ;;
    again) running "$1" >/dev/null && signal KILL "$1"; while running "$1" >/dev/null; do sleep 0.05; done; setsid "$0" member "$dir" "$1" ;;
    member) member "$1" ;;
    ctl) ctl "$@" ;;
    *) die "what is $command?" ;;
esac
