# shellcheck shell=bash
# lib.sh - what the test scripts in net/ share. To be sourced.
#
# A test script looks like this:
#
#	. "$(dirname "$0")/../lib.sh"
#	needs socat nginx			what it calls, besides the usual
#	net_begin "$@"				from here on: root of its own namespaces
#	clients_are_counted() { ...; expect_eq CurrConns "$(info CurrConns)" 3; }
#	run clients_are_counted
#	net_end
#
# net_begin starts the script anew in namespaces of its own (net, mount, pid), in which it is root of an empty machine: only
# loopback, a tmpfs of its own on /run, a BPF file system of its own. When the script ends, however it ends, the kernel takes all
# of that away with every process in it, so nothing has to be cleaned up outside and nothing outside was touched.
#
# Each test runs in a subshell with `set -e`, in an empty directory $T, and ends with a line `ok NAME` or
# `FAIL NAME: expected ..., got ...`; whatever it spawned is ended with it. A daemon that died, or does not end cleanly, fails the
# test that started it. The last line of a script is `N passed, N failed`. A skip prints its reason, and is a failure when CI is
# set.
#
# Arguments of each script: [--quick] [--list] [NAME...]: smaller numbers; only names; only tests whose name contains a NAME.
#
# Settings, from the environment:
#	SHUNT_BUILD	where shunt and the tools are	build
#			(of a sanitized build, any complaint fails the test)
#	SHUNT_NBTHREAD	threads of each daemon		the daemon's own choice
#	SHUNT_FLAGS	arguments of each daemon (-db: no supervisor, but where a test asks for one)
#	SHUNT_WRAP	words in front of the daemon	(setarch -R, for one with the thread sanitizer)
#	SHUNT_NET_SEED	of random sessions (each test prints the one it used)
#	SHUNT_NET_KEEP	directory: gets $T of each failed test
#	CI		set: a skip is a failure
#	V=1		show everything that happened in failed tests

set -u
shopt -s lastpipe # config | start_shunt: the latter runs in this shell, and remembers what it started
LC_ALL=C
export LC_ALL

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SCRIPT=$(basename "$0" .sh)
BUILD=${SHUNT_BUILD:-$ROOT/build}

HOME_DIR=/run/shunt-test	    # inside the namespaces
# Copies, so that "make" meanwhile disturbs nothing, and anybody may run them. They have other names, so that nobody's "pkill shunt"
# outside means ours.
BIN=$HOME_DIR/bin
DAEMON=$BIN/balancer
DICE=$BIN/dice	 # shunt-dice: throws dice for the movers
MORTAL=$BIN/mortal # shunt-mortal: its worker dies where SHUNT_MORTAL (tests/tools/mortal.c) says
NEXT=$BIN/next	 # shunt-next: a later version, with another program in the kernel
JUMPY=$BIN/jumpy # shunt-jumpy: its clock is put forward and back by the file SHUNT_CLOCK (tests/tools/jumpy.c)
SCALED=$BIN/scaled # shunt-scaled: chooses as if everything were a hundred times as fast
OLDER=$BIN/older # shunt-older: takes the kernel for one that does not count what is unread; and throws dice
PEER=$BIN/peer	 # exact
CASES=$BIN/cases # edges
CHANGER=$BIN/changer # changing
FLOOD=$BIN/attacker	 # flood
T=$HOME_DIR/t			    # of the running test
COMPLAINTS=$HOME_DIR/complaints	    # of the sanitizers
STATS=$T/stats.sock
PINS=/sys/fs/bpf/shunt
NEEDED=(unshare ip ss socat bpftool awk timeout setpriv nsenter)
QUICK=
LIST=
PATTERNS=()

# ---- before and after ----

needs()
{
	NEEDED+=("$@")
}

net_begin()
{
	local tool missing=()

	for tool in "${NEEDED[@]}"; do
		PATH=$PATH:/usr/sbin:/sbin type -P "$tool" > /dev/null || missing+=("$tool")
	done
	for tool in shunt shunt-dice shunt-scaled shunt-mortal shunt-next shunt-jumpy shunt-older exact edges changing flood; do
		[ -x "$BUILD/$tool" ] || missing+=("$BUILD/$tool (make all tools)")
	done
	[ "$(id -u)" -eq 0 ] || missing+=("root")
	if [ "${#missing[@]}" -gt 0 ]; then
		printf 'FAIL %s: expected these to be there, got none: %s\n' "$SCRIPT" "${missing[*]}"
		echo "0 passed, 1 failed"
		exit 1
	fi
	PATH=$PATH:/usr/sbin:/sbin
	parse_arguments "$@"
	if [ "${SHUNT_NET_INSIDE:-}" != yes ] || [ $$ -ne 1 ]; then
		SHUNT_NET_INSIDE=yes exec unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
	fi
	trap 'exit 130' INT TERM # process 1 of a namespace has no default actions
	prepare_machine || { echo "FAIL $SCRIPT: expected namespaces of its own, got an error above"; echo "0 passed, 1 failed"; exit 1; }
	exec {NAP_FD}<> <(:)
}

parse_arguments()
{
	while [ $# -gt 0 ]; do
		case $1 in
		--quick) QUICK=yes ;;
		--list) LIST=yes ;;
		-*) echo "usage: $0 [--quick] [--list] [NAME...]" >&2; exit 2 ;;
		*) PATTERNS+=("$1") ;;
		esac
		shift
	done
}

prepare_machine()
{
	mount -t tmpfs -o mode=755 tmpfs /run &&
		mkdir -p "$BIN" "$T" /run/netns &&
		mount -t bpf -o mode=700 bpf /sys/fs/bpf &&
		cp "$BUILD/shunt" "$DAEMON" && cp "$BUILD/shunt-dice" "$DICE" && cp "$BUILD/shunt-scaled" "$SCALED" &&
		cp "$BUILD/shunt-mortal" "$MORTAL" && cp "$BUILD/shunt-next" "$NEXT" && cp "$BUILD/shunt-jumpy" "$JUMPY" && cp "$BUILD/shunt-older" "$OLDER" &&
		cp "$BUILD/exact" "$PEER" &&
		cp "$BUILD/edges" "$CASES" &&
		cp "$BUILD/changing" "$CHANGER" &&
		cp "$BUILD/flood" "$FLOOD" &&
		ip link set lo up || return 1
	: > "$HOME_DIR/results"
	listen_to_sanitizers || return 1
	ulimit -n 65536 2> /dev/null || ulimit -n "$(ulimit -Hn)"
	# What the system has for its real network may be slow on loopback. Where it cannot be chosen, it stays as it is.
	{ echo cubic > /proc/sys/net/ipv4/tcp_congestion_control; } 2> /dev/null || :
	{ echo 4096 > /proc/sys/net/core/somaxconn; } 2> /dev/null || :
	{ echo '1024 65535' > /proc/sys/net/ipv4/ip_local_port_range; } 2> /dev/null || :
	# Not the ports of servers: who has left would keep one for a minute.
	{ echo 5140-5141,8080-8099,9001-9099 > /proc/sys/net/ipv4/ip_local_reserved_ports; } 2> /dev/null || :
	{ echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse; } 2> /dev/null || :
}

# A daemon in the background, one that is expected to fail, or to be killed, could not tell by its exit status or stderr: so a
# complaint goes into a file. Little freed memory is kept from being used again (quarantine), or the tests would take it for a leak.
is_sanitized()
{
	grep -qa __asan_init "$BIN/balancer"
}

listen_to_sanitizers()
{
	local log="log_path=$COMPLAINTS/sanitizer"

	mkdir "$COMPLAINTS" && chmod 1777 "$COMPLAINTS" || return 1
	export ASAN_OPTIONS="$log:exitcode=99:handle_abort=1:quarantine_size_mb=1:thread_local_quarantine_size_kb=64"
	# It writes to stderr all the same; but it aborts, and that goes into the file.
	export UBSAN_OPTIONS="$log:halt_on_error=1:abort_on_error=1:print_stacktrace=1"
}

net_end()
{
	local passed failed

	[ -z "$LIST" ] || exit 0
	passed=$(grep -c '^ok ' "$HOME_DIR/results")
	failed=$(grep -c '^FAIL ' "$HOME_DIR/results")
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ] || exit 1
	exit 0
}

# full QUICK FULL: the number for this run.
full()
{
	if [ -n "$QUICK" ]; then echo "$1"; else echo "$2"; fi
}

# ---- one test ----

# report LINE: to the terminal, and into the books.
report()
{
	printf '%s\n' "$1" | tee -a "$HOME_DIR/results"
}

is_selected()
{
	local p

	[ "${#PATTERNS[@]}" -gt 0 ] || return 0
	for p in "${PATTERNS[@]}"; do
		case $1 in *"$p"*) return 0 ;; esac
	done
	return 1
}

# run NAME [COMMAND [ARGUMENT...]]: runs one test; the command is the function NAME unless given.
run()
{
	local name=$1 status began=$SECONDS

	shift
	[ $# -gt 0 ] || set -- "$name"
	is_selected "$name" || return 0
	if [ -n "$LIST" ]; then
		echo "$name"
		return 0
	fi
	find "$T" "$COMPLAINTS" -mindepth 1 -delete
	( set -eE; begin_test; "$@"; finish_test )
	status=$?
	if has_complaints; then
		echo "expected no complaints of the sanitizers, got: $(first_complaint)" > "$T/why"
		status=1
	fi
	if [ "$status" -eq 0 ]; then
		report "ok $name ($((SECONDS - began)) s$(notes))"
	elif [ "$status" -eq 77 ] && [ -z "${CI:-}" ]; then
		report "skip $name: $(cat "$T/why")"
	else
		[ -s "$T/why" ] || echo "expected it to end, got exit status $status" > "$T/why"
		report "FAIL $name: $(head -n 1 "$T/why")"
		show_failure
	fi
}

has_complaints()
{
	[ -n "$(find "$COMPLAINTS" -type f -size +0 -print -quit)" ]
}

first_complaint()
{
	cat "$COMPLAINTS"/* | grep -E -m 1 'ERROR:|runtime error:' | cut -c 1-200
}

begin_test()
{
	declare -gA PID=()
	SHUNTS=()
	rm -rf "$PINS" # of a daemon that was killed in the test before
	trap 'on_error $LINENO "$BASH_COMMAND"' ERR
	trap end_all EXIT
}

on_error()
{
	[ -s "$T/why" ] || echo "expected to get along, got a failed command in line $1: $2" > "$T/why"
}

# The test itself is satisfied: so must be the daemons that it started.
finish_test()
{
	local name

	for name in "${SHUNTS[@]}"; do
		[ -n "${PID[$name]:-}" ] || continue # it was to end
		is_running "$name" || fail "expected the daemon '$name' to live, got it dead: $(tail -n 1 "$T/$name.err")"
		end_shunt "$name" INT 0
	done
}

end_all()
{
	local name

	trap - ERR EXIT
	set +e
	[ ! -s "$T/why" ] || save_state
	for name in "${!PID[@]}"; do
		[ -z "${PID[$name]}" ] || kill_now "$name"
	done
	# What they left behind, workers for example. Of our namespace only: in there, $$ is 1.
	until others_are_gone; do
		[ $$ -ne 1 ] || kill -KILL -1 2> /dev/null
		nap 0.02
	done
	! type -P nft > /dev/null || nft flush ruleset 2> /dev/null # of our own network
	for name in /run/netns/*; do
		[ ! -e "$name" ] || ip netns delete "${name##*/}"
	done
}

others_are_gone()
{
	local file pid state

	for file in /proc/[0-9]*/stat; do
		{ read -r pid _ state _ < "$file"; } 2> /dev/null || continue
		[ "$pid" -eq 1 ] || [ "$pid" -eq "$BASHPID" ] || [ "$state" = Z ] || return 1
	done
	return 0
}

# What one wants to see after a failure.
save_state()
{
	[ -S "$STATS" ] || return 0
	ask "show info" > "$T/show-info.txt" 2> /dev/null
	ask "show sess" > "$T/show-sess.txt" 2> /dev/null
	ss -tinmeO > "$T/ss.txt" 2> /dev/null
	if [ -e "$PINS/flows" ] && [ -s "$T/show-sess.txt" ]; then
		timeout 10 bpftool map dump pinned "$PINS/flows" > "$T/flows.txt" 2> /dev/null
	fi
	return 0
}

show_failure()
{
	local file

	for file in "$T"/*.err "$T"/why "$T"/show-sess.txt; do
		[ -s "$file" ] || continue
		tail -n "$([ -n "${V:-}" ] && echo 200 || echo 5)" "$file" | cut -c 1-400 | sed "s|^|# ${file##*/}: |"
	done
	for file in "$COMPLAINTS"/*; do
		[ ! -s "$file" ] || head -n "$([ -n "${V:-}" ] && echo 200 || echo 30)" "$file" | cut -c 1-400 | sed "s|^|# ${file##*/}: |"
	done
	if [ -n "${SHUNT_NET_KEEP:-}" ]; then
		mkdir -p "$SHUNT_NET_KEEP"
		cp -r "$T" "$SHUNT_NET_KEEP/$SCRIPT-$name"
		echo "# everything is in $SHUNT_NET_KEEP/$SCRIPT-$name"
	fi
}

# fail TEXT ("expected ..., got ..."): ends the test.
fail()
{
	[ -s "$T/why" ] || printf '%s\n' "$*" > "$T/why"
	exit 1
}

# skip REASON: ends the test; under CI it has failed.
skip()
{
	[ -s "$T/why" ] || printf 'skipped: %s\n' "$*" > "$T/why"
	exit 77
}

# note TEXT: appears in the test's line.
note()
{
	printf '%s\n' "$*" >> "$T/notes"
}

notes()
{
	[ ! -s "$T/notes" ] || awk '{ printf "; %s", $0 }' "$T/notes"
}

# expect_eq WHAT GOT WANTED, and the other comparisons of whole numbers (or, eq and ne, of words).
expect_eq() { [ "$2" = "$3" ] || fail "expected $1 = $3, got $2"; }
expect_ne() { [ "$2" != "$3" ] || fail "expected $1 other than $3, got just that"; }
expect_le() { [ "$2" -le "$3" ] || fail "expected $1 <= $3, got $2"; }
expect_lt() { [ "$2" -lt "$3" ] || fail "expected $1 < $3, got $2"; }
expect_ge() { [ "$2" -ge "$3" ] || fail "expected $1 >= $3, got $2"; }
expect_gt() { [ "$2" -gt "$3" ] || fail "expected $1 > $3, got $2"; }

# expect_match WHAT TEXT REGEX
expect_match()
{
	[[ $2 =~ $3 ]] || fail "expected $1 to match '$3', got '$2'"
}

# ---- waiting ----

nap()
{
	read -rt "$1" -u "$NAP_FD" || :
}

# wait_until WHAT SECONDS COMMAND...: until the command succeeds; else the test has failed.
wait_until()
{
	local what=$1 deadline=$((${EPOCHREALTIME/./} + $2 * 1000000)) seconds=$2

	shift 2
	until "$@"; do
		[ "${EPOCHREALTIME/./}" -lt "$deadline" ] || fail "expected $what within $seconds s, got nothing of the kind"
		nap 0.02
	done
}

# equals WANTED COMMAND...: does the command print just that? For wait_until.
equals()
{
	local wanted=$1

	shift
	[ "$("$@" 2> /dev/null)" = "$wanted" ]
}

# at_least WANTED COMMAND...: does it print a number that is not smaller?
at_least()
{
	local wanted=$1 got

	shift
	got=$("$@" 2> /dev/null) || return 1
	[ -n "$got" ] && [ "$got" -ge "$wanted" ]
}

# is_listening PORT [-u]: somebody, at this TCP (UDP) port, here.
is_listening()
{
	ss -Hln "${2:--t}" "sport = :$1" | grep -q .
}

refuses_connections()
{
	! { : <> "/dev/tcp/127.0.0.1/$1"; } 2> /dev/null
}

has_line()
{
	grep -q -- "$2" "$1" 2> /dev/null
}

# ---- processes ----

# spawn NAME COMMAND...: in the background; its output is in $T/NAME.out and $T/NAME.err, its number in ${PID[NAME]}.
spawn()
{
	local name=$1

	shift
	"$@" > "$T/$name.out" 2> "$T/$name.err" &
	PID[$name]=$!
}

is_running()
{
	local state

	# A process that has ended and was not waited for yet is still there, as a zombie.
	read -r _ _ state _ 2> /dev/null < "/proc/${PID[$1]}/stat" && [ "$state" != Z ]
}

has_ended()
{
	! is_running "$1"
}

# join NAME SECONDS [STATUS]: waits for its end and expects the exit status (0).
join()
{
	local name=$1 status=0

	wait_until "$name to end" "$2" has_ended "$name"
	{ wait "${PID[$name]}" || status=$?; } 2> /dev/null # or bash would tell of signals
	PID[$name]=
	[ "$status" = "${3:-0}" ] ||
		fail "expected $name to end with status ${3:-0}, got $status: $(cat "$T/$name.err" "$T/$name.out" | tail -n 3 | tr '\n' ' ')"
}

# A server of ours: exact in one of the modes that listen.
spawn_server()
{
	local name=$1

	shift
	spawn "$name" "$PEER" "$@"
	wait_until "$name to listen" 10 has_line "$T/$name.out" '^ready'
}

# kill_now NAME...: with SIGKILL, and waits for it.
kill_now()
{
	local name pids=()

	for name; do
		pids+=("${PID[$name]}")
		PID[$name]=
	done
	{
		kill -KILL "${pids[@]}"
		wait "${pids[@]}" || :
	} 2> /dev/null # bash would tell of each
}

# stop_server NAME: ends it, and expects that it was content.
stop_server()
{
	kill -TERM "${PID[$1]}"
	join "$1" 20
}

# field NAME FILE: the number behind NAME= in the last line that has one.
field()
{
	grep -o "\b$1=[^ ]*" "$2" | tail -n 1 | cut -d = -f 2
}

# client NAME SECONDS MODE...: a client of ours, to its end; all must be well.
client()
{
	local name=$1 seconds=$2

	shift 2
	spawn "$name" "$PEER" "$@"
	join "$name" "$seconds"
}

# ---- the balancer ----

# Both directions belong to the kernel at once, whatever they do.
# shellcheck disable=SC2034 # tests use it
KERNEL="option splice-request;option splice-response"

# config [GLOBAL-LINES [LISTEN-LINES]]: prints a configuration: clients at 127.0.0.1:8080, one server at 127.0.0.1:9001, and what
# is given (";" separates lines).
config()
{
	printf 'global\n  stats socket %s level admin\n%s\n' "$STATS" "$(lines "${1:-}")"
	printf 'defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n'
	printf 'listen l\n  bind 127.0.0.1:8080\n  server s1 127.0.0.1:9001\n%s\n' "$(lines "${2:-}")"
}

# two_listens PORT GLOBAL LISTEN: the same with a second way, from port 8081 to a server at that port.
two_listens()
{
	config "$2" "$3"
	printf 'listen l2\n  bind 127.0.0.1:8081\n  server s1 127.0.0.1:%s\n' "$1"
}

lines()
{
	tr ';' '\n' <<< "$1" | sed 's/^ */  /'
}

# spawn_shunt NAME [ARGUMENT...]: starts it with the configuration from standard input. RUN_AS (words) is put in front.
spawn_shunt()
{
	local name=$1

	shift
	cat > "$T/$name.cfg"
	# At its end, so that the numbers of the lines stay what they are.
	[ -z "${SHUNT_NBTHREAD:-}" ] || has_line "$T/$name.cfg" nbthread ||
		printf 'global\n  nbthread %s\n' "$SHUNT_NBTHREAD" >> "$T/$name.cfg"
	# shellcheck disable=SC2086 # words
	spawn "$name" ${RUN_AS:-} ${SHUNT_WRAP:-} "$DAEMON" -f "$T/$name.cfg" ${SHUNT_FLAGS:-} "$@"
}

# start_shunt [NAME [ARGUMENT...]]: the same (NAME: shunt), and waits until it is ready.
start_shunt()
{
	local name=${1:-shunt}

	[ $# -eq 0 ] || shift
	spawn_shunt "$name" "$@"
	SHUNTS+=("$name")
	wait_until "the daemon to be ready" 20 is_ready_or_dead "$name"
	is_running "$name" || fail "expected the daemon to start, got: $(tail -n 1 "$T/$name.err")"
}

is_ready_or_dead()
{
	has_line "$T/$1.err" ' : ready: ' || has_ended "$1"
}

# refuse_start STATUS [ARGUMENT...]: with this configuration (from standard input) the daemon must not start; what it says is then
# in $T/refused.err.
refuse_start()
{
	local status=$1

	shift
	spawn_shunt refused "$@"
	join refused 20 "$status"
	[ -s "$T/refused.err" ] || fail "expected a reason why the daemon does not start, got silence"
}

# end_shunt NAME SIGNAL STATUS: ends a daemon; it must not take longer than 10 s.
end_shunt()
{
	kill "-$2" "${PID[$1]}"
	join "$1" 10 "$3"
}

# ask COMMAND: prints the answer of the stats socket.
ask()
{
	printf '%s\n' "$*" | socat -T 10 -t 10 - "UNIX-CONNECT:$STATS"
}

# info NAME: a line of `show info`.
info()
{
	ask "show info" | sed -n "s/^$1: //p"
}

# cell PROXY SERVER COLUMN: of `show stat`.
cell()
{
	ask "show stat" | awk -F , -v px="$1" -v sv="$2" -v column="$3" '
		NR == 1 { sub(/^# /, ""); for (i = 1; i <= NF; i++) if ($i == column) at = i }
		$1 == px && $2 == sv { print $at }'
}

# How many the daemon has.
descriptors()
{
	local all=("/proc/${PID[shunt]}/fd/"*)

	echo "${#all[@]}"
}

# worker NAME: the process that does the work: a daemon's worker, or the process itself where there is none.
worker()
{
	pgrep -P "${PID[$1]}" || echo "${PID[$1]}"
}

# has_another_worker PID: is there one, and is it not that one?
has_another_worker()
{
	local now

	now=$(pgrep -P "${PID[shunt]}") && [ "$now" != "$1" ]
}

# kill_worker: with SIGKILL; returns when there is another one.
kill_worker()
{
	local old

	old=$(worker shunt)
	kill -KILL "$old"
	wait_until "another worker" 10 has_another_worker "$old"
}

# memory NAME FIELD (VmRSS, VmHWM): in kB.
memory()
{
	awk -v name="$2:" '$1 == name { print $2 }' "/proc/$(worker "$1")/status"
}

# cpu_ms NAME: what the process has spent so far.
cpu_ms()
{
	awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print int(($12 + $13) * 1000 / hz) }' "/proc/$(worker "$1")/stat"
}

# Nothing of any session is left: no session, slot, map entry or descriptor beyond what DESCRIPTORS says.
expect_no_leftovers()
{
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	wait_until "SlotsUsed 0" 10 equals 0 info SlotsUsed
	wait_until "$1 descriptors (there are $(descriptors))" 10 equals "$1" descriptors
	if [ -e "$PINS/slots" ]; then
		expect_eq "the map of slots" "$(bpftool -j map dump pinned "$PINS/slots")" "[]"
	fi
}

# ---- upgrades ----

# From here on the daemon of the test is a file of its own, which others are put in the place of.
install_daemon()
{
	cp "$DAEMON" "$T/daemon"
	DAEMON=$T/daemon
}

# install_next FILE: as a package's upgrade does it, in one step.
install_next()
{
	cp "$1" "$T/daemon.new"
	chmod +x "$T/daemon.new"
	mv "$T/daemon.new" "$T/daemon"
}

# install_script LINE...: a program that is no balancer.
install_script()
{
	printf '%s\n' '#!/bin/bash' "$@" > "$T/script"
	install_next "$T/script"
}

times_said()
{
	grep -c -- "$1" "$T/shunt.err" || :
}

# upgrade: sends the signal; returns when the new program's worker serves.
upgrade()
{
	local before

	before=$(times_said "sessions taken over")
	kill -USR2 "${PID[shunt]}"
	wait_until "another program" 20 at_least $((before + 1)) times_said "sessions taken over"
	wait_until "its supervisor alone" 5 equals 1 children
	wait_until "its answer" 5 at_least 0 info CurrConns
}

children()
{
	pgrep -c -P "${PID[shunt]}"
}

# Who goes on with the old program is nobody's child of ours.
end_guardian()
{
	kill -INT "${PID[shunt]}"
	wait_until "its end" 10 has_ended shunt
	PID[shunt]=
}

# ---- memory of the machine ----

# machine_memory FIELD...: of /proc/meminfo, in kB.
machine_memory()
{
	awk -v name="$1:" '$1 == name { print $2 }' /proc/meminfo
}

# Watches until it is killed: the lowest MemAvailable and the most TCP memory (in kB) seen, in $T/memory.min and $T/tcp.max.
watch_memory()
{
	local min=999999999999 max=0 now page

	trap - ERR # who is killed has not failed
	page=$(getconf PAGESIZE)
	while :; do
		now=$(machine_memory MemAvailable)
		[ "$now" -ge "$min" ] || { min=$now; echo "$min" > "$T/memory.new"; mv "$T/memory.new" "$T/memory.min"; }
		now=$(awk -v page="$page" '$1 == "TCP:" { print int($NF * page / 1024) }' /proc/net/sockstat)
		[ "$now" -le "$max" ] || { max=$now; echo "$max" > "$T/tcp.new"; mv "$T/tcp.new" "$T/tcp.max"; }
		nap 0.05
	done
}

# ---- a network of three hosts ----

# hosts: makes the network namespaces $CLIENT, $BALANCER and $SERVER, with a wire between neighbours:
#
#	client 10.1.0.2 ── 10.1.0.1 balancer 10.2.0.1 ── 10.2.0.2 server
#	       fd01::2  ── fd01::1           fd02::1  ── fd02::2
hosts()
{
	local tag=$RANDOM host

	CLIENT=client-$tag BALANCER=balancer-$tag SERVER=server-$tag
	for host in "$CLIENT" "$BALANCER" "$SERVER"; do
		ip netns add "$host"
		ip -n "$host" link set lo up
		{ on "$host" sh -c 'echo cubic > /proc/sys/net/ipv4/tcp_congestion_control'; } 2> /dev/null || :
	done
	wire "$CLIENT" "$BALANCER" 1
	wire "$SERVER" "$BALANCER" 2
}

wire()
{
	ip -n "$1" link add eth0 type veth peer name "eth$3" netns "$2"
	ip -n "$1" addr add "10.$3.0.2/24" dev eth0
	ip -n "$2" addr add "10.$3.0.1/24" dev "eth$3"
	ip -n "$1" addr add "fd0$3::2/64" dev eth0 nodad
	ip -n "$2" addr add "fd0$3::1/64" dev "eth$3" nodad
	ip -n "$1" link set eth0 up
	ip -n "$2" link set "eth$3" up
	ip -n "$1" route add default via "10.$3.0.1"
}

# on HOST COMMAND...: there. (Not `ip netns exec`: that would hide our BPF file system.) For spawn as well.
on()
{
	local host=$1

	shift
	nsenter "--net=/run/netns/$host" "$@"
}
