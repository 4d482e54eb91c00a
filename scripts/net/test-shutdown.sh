#!/bin/bash
# test-shutdown.sh - how the daemon ends (TERM, USR1, INT, hard-stop-after), and how it starts in the background.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# drained SIGNAL GLOBAL LISTEN: it stops accepting, finishes what there is, and exits with 0.
drained()
{
	config "$2;pidfile $T/pid" "$3" | start_shunt
	expect_eq "the pidfile" "$(cat "$T/pid")" "${PID[shunt]}"
	spawn_server source source --listen 127.0.0.1:9001 --bytes 128m
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 128m --rate 32m
	wait_until "4 MB on the way" 10 at_least $((4 * 1024 * 1024)) info TotalBytesOut
	kill "-$1" "${PID[shunt]}"
	wait_until "new clients to be refused" 2 refuses_connections 8080
	expect_eq Stopping "$(info Stopping)" 1
	expect_eq Listeners "$(info Listeners)" 0
	is_running fetch || fail "expected the transfer to go on, got it ended"
	join fetch 20
	join shunt 5 0
	[ ! -e "$T/pid" ] || fail "expected no pidfile afterwards, got one"
	[ ! -e "$STATS" ] || fail "expected no stats socket afterwards, got one"
	[ ! -e "$PINS" ] || fail "expected no pins afterwards, got some"
	stop_server source
	expect_eq "clean ends at the server" "$(field ends "$T/source.out")" 1
}

# two_transfers: one in each direction, both far from their end.
two_transfers()
{
	two_listens 9002 "$1" "" | start_shunt
	spawn_server source source --listen 127.0.0.1:9001 --bytes 1g
	spawn_server sink sink --listen 127.0.0.1:9002
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 1g --rate 32m
	spawn push "$PEER" push --connect 127.0.0.1:8081 --bytes 1g --rate 32m --no-answer
	wait_until "4 MB on the way" 10 at_least $((4 * 1024 * 1024)) info TotalBytesOut
}

expect_two_resets()
{
	join fetch 5 1
	join push 5 1
	expect_eq "resets of the download" "$(field reset "$T/fetch.out")" 1
	expect_eq "resets of the upload" "$(field reset "$T/push.out")" 1
	stop_server source
	stop_server sink
	expect_eq "clean ends at the servers" "$(field ends "$T/source.out")$(field ends "$T/sink.out")" 00
	# Who asked whether new clients are refused may have been one of the last, and was reset too.
	expect_match "resets at the servers" "$(field resets "$T/source.out")$(field resets "$T/sink.out")" "^[1-9]1$"
}

hard_stop_after_resets_what_is_left()
{
	local began

	two_transfers "splice require;hard-stop-after 1s"
	began=${EPOCHREALTIME/./}
	kill -TERM "${PID[shunt]}"
	join shunt 5 0
	expect_ge "ms until the end" $(((${EPOCHREALTIME/./} - began) / 1000)) 950
	expect_two_resets
}

int_resets_at_once()
{
	local began

	two_transfers "splice require"
	began=${EPOCHREALTIME/./}
	kill -INT "${PID[shunt]}"
	join shunt 2 0
	expect_le "ms until the end" $(((${EPOCHREALTIME/./} - began) / 1000)) 1000
	expect_two_resets
}

int_ends_a_drain()
{
	two_transfers "splice require"
	kill -TERM "${PID[shunt]}"
	wait_until "new clients to be refused" 2 refuses_connections 8080
	is_running shunt || fail "expected the daemon to wait for its sessions, got it ended"
	kill -INT "${PID[shunt]}"
	join shunt 2 0
	expect_two_resets
}

hup_logs_the_servers_and_changes_nothing()
{
	config "splice require" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --connections 3 --count 5
	kill -HUP "${PID[shunt]}"
	wait_until "the state of the server" 5 has_line "$T/shunt.err" "server l/s1 is ready: 0 sessions, 3 in all"
	client ping 10 ping --connect 127.0.0.1:8080 --count 5
}

in_the_background_it_is_ready_when_the_starter_ends()
{
	local pid

	config "splice require;pidfile $T/pid" "" > "$T/cfg"
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn starter "$DAEMON" -f "$T/cfg" -D
	join starter 10 0
	# No waiting here: that is the point.
	client ping 10 ping --connect 127.0.0.1:8080 --connections 10 --count 5
	pid=$(cat "$T/pid")
	expect_eq "who is above the worker that answers" "$(awk '/^PPid/ { print $2 }' "/proc/$(info Pid)/status")" "$pid"
	expect_ne "the daemon" "$pid" "$(ask "show version")"
	expect_eq "its stdout" "$(readlink "/proc/$pid/fd/1")" /dev/null
	expect_eq "its stderr" "$(readlink "/proc/$pid/fd/2")" /dev/null
	expect_eq "its working directory" "$(readlink "/proc/$pid/cwd")" /
	expect_eq "the leader of its session" "$(cut -d ' ' -f 6 "/proc/$pid/stat")" "$pid"
	kill -TERM "$pid"
	wait_until "its end" 5 test ! -e "/proc/$pid"
	[ ! -e "$T/pid" ] || fail "expected no pidfile afterwards, got one"
}

# started_into_pipes GLOBAL LISTEN: whoever reads what the starter writes (`shunt -D | cat`) sees the end of it.
started_into_pipes()
{
	config "splice require;pidfile $T/pid;$1" "$2;option tcplog" > "$T/cfg"
	spawn out socat -u "PIPE:$T/out-of-it" -
	spawn err socat -u "PIPE:$T/err-of-it" -
	wait_until "the pipes" 5 test -p "$T/out-of-it" -a -p "$T/err-of-it"
	spawn starter sh -c "exec '$DAEMON' -f '$T/cfg' -D > '$T/out-of-it' 2> '$T/err-of-it'"
	join starter 10 0
	wait_until "the end of its stdout" 5 has_ended out
	wait_until "the end of its stderr" 5 has_ended err
	expect_eq "lines on stdout" "$(wc -l < "$T/out.out")" 0
	[ -z "$1$2" ] || expect_match "the warning" "$(cat "$T/err.out")" "'log stdout' is left out.*'log stderr' is left out"
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --count 5
	kill -TERM "$(cat "$T/pid")"
	wait_until "its end" 5 test ! -e "$T/pid"
}

in_the_background_a_failure_is_told()
{
	config | start_shunt
	config "" | sed "s/stats[.]sock/second.sock/; s|^global|global\n  bpf-pin-path none|" > "$T/cfg"
	spawn starter "$DAEMON" -f "$T/cfg" -D -p "$T/pid"
	join starter 10 1
	expect_match "what it says" "$(cat "$T/starter.err")" "cannot listen on 127.0.0.1:8080 for 'l': Address already in use"
	[ ! -e "$T/pid" ] || fail "expected no pidfile, got one"
	expect_eq CurrConns "$(info CurrConns)" 0
}

run term_finishes_the_sessions drained TERM "splice require" ""
run usr1_finishes_the_sessions drained USR1 "splice require" ""
run term_finishes_the_sessions_in_userspace drained TERM "" "no option splice-auto"
run hard_stop_after_resets_what_is_left
run int_resets_at_once
run int_ends_a_drain
run hup_logs_the_servers_and_changes_nothing
run in_the_background_it_is_ready_when_the_starter_ends
run in_the_background_it_holds_no_pipe_of_the_starter started_into_pipes "" ""
run in_the_background_it_logs_to_no_pipe_of_the_starter started_into_pipes "log stdout local0;log stderr local0" ""
run in_the_background_it_logs_no_session_to_a_pipe_of_the_starter started_into_pipes "" "log stdout local0;log stderr local0"
run in_the_background_a_failure_is_told
net_end
