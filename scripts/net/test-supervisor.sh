#!/bin/bash
# test-supervisor.sh - a worker that dies: established connections go on, byte for byte, and nothing is left behind.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# workers: how many processes the one that was started has.
workers()
{
	pgrep -c -P "${PID[shunt]}" || :
}

there_is_a_supervisor_unless_it_is_not_wanted()
{
	local i=0 global arguments wanted SHUNT_FLAGS=

	while IFS='|' read -r global arguments wanted; do
		i=$((i + 1))
		# shellcheck disable=SC2086 # words
		config "$global" | sed "s/:8080/:808$i/; s/stats[.]sock/$i.sock/" | start_shunt "shunt$i" $arguments
		expect_eq "workers with '$global' and '$arguments'" "$(pgrep -c -P "${PID[shunt$i]}" || :)" "$wanted"
	done <<-END
		bpf-pin-path none||1
		bpf-pin-path none;no master-worker||0
		bpf-pin-path none;no master-worker|-W|1
		bpf-pin-path none;master-worker|-db|0
		bpf-pin-path none;daemon|-db|0
	END
}

# without_memory LIMIT REASON: 4 GB are too many for a process that may have some, of addresses or in a file.
without_memory()
{
	local SHUNT_FLAGS=
	export RUN_AS="prlimit --$1=$((2 << 30))"

	config "nosplice;maxconn 2000" | refuse_start 1 -W
	expect_match "the reason" "$(cat "$T/refused.err")" "no supervisor: the system refuses 4000 MB of shared memory, for what 2000 sessions may hold: $2"
	config "nosplice;maxconn 2000" | start_shunt
	expect_match "the warning" "$(grep WARNING "$T/shunt.err")" "no supervisor: the system refuses 4000 MB .*; a worker that dies will take its sessions along"
	expect_eq workers "$(workers)" 0
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --count 20
}

joined_flows_do_not_notice_that_the_worker_dies()
{
	config "splice require" "" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001 --stats "$T/echo.stats"
	client calm 30 ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 500 --interval-us 2000
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 1500 --interval-us 2000
	wait_until "eight sessions in the kernel" 5 sessions_in_the_kernel 8
	for _ in 1 2 3 4 5; do
		kill_worker
		wait_until "eight sessions" 5 equals 8 info CurrConns
	done
	join ping 30
	note "p99 $(field p99_us "$T/ping.out") us across five deaths, $(field p99_us "$T/calm.out") us without"
	stop_server echo
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	expect_eq "sessions in all" "$(info CumConns)" 16
}

# sessions_in_the_kernel NUMBER: do so many sessions have both movers there?
sessions_in_the_kernel()
{
	[ "$(ask "show sess" | grep -c 'req=\[mover=kernel.*rsp=\[mover=kernel')" -ge "$1" ]
}

# It stops accepting, its sessions are in the kernel's hands and in userspace's, and three workers die over them.
drain_goes_on_when_the_worker_dies()
{
	{
		config "splice require" "$KERNEL"
		printf 'listen l2\n  no option splice-auto\n  bind 127.0.0.1:8081\n  server s1 127.0.0.1:9001\n'
	} | start_shunt shunt -W
	spawn_server source source --listen 127.0.0.1:9001 --bytes 64m
	spawn kernel "$PEER" fetch --connect 127.0.0.1:8080 --bytes 64m --rate 16m
	spawn user "$PEER" fetch --connect 127.0.0.1:8081 --bytes 64m --rate 16m
	wait_until "4 MB on the way" 10 at_least $((4 * 1024 * 1024)) info TotalBytesOut
	kill -TERM "${PID[shunt]}"
	wait_until "new clients to be refused" 5 refuses_connections 8080
	for _ in 1 2 3; do
		kill_worker
		wait_until "both sessions" 5 equals 2 info CurrConns
		expect_eq Stopping "$(info Stopping)" 1
		refuses_connections 8080 || fail "expected new clients to be refused still, got one in"
	done
	expect_eq "transfers that go on" "$(for name in kernel user; do ! is_running "$name" || echo "$name"; done | xargs)" "kernel user"
	join kernel 20
	join user 20
	join shunt 5 0
	[ ! -e "$STATS" ] || fail "expected no stats socket afterwards, got one"
	[ ! -e "$PINS" ] || fail "expected no pins afterwards, got some"
	stop_server source
	expect_eq "clean ends at the server" "$(field ends "$T/source.out")" 2
}

# Each death would begin the time anew, or forget it.
hard_stop_after_keeps_its_time_when_the_worker_dies()
{
	local began took

	config "splice require;hard-stop-after 3s" "" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn hold "$PEER" hold --connect 127.0.0.1:8080 --connections 10 --seconds 60
	wait_until "ten sessions" 10 has_line "$T/hold.out" holding
	began=${EPOCHREALTIME/./}
	kill -TERM "${PID[shunt]}"
	wait_until "new clients to be refused" 2 refuses_connections 8080
	for _ in 1 2; do
		nap 0.8
		kill_worker
		wait_until "ten sessions" 5 equals 10 info CurrConns
	done
	join shunt 20 0
	took=$(((${EPOCHREALTIME/./} - began) / 1000))
	note "it ended after $took ms"
	expect_ge "ms until the end" "$took" 2950
	expect_le "ms until the end" "$took" 4000
	join hold 10 1
	expect_eq "resets" "$(field reset "$T/hold.out")" 10
}

# killed_at_random GLOBAL LISTEN
killed_at_random()
{
	local kills=0 before sessions=1000

	[ -z "$QUICK" ] || sessions=600
	config "$1" "$2" | start_shunt shunt -W
	spawn_server serve serve --listen 127.0.0.1:9001 --forgive-resets
	before=$(descriptors)
	spawn drive "$PEER" drive --connect 127.0.0.1:8080 --sessions "$sessions" --concurrency 32 --delays 50 --reset 10 \
		--timeout 30 --forgive-resets
	while is_running drive; do
		nap "0.$((RANDOM % 3))$((RANDOM % 10))"
		kill_worker
		kills=$((kills + 1))
	done
	join drive 120
	stop_server serve
	expect_gt "workers killed" "$kills" 5
	note "$kills workers killed, $(field forgiven "$T/drive.out") of $sessions sessions reset"
	expect_le "sessions that were reset" "$(field forgiven "$T/drive.out")" "$((sessions / 100))"
	expect_no_leftovers "$before"
}

bytes_are_right_when_workers_die_at_random_moments_on_all_paths()
{
	killed_at_random "" ""
}

bytes_are_right_when_workers_die_at_random_moments_in_userspace()
{
	killed_at_random "" "no option splice-auto"
}

bytes_are_right_where_the_kernel_does_not_count_what_is_unread()
{
	DAEMON=$OLDER
	killed_at_random "splice require" ""
}

bytes_are_right_when_workers_die_at_random_moments_in_the_kernel()
{
	killed_at_random "splice require" "$KERNEL"
}

accepting_goes_on_at_once_after_a_crash_with_4000_sessions()
{
	local began took=() i

	config "maxconn 5000;splice require" "" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn hold "$PEER" hold --connect 127.0.0.1:8080 --connections 4000 --seconds 8
	wait_until "4000 sessions" 30 has_line "$T/hold.out" holding
	for ((i = 0; i < 5; i++)); do
		began=${EPOCHREALTIME/./}
		kill -KILL "$(worker shunt)"
		"$PEER" ping --connect 127.0.0.1:8080 --count 1 > "$T/ping.out" # a new client, served
		took+=($(((${EPOCHREALTIME/./} - began) / 1000)))
		wait_until "4000 sessions" 5 equals 4000 info CurrConns
	done
	join hold 60
	note "from the crash to the answer to a new client: ${took[*]} ms (taking over: $(sed -n "s/.*taken over: .*, in \([0-9]*\) ms/\1/p" "$T/shunt.err" | paste -sd " "))"
	expect_lt "the median in ms" "$(printf '%s\n' "${took[@]}" | sort -n | sed -n 3p)" 400
	expect_eq SessionsLost "$(info SessionsLost)" 0
	expect_eq WorkerDeaths "$(info WorkerDeaths)" 5
}

session_leaves_a_line()
{
	"$PEER" ping --connect 127.0.0.1:8080 --count 1 > "$T/some.out"
	nap 0.05
	has_line "$1" " l l/s1 "
}

# The worker lets go of a log's socket when its receiver is gone, and a session gets its number; the next worker must not write log lines there.
logs_stay_out_of_streams_when_workers_die()
{
	local i

	receive_log 1
	config "log $T/log.sock local0" "log global;option tcplog" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	for i in 1 2 3; do
		[ "$i" -eq 1 ] || receive_log "$i"
		wait_until "a session's line" 10 session_leaves_a_line "$T/log$i.txt"
		kill_now "log$i"
		"$PEER" ping --connect 127.0.0.1:8080 --connections 2 --count 2 > "$T/some.out" # these find it gone
		spawn "ping$i" "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 40 --interval-us 100000
		wait_until "eight more sessions" 5 at_least "$((8 * i))" info CurrConns
		kill_worker
	done
	for i in 1 2 3; do
		join "ping$i" 30
	done
	expect_eq SessionsLost "$(info SessionsLost)" 0
}

receive_log()
{
	rm -f "$T/log.sock"
	spawn "log$1" socat -u "UNIX-RECV:$T/log.sock" "CREATE:$T/log$1.txt"
	wait_until "the receiver of the log" 5 test -S "$T/log.sock"
}

# One of its directions begins with the word, so whoever serves it dies. (The third worker says so, before it has swept: what it says goes
# to the log, and the log's new socket must live.)
session_over_which_two_workers_died_is_dropped()
{
	export SHUNT_MORTAL_WORD=poison
	DAEMON=$MORTAL
	receive_log 1
	config "log $T/log.sock local0" "no option splice-auto" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --size 100 --count 100 --interval-us 20000
	wait_until "four sessions" 5 equals 4 info CurrConns
	echo "poison and more" | socat -d -d -d -d -t 5 - TCP4:127.0.0.1:8080 > "$T/socat.out" 2> "$T/socat.err" || :
	wait_until "two deaths" 5 equals 2 info WorkerDeaths
	wait_until "its end" 5 has_line "$T/shunt.err" "is reset: 2 workers died while they served it"
	join ping 30 # the others did not notice
	expect_match "what its client saw" "$(cat "$T/socat.err")" "reset by peer"
	wait_until "the end of that in the log" 5 has_line "$T/log1.txt" "sessions taken over"
	expect_eq SessionsLost "$(info SessionsLost)" 1
	expect_eq WorkerDeaths "$(info WorkerDeaths)" 2
}

worker_that_runs_in_circles_is_replaced()
{
	export SHUNT_MORTAL_WORD=poison SHUNT_MORTAL_LOOP=1
	DAEMON=$MORTAL
	config "nbthread 1" "no option splice-auto" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --size 100 --count 4 --interval-us 2000000 --timeout 40
	wait_until "four sessions" 5 equals 4 info CurrConns
	spawn poison sh -c 'echo "poison and more" | socat -t 30 - TCP4:127.0.0.1:8080'
	wait_until "the supervisor's message" 20 has_line "$T/shunt.err" "has not moved for 10000 ms: it is replaced"
	# The next one, when it takes the session over, does just that.
	wait_until "two deaths" 30 equals 2 info WorkerDeaths
	wait_until "the end of that" 5 has_line "$T/shunt.err" "is reset: 2 workers died while they served it"
	join ping 60
	expect_eq SessionsLost "$(info SessionsLost)" 1
}

# killed_at_every_point GLOBAL LISTEN DEATHS [DRIVE...]: sessions one after the other; the first one's worker dies at its first point, the
# second one's at its second, and so on.
killed_at_every_point()
{
	local global=$1 listen=$2 again=$3 sessions deaths before dropped

	shift 3
	sessions=$(full 200 1200)
	export SHUNT_MORTAL=${SHUNT_MORTAL:-$((sessions / 8))} SHUNT_MORTAL_AGAIN=$again
	DAEMON=$MORTAL
	config "nbthread 1;$global" "$listen" | start_shunt shunt -W
	spawn_server serve serve --listen 127.0.0.1:9001 --forgive-resets
	before=$(descriptors)
	spawn drive "$PEER" drive --connect 127.0.0.1:8080 --sessions "$sessions" --concurrency 1 --max-bytes 300k --delays 0 --slow 0 \
		--timeout 30 --forgive-resets "$@"
	join drive 300
	stop_server serve
	deaths=$(grep -c '^mortal: ' "$T/shunt.err")
	expect_gt "deaths" "$deaths" "$((sessions / 6))"
	note "$deaths workers died at $(sed -n 's/^mortal: .* point \([0-9]*\),.*/\1/p' "$T/shunt.err" | sort -u | wc -l) points"
	note "$(field forgiven "$T/drive.out") of $sessions sessions reset"
	dropped=$(grep -c 'is reset: 2 workers died while they served it' "$T/shunt.err") || :
	[ "$again" -gt 0 ] || expect_le "sessions that were dropped" "$dropped" "$((sessions / 100))"
	expect_le "sessions that were reset besides" "$(($(field forgiven "$T/drive.out") - dropped))" "$((sessions / 100))"
	expect_no_leftovers "$before"
}

# killed_with_a_full_pipe AGAIN: nobody joins, and transfers are spliced.
killed_with_a_full_pipe()
{
	local at_splice

	export SHUNT_DICE_OUT=1 SHUNT_MORTAL=100 SHUNT_MORTAL_CALL=splice
	killed_at_every_point "" "" "$1" --max-bytes 3m
	at_splice=$(grep -c '^mortal: .* splice$' "$T/shunt.err") || :
	note "$at_splice of them around splice(2)"
	expect_gt "deaths around splice(2)" "$at_splice" "$(full 3 50)"
}

run there_is_a_supervisor_unless_it_is_not_wanted
is_sanitized || run without_addresses_for_what_sessions_hold_there_is_no_supervisor without_memory as "Cannot allocate memory" # its shadow takes them
run without_memory_for_what_sessions_hold_there_is_no_supervisor without_memory fsize "File too large"
run joined_flows_do_not_notice_that_the_worker_dies
[ -n "$QUICK" ] || run accepting_goes_on_at_once_after_a_crash_with_4000_sessions
run logs_stay_out_of_streams_when_workers_die
run session_over_which_two_workers_died_is_dropped
[ -n "$QUICK" ] || run worker_that_runs_in_circles_is_replaced # 25 s
run drain_goes_on_when_the_worker_dies
run hard_stop_after_keeps_its_time_when_the_worker_dies
run bytes_are_right_when_workers_die_at_random_moments_on_all_paths
run bytes_are_right_when_workers_die_at_random_moments_in_userspace
run bytes_are_right_when_workers_die_at_random_moments_in_the_kernel
run bytes_are_right_where_the_kernel_does_not_count_what_is_unread
run every_point_in_userspace killed_at_every_point "" "no option splice-auto" 0
run every_point_on_the_kernels_path killed_at_every_point "splice require" "$KERNEL" 0
run every_point_with_dice_for_the_movers killed_at_every_point "splice require" "" 0
run every_point_through_the_pipe killed_with_a_full_pipe 0
run every_point_through_the_pipe_and_again killed_with_a_full_pipe 30
run every_point_and_again_while_sessions_are_adopted killed_at_every_point "splice require" "" 30
run every_point_with_queued_sessions_and_resets killed_at_every_point "splice require" "" 0 --reset 50
net_end
