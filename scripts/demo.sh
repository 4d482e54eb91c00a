#!/bin/bash
#
# demo.sh - shunt at work, on a fresh Debian 12 too: installs what is missing, builds, and shows it between real programs
#
#	sudo scripts/demo.sh
#
# A client (curl), the balancer and three servers (nginx) get a network namespace each, with wires (veth) between them. What is
# shown is checked: the last line is "demo: all good", and the exit status 0, only if all of it is true.
#
# All of it happens in namespaces of its own (mounts, processes, networks), which the kernel takes away at the end, however the
# script ends. So nothing has to be cleaned up, a shunt or an nginx that runs on this machine is not in the way, and /sys/fs/bpf
# need not be mounted. What stays: the packages that were installed, and build/. Meanwhile: 1.2 GB in a new folder of $TMPDIR
# (/var/tmp).

set -eEuo pipefail
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SHUNT=$ROOT/build/shunt
FILE_SIZE=$((1024 * 1024 * 1024))
FILE_RATE=$((100 * 1024 * 1024)) # bytes per second: about a link of 1 Gbit/s
SLOW_SIZE=$((64 * 1024 * 1024))
SLOW_RATE=$((8 * 1024 * 1024))

# ---- telling ----

title()
{
	printf '\n== %s\n\n' "$*"
}

say()
{
	printf '   %s\n' "$@"
}

# quote: what programs wrote.
quote()
{
	sed 's/^/   | /'
}

fail()
{
	printf '\ndemo: FAILED: %s\n' "$*"
	last_words
	exit 1
}

on_error()
{
	printf '\ndemo: FAILED in line %s: %s\n' "$1" "$2"
	last_words
}

last_words()
{
	[ -s "${T:-}/shunt.err" ] || return 0
	printf 'The last that the balancer said:\n'
	tail -n 5 "$T/shunt.err" | quote
}

trap 'on_error $LINENO "$BASH_COMMAND"' ERR

# megabytes BYTES
megabytes()
{
	echo "$(($1 / 1024 / 1024)) MB"
}

# ---- outside: what is needed ----

# Prints the Debian packages that are missing.
missing_packages()
{
	local probe

	for probe in make:make gcc:gcc clang:clang bpftool:bpftool pkg-config:pkg-config ip:iproute2 curl:curl nginx:nginx-light \
		socat:socat unshare:util-linux mount:mount; do
		type -P "${probe%:*}" > /dev/null || echo "${probe#*:}"
	done
	for probe in stdio.h:libc6-dev libelf.h:libelf-dev zlib.h:zlib1g-dev bpf/libbpf.h:libbpf-dev seccomp.h:libseccomp-dev; do
		[ -e "/usr/include/${probe%:*}" ] || echo "${probe#*:}"
	done
}

# Services of what is installed are not started, now or later: it is the programs that are wanted.
install_packages()
{
	local policy=/usr/sbin/policy-rc.d had_nginx=yes made_policy='' status=0

	[ $# -gt 0 ] || return 0
	type -P apt-get > /dev/null || fail "these Debian packages are missing, and there is no apt-get: $*"
	say "installing: $*"
	type -P nginx > /dev/null || had_nginx=
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' > "$policy"
		chmod 755 "$policy"
		made_policy=yes
	fi
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
		> "$T/apt.log" 2>&1 || status=$?
	[ -z "$made_policy" ] || rm -f "$policy"
	if [ -z "$had_nginx" ] && type -P nginx > /dev/null; then
		systemctl disable nginx.service > /dev/null 2>&1 ||
			DPKG_MAINTSCRIPT_PACKAGE=nginx-common deb-systemd-helper disable nginx.service > /dev/null 2>&1 || :
		update-rc.d nginx disable > /dev/null 2>&1 || :
	fi
	if [ "$status" -ne 0 ]; then
		tail -n 5 "$T/apt.log" | quote
		fail "apt-get could not install the packages"
	fi
}

# As the owner of the source, so that build/ is not root's.
build()
{
	local owner as=()

	owner=$(stat -c %U "$ROOT")
	if [ "$owner" != root ] && [ "$owner" != UNKNOWN ] && type -P runuser > /dev/null &&
		[ "$(stat -c %U "$ROOT/build" 2> /dev/null || echo "$owner")" = "$owner" ]; then
		as=(runuser -u "$owner" --)
	fi
	if ! "${as[@]}" make -C "$ROOT" -j"$(nproc)" all > "$T/make.log" 2>&1; then
		tail -n 20 "$T/make.log" | quote
		fail "make could not build the daemon"
	fi
}

outside()
{
	local packages status=0

	[ "$(id -u)" -eq 0 ] || fail "needs root, for BPF and network namespaces: sudo $0"
	T=$(mktemp -d "${TMPDIR:-/var/tmp}/shunt-demo.XXXXXX")
	trap 'rm -rf "$T"' EXIT
	trap 'exit 130' INT TERM
	chmod 755 "$T"

	title "1. Tools and build"
	packages=$(missing_packages)
	# shellcheck disable=SC2086 # words
	install_packages $packages
	build
	"$SHUNT" -vv | quote
	[ "$(df --output=avail -B 1 "$T" | tail -n 1)" -gt $((FILE_SIZE + 200 * 1024 * 1024)) ] ||
		fail "$T has no room for 1.2 GB: set TMPDIR to a folder that has"

	SHUNT_DEMO_INSIDE=$T unshare --mount --net --pid --fork --kill-child --mount-proc "$ROOT/scripts/demo.sh" || status=$?
	exit "$status"
}

# ---- inside: hosts, wires, programs ----

TAG=$RANDOM
CLIENT=client-$TAG BALANCER=balancer-$TAG
STATS=/run/shunt-demo.sock
PINS=/sys/fs/bpf/shunt

# on HOST COMMAND...: there.
on()
{
	local host=$1

	shift
	nsenter "--net=/run/netns/$host" "$@"
}

# wait_for WHAT SECONDS COMMAND...: until the command succeeds.
wait_for()
{
	local what=$1 deadline=$((${EPOCHREALTIME/./} + $2 * 1000000)) seconds=$2

	shift 2
	until "$@"; do
		[ "${EPOCHREALTIME/./}" -lt "$deadline" ] || fail "waited $seconds s in vain: $what"
		sleep 0.05
	done
}

is_gone()
{
	local state

	! read -r _ _ state _ 2> /dev/null < "/proc/$1/stat" || [ "$state" = Z ]
}

# State of a process, as ps has it: T is stopped.
state_of()
{
	sed 's/.*) //; s/ .*//' "/proc/$1/stat"
}

is_in_state()
{
	[ "$(state_of "$2")" = "$1" ]
}

# wire HOST NETWORK: 10.0.NETWORK.2 there, 10.0.NETWORK.1 at the balancer.
wire()
{
	ip netns add "$1"
	ip -n "$1" link set lo up
	ip -n "$1" link add eth0 type veth peer name "eth$2" netns "$BALANCER"
	ip -n "$1" addr add "10.0.$2.2/24" dev eth0
	ip -n "$BALANCER" addr add "10.0.$2.1/24" dev "eth$2"
	ip -n "$1" link set eth0 up
	ip -n "$BALANCER" link set "eth$2" up
}

# start_server NUMBER: an nginx that says its name, and has a file: at the rate of a link, as fast as it can, and slowly.
start_server()
{
	local name=s$1 dir=$T/s$1

	mkdir "$dir"
	cat > "$dir/nginx.conf" <<-END
		daemon off;
		user root;
		worker_processes 1;
		pid $dir/pid;
		error_log $dir/error.log;
		events {}
		http {
			access_log off;
			client_body_temp_path $dir/body;
			proxy_temp_path $dir/proxy;
			fastcgi_temp_path $dir/fastcgi;
			uwsgi_temp_path $dir/uwsgi;
			scgi_temp_path $dir/scgi;
			sendfile on;
			server {
				listen 10.0.$1.2:80;
				location = / { return 200 "$name\n"; }
				location = /file { alias $T/file; limit_rate $FILE_RATE; sendfile_max_chunk 256k; }
				location = /fast { alias $T/file; }
				location = /slow { alias $T/slow; limit_rate $SLOW_RATE; sendfile_max_chunk 64k; }
			}
		}
	END
	on "$name-$TAG" nginx -e "$dir/error.log" -p "$dir" -c "$dir/nginx.conf" > "$dir/out" 2>&1 &
	wait_for "nginx $name answers" 10 on "$BALANCER" curl -s -o /dev/null "http://10.0.$1.2/"
}

write_config()
{
	cat > "$T/shunt.cfg" <<-END
		global
		    maxconn 100
		    splice require                       # the kernel path or no start
		    stats socket $STATS level admin
		    log stdout format raw local0

		defaults
		    log global
		    option tcplog
		    timeout connect 5s
		    timeout client  1m
		    timeout server  1m

		listen web
		    bind 10.0.0.1:80
		    option splice-request                # both directions belong to the kernel from the first byte, so that there
		    option splice-response               # is something to see; shunt's own choice would come a little later
		    server s1 10.0.1.2:80
		    server s2 10.0.2.2:80
		    server s3 10.0.3.2:80

		listen weighted
		    bind 10.0.0.1:81
		    server s1 10.0.1.2:80 weight 3
		    server s2 10.0.2.2:80 weight 2
		    server s3 10.0.3.2:80 weight 1
	END
}

is_ready_or_gone()
{
	grep -q ' : ready: ' "$T/shunt.err" || is_gone "$DAEMON"
}

# start_balancer [ARGUMENT...]
start_balancer()
{
	: > "$T/shunt.err" # of the one before
	# Not with on(): $! would be a shell in between.
	nsenter "--net=/run/netns/$BALANCER" "$SHUNT" "$@" -f "$T/shunt.cfg" >> "$T/shunt.log" 2>> "$T/shunt.err" &
	DAEMON=$!
	wait_for "the balancer is ready" 10 is_ready_or_gone
	quote < "$T/shunt.err"
	! is_gone "$DAEMON" || fail "the balancer did not start (the reason is above)"
}

# ask COMMAND: the answer of the stats socket.
ask()
{
	printf '%s\n' "$*" | socat -t 10 - "UNIX-CONNECT:$STATS"
}

# info NAME: a line of `show info`.
info()
{
	ask "show info" | sed -n "s/^$1: //p"
}

hash_of()
{
	sha256sum < "$1" | cut -d ' ' -f 1
}

get()
{
	on "$CLIENT" curl -sS --max-time 60 "$@"
}

# even PORT WANTED: 30 requests; the counts must be those ("S1 S2 S3").
even()
{
	local i got

	for ((i = 0; i < 30; i++)); do
		get "http://10.0.0.1:$1/"
	done > "$T/answers"
	sort "$T/answers" | uniq -c | awk '{ print $2 " answered " $1 " times" }' | quote
	got=$(sort "$T/answers" | uniq -c | awk '{ print $1 }' | paste -s -d ' ')
	[ "$got" = "$2" ] || fail "expected the counts $2, got $got"
}

start_slow_download()
{
	nsenter "--net=/run/netns/$CLIENT" curl -sS --max-time 60 -o "$T/slow.got" http://10.0.0.1/slow 2> "$T/slow.err" &
	DOWNLOAD=$!
	wait_for "4 MB of the slow download" 20 has_grown_to $((4 * 1024 * 1024))
}

has_grown_to()
{
	[ "$(size_of_download)" -ge "$1" ]
}

size_of_download()
{
	stat -c %s "$T/slow.got" 2> /dev/null || echo 0
}

# ---- inside: what is shown ----

show_hosts()
{
	local i

	title "2. Five hosts (network namespaces) and their wires"
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir /run/netns
	mount -t bpf -o mode=700 bpf /sys/fs/bpf || fail "this kernel has no BPF file system"
	ip netns add "$BALANCER"
	ip -n "$BALANCER" link set lo up
	wire "$CLIENT" 0
	for i in 1 2 3; do
		wire "s$i-$TAG" "$i"
	done
	ip netns list | sed 's/ .*//' | sort | tr '\n' ' ' | sed 's/ $/\n/' | quote
	say "" \
		"client 10.0.0.2 ──── 10.0.0.1 balancer 10.0.1.1 ──── 10.0.1.2 s1 (nginx)" \
		"                                       10.0.2.1 ──── 10.0.2.2 s2 (nginx)" \
		"                                       10.0.3.1 ──── 10.0.3.2 s3 (nginx)" ""
	say "Each server says its name at /, and has a file of 1 GB of random bytes at /file."
	HASH=$(head -c "$FILE_SIZE" /dev/urandom | tee "$T/file" | sha256sum | cut -d ' ' -f 1)
	head -c "$SLOW_SIZE" "$T/file" > "$T/slow"
	for i in 1 2 3; do
		start_server "$i"
	done
}

show_start()
{
	title "3. The balancer"
	write_config
	quote < "$T/shunt.cfg"
	say "" "\$ shunt -c -f shunt.cfg"
	"$SHUNT" -c -f "$T/shunt.cfg" | quote
	say "\$ shunt -f shunt.cfg"
	start_balancer
	say "" "Before it accepted anybody, it tried the kernel path with a private session: see \"qualified\"."
}

show_round_robin()
{
	title "4. Round robin"
	say "30 times: curl http://10.0.0.1/"
	even 80 "10 10 10"
	say "" "30 times: curl http://10.0.0.1:81/ (weights 3, 2, 1)"
	even 81 "15 10 5"
}

# download PATH: of the 1 GB; sets kernel and user to the bytes that each of the two moved to the client.
download()
{
	local got bytes

	kernel=$(info BytesOutKernel) user=$(info BytesOutUser)
	say "\$ curl http://10.0.0.1$1 | sha256sum"
	got=$(get -w '%{stderr}%{size_download}' "http://10.0.0.1$1" 2> "$T/size" | sha256sum | cut -d ' ' -f 1)
	bytes=$(cat "$T/size")
	wait_for "the session ends" 5 has_sessions 0
	kernel=$(($(info BytesOutKernel) - kernel)) user=$(($(info BytesOutUser) - user))
	say "the server's file: $HASH" "the client got:    $got"
	[ "$got" = "$HASH" ] || fail "the client got other bytes than the server has ($bytes of $FILE_SIZE)"
	[ $((kernel + user)) -ge "$FILE_SIZE" ] || fail "fewer bytes were counted than arrived"
	say "$bytes bytes arrived, the right ones. Of these bytes and the HTTP headers" \
		"the kernel moved $kernel ($((kernel * 100 / (kernel + user))) %), the daemon $user (from \"show info\", before and after)."
}

show_downloads()
{
	local kernel user

	title "5. Downloads of 1 GB"
	say "The server sends $(megabytes "$FILE_RATE") per second, as if through a link of 1 Gbit/s:" ""
	download /file
	[ "$kernel" -gt 0 ] || fail "the kernel moved none of them"
	say "" "The server sends as fast as it can, which is faster than curl and sha256sum read:" ""
	download /fast
	say "" "A redirected byte is acknowledged to its sender at once. So whenever more than tune.splice.limit (2 MB) waits" \
		"for the reader, the daemon moves the bytes for a while, and TCP makes the sender wait. Memory stays bounded," \
		"and the bytes are the same."
}

has_sessions()
{
	! is_gone "$DAEMON" || fail "the balancer is gone"
	[ "$(info CurrConns)" -eq "$1" ]
}

show_live_flow()
{
	local index

	title "6. A live flow, seen from the kernel"
	say "In the background: curl http://10.0.0.1/slow ($(megabytes $SLOW_SIZE), sent at $(megabytes $SLOW_RATE)/s)"
	start_slow_download
	say "" "\$ echo 'show sess' | socat - $STATS"
	ask "show sess" | grep . | quote
	say "" "\$ bpftool map dump pinned $PINS/slots      (socket cookie -> index: even = client, odd = server)"
	bpftool map dump pinned "$PINS/slots" | tee "$T/slots" | quote
	index=$(grep -o '"value": [0-9]*[13579]\b' "$T/slots" | head -n 1 | grep -o '[0-9]*$')
	[ -n "$index" ] || fail "the session is not in the map of slots"
	say "" "\$ bpftool map lookup pinned $PINS/flows key $index 0 0 0      (what is read from the server; mode 1: kernel)"
	bpftool map lookup pinned "$PINS/flows" key "$index" 0 0 0 | quote
}

# are_in_state STATE PID...
are_in_state()
{
	local state=$1 pid

	shift
	for pid in "$@"; do
		is_in_state "$state" "$pid" || return 1
	done
}

show_stop()
{
	local before after worker

	title "7. The daemon is stopped, the download goes on"
	worker=$(pgrep -P "$DAEMON")
	kill -STOP "$DAEMON" "$worker"
	wait_for "the daemon is stopped" 5 are_in_state T "$DAEMON" "$worker"
	before=$(size_of_download)
	say "\$ kill -STOP $DAEMON $worker      (supervisor and worker; their states now: $(state_of "$DAEMON") $(state_of "$worker"), they run no instruction any more)"
	sleep 3
	after=$(size_of_download)
	say "The client had $(megabytes "$before"); three seconds later it has $(megabytes "$after")."
	[ "$after" -gt "$before" ] || fail "the download stood still"
	wait_for "the download ends" 30 is_gone "$DOWNLOAD"
	wait "$DOWNLOAD" || fail "curl failed: $(cat "$T/slow.err")"
	[ "$(hash_of "$T/slow.got")" = "$(hash_of "$T/slow")" ] || fail "the client got other bytes than the server has"
	say "Now it has all $(megabytes "$(size_of_download)"), with the server's hash, and the daemon is still stopped ($(state_of "$worker"))."
	kill -CONT "$DAEMON" "$worker"
	wait_for "the session ends" 5 has_sessions 0
	say "" "\$ kill -CONT $DAEMON $worker" "Now it sees that both ends have closed, and writes the session's log line:"
	tail -n 1 "$T/shunt.log" | quote
	say "client [accepted] frontend backend/server wait/connect/total ms, bytes to the client, how it ended (-- = in" \
		"order), sessions process/frontend/backend/server/retries, queues"
	rm "$T/slow.got"
}

# has_taken_over TIMES: so many workers have taken sessions over.
has_taken_over()
{
	! is_gone "$DAEMON" || fail "the balancer is gone"
	[ "$(grep -c 'sessions taken over' "$T/shunt.err")" -ge "$1" ]
}

show_survival()
{
	local said

	title "8. The worker is killed, the program replaced, and the download goes on"
	said=$(wc -l < "$T/shunt.err")
	start_slow_download
	say "" "\$ kill -KILL $(pgrep -P "$DAEMON")      (the worker, in the middle of the next download)"
	pkill -KILL -P "$DAEMON"
	wait_for "another worker" 10 has_taken_over 1
	say "\$ kill -USR2 $DAEMON      (the supervisor: another version of the program would take its place now; here it is the same)"
	kill -USR2 "$DAEMON"
	wait_for "the upgrade" 20 has_taken_over 2
	tail -n "+$((said + 1))" "$T/shunt.err" | quote
	wait_for "the download ends" 30 is_gone "$DOWNLOAD"
	wait "$DOWNLOAD" || fail "curl failed: $(cat "$T/slow.err")"
	[ "$(hash_of "$T/slow.got")" = "$(hash_of "$T/slow")" ] || fail "the client got other bytes than the server has"
	say "" "The client has all $(megabytes "$(size_of_download)"), with the server's hash; the process is still $DAEMON."
	rm "$T/slow.got"
}

show_kill()
{
	local status=0

	title "9. The supervisor is killed: nobody takes half a file for a whole one"
	start_slow_download
	{ kill -KILL "$DAEMON"; wait "$DAEMON" || :; } 2> /dev/null
	say "\$ kill -KILL $DAEMON      (the supervisor, in the middle of the next download; its worker dies with it)"
	wait "$DOWNLOAD" || status=$?
	quote < "$T/slow.err"
	[ "$status" -eq 56 ] || fail "expected curl to see a reset (its exit status 56), got $status"
	say "" "A new one takes over what the dead one left in $PINS:"
	start_balancer
	[ "$(get http://10.0.0.1/)" = s1 ] || fail "the new daemon did not serve"
	say "" "\$ kill -TERM $DAEMON"
	kill -TERM "$DAEMON"
	wait "$DAEMON" || fail "the balancer ended with status $?"
	[ ! -e "$PINS" ] || fail "$PINS was left behind"
	tail -n 2 "$T/shunt.err" | quote
}

inside()
{
	T=$SHUNT_DEMO_INSIDE
	trap 'exit 130' INT TERM # process 1 of a namespace has no default actions
	cd "$T"
	show_hosts
	show_start
	show_round_robin
	show_downloads
	show_live_flow
	show_stop
	show_survival
	show_kill
	printf '\ndemo: all good\n'
}

if [ -n "${SHUNT_DEMO_INSIDE:-}" ] && [ $$ -eq 1 ]; then
	inside
else
	outside
fi
