#!/bin/bash
# kernel-guest.sh - the whole daemon in the guest of kernels.sh, over its loopback: does it choose
# the kernel path there, and is every byte right? Smaller numbers than net/test-*.sh, and long
# deadlines, since an emulated machine is slow; a test ends when its work does. (It runs on any
# machine, as root: lib.sh gives it namespaces of its own.)

# shellcheck disable=SC2119,SC2317 # run calls functions, without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
net_begin "$@"

# Seconds for any single step: a broken kernel stands still for ever, a slow machine does not.
PATIENCE=90
NOBODY="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all"

# start GLOBAL [LISTEN]: the daemon, which must say that the kernel moves the bytes.
start()
{
	rm -f "$T/shunt.err" # of the one before: it says that it is ready
	config "splice require;$1" "$KERNEL;${2:-}" | start_shunt
	expect_match "what it says about the path" "$(grep ' path: ' "$T/shunt.err")" \
		"kernel path: the kernel qualified in [0-9]+ ms"
	expect_eq KernelPath "$(info KernelPath)" yes
	DESCRIPTORS=$(descriptors)
	PROGRAM=$(bpftool -j prog show pinned "$PINS/verdict" |
		grep -o '"id":[0-9]*' | cut -d : -f 2)
	expect_match "the number of the pinned program" "$PROGRAM" "^[0-9]+$"
}

program_is_gone()
{
	! bpftool prog show id "$PROGRAM" > /dev/null 2>&1
}

# stop: nothing of any session is left; then TERM ends the daemon, and nothing of it is left.
stop()
{
	expect_no_leftovers "$DESCRIPTORS"
	expect_eq "sessions that the kernel path refused" \
		"$(sum_of '^Fallback_' '^Fallback_half_closed')" 0
	kill -TERM "${PID[shunt]}"
	join shunt "$PATIENCE" 0
	[ ! -e "$STATS" ] || fail "expected no stats socket afterwards, got one"
	[ ! -e "$PINS" ] || fail "expected no pins afterwards, got some"
	wait_until "the kernel to forget the program" "$PATIENCE" program_is_gone
}

# sum_of PATTERN [EXCEPT]: of the lines of `show info` that match.
sum_of()
{
	ask "show info" | awk -F ': ' -v pattern="$1" -v except="${2:-^$}" \
		'$1 ~ pattern && $1 !~ except { s += $2 } END { print s + 0 }'
}

# of_flows FIELD: what the program counts there, over the live sessions; asks the kernel, not the
# daemon.
of_flows()
{
	bpftool -j map dump pinned "$PINS/flows" | grep -o "\"$1\":[0-9]*" |
		awk -F : '{ s += $2 } END { print s + 0 }'
}

the_daemon_chooses_the_kernel_path_and_leaves_nothing()
{
	start ""
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping "$PATIENCE" ping --connect 127.0.0.1:8080 --connections 4 --count 50 \
		--size 1000 --timeout "$PATIENCE"
	wait_until "CurrConns 0" "$PATIENCE" equals 0 info CurrConns
	stop_server echo
	expect_eq SessionsJoined "$(info SessionsJoined)" 4
	# The first bytes may come before the join, the others not.
	expect_ge BytesInKernel "$(info BytesInKernel)" $((4 * 49 * 1000))
	expect_ge BytesOutKernel "$(info BytesOutKernel)" $((4 * 49 * 1000))
	stop
}

# drive COUNT BYTES: random sessions, checked at both ends.
drive()
{
	local seed=${SHUNT_NET_SEED:-$RANDOM}

	note "seed $seed"
	spawn_server serve serve --listen 127.0.0.1:9001
	client drive $((2 * PATIENCE)) drive --connect 127.0.0.1:8080 --sessions "$1" \
		--concurrency 16 --max-bytes "$2" --slow 10 --reset 10 --delays 10 --seed "$seed" \
		--timeout "$PATIENCE"
	stop_server serve
	expect_eq "errors at the servers" "$(field errors "$T/serve.out")" 0
	expect_eq "right sessions" "$(field ok "$T/drive.out")" "$1"
	wait_until "CurrConns 0" "$PATIENCE" equals 0 info CurrConns
	expect_eq CumConns "$(info CumConns)" "$1"
}

# Of both directions.
note_movers()
{
	note "$(sum_of '^Bytes.*Kernel') bytes by the kernel, $(sum_of '^Bytes.*User') by userspace"
	note "$(info Pauses) pauses, $(info Resumes) resumes"
}

random_sessions_are_right()
{
	start "maxconn 100"
	drive 300 512k
	note_movers
	expect_gt "bytes moved by the kernel" \
		"$(sum_of '^Bytes.*Kernel')" "$(sum_of '^Bytes.*User')"
	stop
}

random_sessions_that_change_their_mover_are_right()
{
	start "maxconn 100;tune.splice.limit 4k"
	drive 100 512k
	note_movers
	expect_gt Pauses "$(info Pauses)" 10
	expect_gt Resumes "$(info Resumes)" 0
	stop
}

# Without the scenarios that are about time, which an emulation does not keep.
every_edge_case_is_right()
{
	start "" "retries 0"
	spawn edges "$CASES" --front 127.0.0.1:8080 --back 127.0.0.1:9001 --quick
	wait_until "edges to end" $((2 * PATIENCE)) has_ended edges
	sed -n 's/^FAIL /FAIL edge_/p' "$T/edges.out" | tee -a "$HOME_DIR/results"
	expect_match "the last line of edges" "$(tail -n 1 "$T/edges.out")" \
		"^[0-9]+ passed, 0 failed"
	expect_ge "the number of scenarios" "$(grep -c '^ok' "$T/edges.out")" 60
	note "$(grep -c '^ok' "$T/edges.out") scenarios"
	join edges "$PATIENCE"
	stop
}

# Both ends are strangers to us; what came out is compared with what went in.
a_bulk_transfer_keeps_its_hash()
{
	local size=$((32 * 1024 * 1024))

	start ""
	head -c "$size" /dev/urandom > "$T/sent"
	spawn server socat -u "FILE:$T/sent" "TCP-LISTEN:9001,bind=127.0.0.1,reuseaddr"
	wait_until "the server to listen" "$PATIENCE" is_listening 9001
	spawn client socat -u TCP:127.0.0.1:8080 "CREATE:$T/received"
	join client "$PATIENCE"
	join server "$PATIENCE"
	expect_eq "the hash" "$(sha256sum < "$T/received")" "$(sha256sum < "$T/sent")"
	wait_until "CurrConns 0" "$PATIENCE" equals 0 info CurrConns
	expect_eq "bytes to the client" "$(sum_of '^BytesOut(Kernel|User)')" "$size"
	expect_gt BytesOutKernel "$(info BytesOutKernel)" 0
	note_movers
	rm -f "$T/sent" "$T/received"
	stop
}

# Many times the limit waits behind it: the program must stop the sender, and all must arrive in the
# end. (The fewer sessions, the shorter the dump of the flows: with room for 20000 it takes an
# emulated machine longer than the transfer.)
a_slow_reader_gets_every_byte()
{
	start "maxconn 4"
	spawn_server source source --listen 127.0.0.1:9001 --bytes 24m
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 24m --rate 2m --rcvbuf 65536 \
		--timeout "$PATIENCE"
	wait_until "the program to redirect bytes" "$PATIENCE" at_least 1 of_flows redirected
	wait_until "the program to stop the sender" "$PATIENCE" at_least 1 of_flows pauses
	join fetch "$PATIENCE"
	stop_server source
	wait_until "CurrConns 0" "$PATIENCE" equals 0 info CurrConns
	expect_eq "bytes to the client" "$(sum_of '^BytesOut(Kernel|User)')" $((24 * 1024 * 1024))
	expect_gt BytesOutKernel "$(info BytesOutKernel)" 0
	note_movers
	stop
}

a_killed_daemon_resets_its_sessions_and_another_one_starts()
{
	start ""
	spawn_server source source --listen 127.0.0.1:9001 --bytes 1g
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 1g --rate 2m \
		--timeout "$PATIENCE"
	wait_until "a megabyte on the way" "$PATIENCE" \
		at_least 1048576 sum_of '^BytesOut(Kernel|User)'
	kill_now shunt
	join fetch "$PATIENCE" 1
	expect_eq "resets of the download" "$(field reset "$T/fetch.out")" 1
	stop_server source
	start ""
	stop
}

has_taken_over()
{
	[ "$(grep -c "sessions taken over" "$T/shunt.err")" -ge "$1" ]
}

worker_of_shunt()
{
	worker shunt
}

supervisor()
{
	echo "${PID[shunt]}"
}

# outlived SIGNAL COMMAND: random sessions, 400 at a time, and again and again the signal to the process that the command prints, until it was sent three times.
outlived()
{
	local taken=0 seed=${SHUNT_NET_SEED:-$RANDOM} rounds=0 forgiven=0

	note "seed $seed"
	start "maxconn 100"
	spawn_server serve serve --listen 127.0.0.1:9001 --forgive-resets
	until [ "$taken" -ge 3 ]; do
		spawn drive "$PEER" drive --connect 127.0.0.1:8080 --sessions 400 --concurrency 16 --max-bytes 512k --slow 10 --reset 10 \
			--delays 50 --seed "$((seed + rounds))" --timeout "$PATIENCE" --forgive-resets
		rounds=$((rounds + 1))
		while is_running drive; do
			nap 0.2
			taken=$((taken + 1))
			kill "-$1" "$($2)"
			wait_until "another worker" "$PATIENCE" has_taken_over "$taken"
		done
		join drive $((2 * PATIENCE))
		forgiven=$((forgiven + $(field forgiven "$T/drive.out")))
	done
	stop_server serve
	note "$taken times, $forgiven of $((rounds * 400)) sessions reset, $(info SessionsAdopted) taken over, $(info SessionsLost) lost"
	note_movers
	expect_eq "sessions that were reset" "$forgiven" 0
	expect_eq "errors at the servers" "$(field errors "$T/serve.out")" 0
	expect_eq WorkerDeaths "$(info WorkerDeaths)" "$([ "$1" = USR2 ] && echo 0 || echo "$taken")"
	wait_until "CurrConns 0" "$PATIENCE" equals 0 info CurrConns
	[ "$1" = KILL ] || DESCRIPTORS=$(descriptors) # the supervisor that took over has others of its own
	stop
}

sessions_outlive_their_worker()
{
	outlived KILL worker_of_shunt
}

sessions_outlive_upgrades()
{
	outlived USR2 supervisor
}

# What the kernel refuses, the daemon does itself, and says so.
without_privileges_userspace_moves_the_bytes()
{
	chmod 777 "$T"
	config "maxconn 100" | RUN_AS=$NOBODY start_shunt
	expect_match "what it says about the path" "$(grep ' path: ' "$T/shunt.err")" \
		"userspace path: .*Operation not permitted"
	drive 100 256k
	expect_eq "bytes moved by the kernel" "$(sum_of '^Bytes.*Kernel')" 0
	expect_gt "bytes moved by userspace" "$(sum_of '^Bytes.*User')" 0
}

run the_daemon_chooses_the_kernel_path_and_leaves_nothing
run random_sessions_are_right
run random_sessions_that_change_their_mover_are_right
run every_edge_case_is_right
run a_bulk_transfer_keeps_its_hash
run a_slow_reader_gets_every_byte
run a_killed_daemon_resets_its_sessions_and_another_one_starts
run sessions_outlive_their_worker
run sessions_outlive_upgrades
run without_privileges_userspace_moves_the_bytes
net_end
