#!/bin/bash
# test-stop-kill.sh - a daemon that is stopped, that is killed, that is started twice. What the kernel moves goes on without it; what
# was cut off is never taken for complete.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# sessions_in_the_kernel NUMBER: do so many sessions have both movers there?
sessions_in_the_kernel()
{
	[ "$(ask "show sess" | grep -c 'req=\[mover=kernel.*rsp=\[mover=kernel')" -ge "$1" ]
}

# The supervisor too: nobody is left who could replace the worker.
stop_daemon()
{
	kill -STOP "${PID[shunt]}" "$(worker shunt)"
}

# stats_field NAME SERVER: from what a server of ours writes once a second.
stats_field()
{
	field "$1" "$T/$2.stats"
}

# For SHUNT_STOP_SECONDS, or one.
joined_flows_go_on_while_the_daemon_is_stopped()
{
	local trips=$((${SHUNT_STOP_SECONDS:-1} * 500))

	config "splice require" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001 --stats "$T/echo.stats"
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --size 1000 --count "$trips" --interval-us 2000
	wait_until "four sessions in the kernel" 5 sessions_in_the_kernel 4
	stop_daemon
	wait_until "all round trips, without the daemon" $((15 + trips / 100)) at_least $((4 * trips * 1000)) stats_field bytes_in echo
	kill -CONT "${PID[shunt]}" "$(worker shunt)"
	join ping 10
	note "p99 $(field p99_us "$T/ping.out") us"
	stop_server echo
}

# The limit is as large as the transfer: however late the receiver gets its CPU, it is not exceeded.
transfers_below_the_limit_go_on_while_the_daemon_is_stopped()
{
	config "splice require;tune.splice.limit 32m" "$KERNEL" | start_shunt
	spawn_server sink sink --verify --listen 127.0.0.1:9001 --stats "$T/sink.stats"
	spawn push "$PEER" push --connect 127.0.0.1:8080 --bytes 32m --rate 16m
	wait_until "a session in the kernel" 5 sessions_in_the_kernel 1
	stop_daemon
	wait_until "all bytes, without the daemon" 15 at_least $((32 * 1024 * 1024)) stats_field bytes_in sink
	kill -CONT "${PID[shunt]}" "$(worker shunt)"
	join push 10
	stop_server sink
}

everything_else_goes_on_when_the_daemon_is_continued()
{
	config "splice require;tune.splice.limit 64k" "" | start_shunt
	spawn_server source source --listen 127.0.0.1:9001 --bytes 64m --stats "$T/source.stats"
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 64m --rate 32m --rcvbuf 64k
	wait_until "a session" 5 equals 1 info CurrConns
	stop_daemon
	# Somebody who comes now waits.
	spawn late "$PEER" fetch --connect 127.0.0.1:8080 --bytes 64m
	nap 1
	is_running late || fail "expected a new client to wait for the stopped daemon, got: $(cat "$T/late.out")"
	kill -CONT "${PID[shunt]}" "$(worker shunt)"
	join fetch 30
	join late 30
	stop_server source
}

half_closes_and_resets_are_found_when_the_daemon_is_continued()
{
	config "splice require" "" | start_shunt
	spawn_server serve serve --listen 127.0.0.1:9001
	spawn drive "$PEER" drive --connect 127.0.0.1:8080 --sessions 600 --concurrency 32 --delays 50 --reset 30 --timeout 20
	for _ in 1 2 3 4 5 6; do
		nap 0.1
		stop_daemon
		nap 0.3
		kill -CONT "${PID[shunt]}" "$(worker shunt)"
	done
	join drive 60
	stop_server serve
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
}

# killed GLOBAL LISTEN [ARGUMENT...]: kill -9 in the middle of a download and of an upload, and a new start.
killed()
{
	{
		two_listens 9002 "$1" "$2"
		[ -z "$2" ] || echo "  $2"
	} > "$T/both.cfg"
	start_shunt shunt "${@:3}" < "$T/both.cfg"
	spawn_server source source --listen 127.0.0.1:9001 --bytes 1g --stats "$T/source.stats"
	spawn_server sink sink --listen 127.0.0.1:9002 --stats "$T/sink.stats"
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 1g --rate 64m
	spawn push "$PEER" push --connect 127.0.0.1:8081 --bytes 1g --rate 64m --no-answer
	wait_until "8 MB on the way" 10 at_least $((8 * 1024 * 1024)) info TotalBytesOut
	kill_now shunt
	join fetch 5 1
	join push 5 1
	expect_eq "resets seen by the downloading client" "$(field reset "$T/fetch.out")" 1
	expect_eq "resets seen by the uploading client" "$(field reset "$T/push.out")" 1
	stop_server source
	stop_server sink
	expect_eq "clean ends seen by the sending server" "$(field ends "$T/source.out")" 0
	expect_eq "resets seen by the sending server" "$(field resets "$T/source.out")" 1
	expect_eq "clean ends seen by the receiving server" "$(field ends "$T/sink.out")" 0
	expect_eq "resets seen by the receiving server" "$(field resets "$T/sink.out")" 1
	[ -z "$1" ] || [ -e "$PINS/sockets" ] || fail "expected the killed daemon's pins to be left, got none"

	# Its port, its stats socket and its pins are in nobody's way.
	SHUNTS=()
	rm -f "$T/shunt.err" "$T/shunt.out" # or the old "ready" is taken for the new one's
	start_shunt shunt "${@:3}" < "$T/both.cfg"
	[ -z "$1" ] || expect_eq KernelPath "$(info KernelPath)" yes
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --connections 10 --count 20
	end_shunt shunt INT 0
	[ ! -e "$PINS" ] || fail "expected no pins after an orderly end, got $(ls "$PINS")"
}

a_second_daemon_is_refused_and_the_first_unharmed()
{
	config "splice require" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --count 500 --interval-us 2000
	wait_until "four sessions in the kernel" 5 sessions_in_the_kernel 4
	config | sed 's/:8080/:8081/; s/stats[.]sock/second.sock/' | refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "$PINS is in use by another running shunt"
	# Same file: port and stats socket are taken as well, and stay the first one's.
	config | refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "Address already in use"
	config | sed 's/:8080/:8081/; s|^global|global\n  bpf-pin-path none|' | refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "stats socket '$STATS': another process serves it"
	expect_eq CurrConns "$(info CurrConns)" 4
	join ping 20
	# With everything of its own, a second one is welcome.
	config "bpf-pin-path /sys/fs/bpf/second;splice require" |
		sed 's/:8080/:8081/; s/stats[.]sock/second.sock/' | start_shunt second
	client ping 10 ping --connect 127.0.0.1:8081 --count 20
	client ping 10 ping --connect 127.0.0.1:8080 --count 20
}

run joined_flows_go_on_while_the_daemon_is_stopped
run transfers_below_the_limit_go_on_while_the_daemon_is_stopped
run everything_else_goes_on_when_the_daemon_is_continued
run half_closes_and_resets_are_found_when_the_daemon_is_continued
run a_killed_daemon_resets_what_it_cut_off killed "splice require" "" -db
run a_killed_daemon_resets_what_it_cut_off_in_userspace killed "" "no option splice-auto" -db
run a_killed_supervisor_resets_what_it_cut_off killed "splice require" "" -W
run a_second_daemon_is_refused_and_the_first_unharmed
net_end
