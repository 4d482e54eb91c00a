#!/bin/bash
# memcheck.sh - the daemon under valgrind, through the kernel and through userspace: random sessions, every edge case, and a drain. It
# must use no memory that is not its own, and leave neither memory nor a descriptor behind. valgrind opens files and makes system calls of
# its own, so they are not restricted; and it knows no process that shares its descriptors, so there is no supervisor. (Not one of
# "make check-net": this is "make check-memcheck".)

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
needs valgrind
net_begin "$@"

# All kinds of leaks, what is "still reachable" too: what the daemon has made, it takes apart.
LOG=$T/valgrind.err # shown after a failure
MEMCHECK="valgrind --error-exitcode=99 --leak-check=full --show-leak-kinds=all --errors-for-leak-kinds=all --track-fds=yes
	--suppressions=$ROOT/scripts/net/memcheck.supp --log-file=$LOG"

# What was not closed, but for what the daemon was born with.
open_descriptors()
{
	awk '/Open .*(descriptor|socket)/ { what = $0; getline; if (!/inherited from parent/) print what }' "$LOG"
}

# under_valgrind MOVER GLOBAL LISTEN: MOVER (Kernel, User) is who is to move the bytes.
under_valgrind()
{
	local mover=$1 before

	config "maxconn 200;noseccomp;$2" "$3;retries 0;option tcplog;log stdout format raw local0" | RUN_AS=$MEMCHECK start_shunt shunt -db
	before=$(descriptors)
	spawn_server serve serve --listen 127.0.0.1:9001
	client drive 60 drive --connect 127.0.0.1:8080 --sessions "$(full 60 200)" --concurrency 20 --max-bytes 256k \
		--slow 10 --reset 10 --delays 10 --seed "${SHUNT_NET_SEED:-$RANDOM}" --timeout 30
	stop_server serve
	expect_gt "bytes that the $mover path moved" "$(info "BytesIn$mover")" 0
	spawn edges "$CASES" --front 127.0.0.1:8080 --back 127.0.0.1:9001 --quick
	wait_until "edges to end" 60 has_ended edges
	expect_match "the last line of edges" "$(grep -v '^ok' "$T/edges.out" | paste -s -d ' ')" "^[0-9]+ passed, 0 failed"
	for question in "show info" "show stat" "show sess" "show servers state" "show nothing"; do
		ask "$question" > /dev/null
	done
	expect_no_leftovers "$before"

	spawn_server source source --listen 127.0.0.1:9001 --bytes 4m
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 4m --rate 4m
	wait_until "half a MB on the way" 10 at_least $((512 * 1024)) info TotalBytesOut
	kill -TERM "${PID[shunt]}"
	join fetch 20
	wait_until "the end of the daemon" 20 has_ended shunt
	stop_server source
	expect_match "valgrind's opinion" "$(grep 'ERROR SUMMARY' "$LOG")" "ERROR SUMMARY: 0 errors"
	expect_eq "descriptors that are left" "$(open_descriptors)" ""
	join shunt 1 0
}

run the_kernel_path_under_valgrind under_valgrind Kernel "splice require" "$KERNEL"
run the_userspace_path_under_valgrind under_valgrind User "" "no option splice-auto"
net_end
