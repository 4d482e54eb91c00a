#!/bin/bash
# test-limits.sh - what happens when something runs out: descriptors, maxconn (of the process, a frontend, a server), slots; and
# crowds: thousands of sessions, a thousand clients that say nothing or are gone. Whoever has a session never notices.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

BUSY_MS=300 # of CPU, in two seconds of waiting: more means that somebody turns in circles

# hold NAME CONNECTIONS SECONDS PORT: opens connections and waits until they are there.
hold()
{
	spawn "$1" "$PEER" hold --connect "127.0.0.1:$4" --connections "$2" --seconds "$3" --timeout 60
	wait_until "$1 to hold its connections" 20 has_line "$T/$1.out" '^holding'
}

# expect_idle: the daemon does nothing for two seconds.
expect_idle()
{
	local before

	before=$(cpu_ms shunt)
	nap 2
	expect_le "CPU time of two seconds of waiting in ms" $(($(cpu_ms shunt) - before)) "$BUSY_MS"
}

# leave_descriptors NUMBER: lets the daemon open so many more, of those that are free now.
leave_descriptors()
{
	local limit=0 left=$1

	while [ -e "/proc/${PID[shunt]}/fd/$limit" ] || [ "$((left--))" -gt 0 ]; do
		limit=$((limit + 1))
	done
	prlimit --pid "$(worker shunt)" --nofile="$limit:"
}

descriptors_run_out_and_come_back()
{
	local before

	config "splice require;maxconn 1000" "option tcplog;log stdout format raw local0" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --count 10
	wait_until "SlotsUsed 0" 5 equals 0 info SlotsUsed
	before=$(descriptors)
	hold first 20 6 8080
	leave_descriptors 0
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 10 --count 10 --timeout 30
	wait_until "the message that accepting is paused" 5 has_line "$T/shunt.err" "Too many open files: accepting is paused"
	expect_idle
	is_running late || fail "expected later clients to wait, got: $(cat "$T/late.out")"
	is_running first || fail "expected the first sessions to be held still, got: $(cat "$T/first.out")"
	join first 20
	join late 20
	expect_no_leftovers "$before"
	expect_gt AcceptPausedExhausted "$(info AcceptPausedExhausted)" 0
	expect_eq "messages about it" "$(grep -c 'Too many open files' "$T/shunt.err")" 1
	prlimit --pid "$(worker shunt)" --nofile=4096:
	client ping 10 ping --connect 127.0.0.1:8080 --connections 100 --count 10
}

# One descriptor is left: a client is accepted, and nothing is left to connect with.
# A client that was accepted with the last descriptor gets its server with a spare one; who comes then waits.
a_client_with_the_last_descriptor_is_served()
{
	local wait

	config "splice require;maxconn 1000" "option tcplog;log stdout format raw local0" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	hold first 20 4 8080
	leave_descriptors 1
	client ping 5 ping --connect 127.0.0.1:8080 --count 10
	hold last 1 2 8080
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 3 --count 10 --timeout 30
	join last 20
	join late 20
	wait=$(field max_us "$T/late.out")
	expect_gt "the longest wait of the later clients in us" "${wait%.*}" 500000
	join first 20
	expect_eq "sessions that were reset" "$(info Resets)" 0
	client ping 10 ping --connect 127.0.0.1:8080 --connections 10 --count 10
}

# Whoever is accepted without a descriptor for the server's connection could only be reset.
nobody_is_accepted_without_a_descriptor_for_the_server()
{
	config "splice require;maxconn 1000;nbthread 1" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	leave_descriptors 1
	hold last 1 7 8080 # with the last one, and the spare one
	leave_descriptors 1
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 3 --count 10 --timeout 30
	wait_until "the message that accepting is paused" 5 has_line "$T/shunt.err" "Too many open files: accepting is paused"
	is_running last || fail "expected the last session to be there still, got: $(cat "$T/last.out")"
	join last 20
	join late 20
	expect_eq "sessions that were reset" "$(info Resets)" 0
}

# The process may open fewer files than before when a session leaves the queue: its connect waits.
a_connect_waits_for_a_descriptor()
{
	config "splice require" "timeout queue 20s;option tcplog;log stdout format raw local0" | sed 's/9001$/9001 maxconn 1/' | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	hold first 1 3 8080
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --count 10 --timeout 30
	wait_until "a client in the queue" 5 equals 1 cell l BACKEND qcur
	prlimit --pid "$(worker shunt)" --nofile=3: # less than it has open
	join first 20
	wait_until "the first one's log line" 5 has_line "$T/shunt.out" ' -- '
	nap 0.5
	is_running late || fail "expected the later client to wait, got: $(cat "$T/late.out")"
	prlimit --pid "$(worker shunt)" --nofile=4096:
	join late 20
	expect_eq "sessions that were reset" "$(info Resets)" 0
}

maxconn_of_the_process_makes_clients_wait()
{
	local before

	config "splice require;maxconn 10" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	hold first 10 4 8080
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 30 --count 10 --timeout 30
	wait_until "AcceptPausedFull" 5 at_least 1 info AcceptPausedFull
	expect_eq CurrConns "$(info CurrConns)" 10
	expect_eq "SlotsUsed of $(info SlotsMax)" "$(info SlotsUsed)" 10
	expect_idle
	expect_eq CurrConns "$(info CurrConns)" 10
	is_running late || fail "expected later clients to wait, got: $(cat "$T/late.out")"
	join first 20
	join late 20
	expect_eq MaxCurrConns "$(info MaxCurrConns)" 10
	expect_eq CumConns "$(info CumConns)" 40
	expect_no_leftovers "$before"
}

maxconn_of_the_process_stops_every_listener()
{
	two_listens 9001 "splice require;maxconn 4" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	hold first 4 4 8080
	spawn late "$PEER" ping --connect 127.0.0.1:8081 --connections 6 --count 10 --timeout 30
	wait_until "AcceptPausedFull" 5 at_least 1 info AcceptPausedFull
	is_running late || fail "expected clients of the other listener to wait, got: $(cat "$T/late.out")"
	join first 20
	join late 20
	expect_eq "resets" "$(field reset "$T/late.out")" 0
	expect_eq MaxCurrConns "$(info MaxCurrConns)" 4
}

maxconn_of_a_frontend_is_its_own_affair()
{
	two_listens 9001 "splice require" "maxconn 5" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	hold first 5 4 8080
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 5 --count 10 --timeout 30
	client other 10 ping --connect 127.0.0.1:8081 --connections 20 --count 20
	wait_until "the other frontend's clients to be gone" 5 equals 0 cell l2 FRONTEND scur
	expect_eq "sessions of the full frontend" "$(cell l FRONTEND scur)" 5
	expect_idle
	join first 20
	join late 20
	expect_eq "most sessions of the full frontend" "$(cell l FRONTEND smax)" 5
	expect_eq "sessions of the full frontend" "$(cell l FRONTEND stot)" 10
}

maxconn_of_a_server_makes_a_queue()
{
	config "splice require" "timeout queue 20s" | sed 's/9001$/9001 maxconn 5/' | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	hold first 5 4 8080
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 7 --count 10 --timeout 30
	wait_until "seven clients in the queue" 5 equals 7 cell l BACKEND qcur
	expect_eq "sessions at the server" "$(cell l s1 scur)" 5
	expect_eq "queued sessions in show sess" "$(ask "show sess" | grep -c 'state=QUEUED')" 7
	expect_idle
	join first 20
	join late 20
	expect_eq "longest queue" "$(cell l BACKEND qmax)" 7
	expect_eq "queue" "$(cell l BACKEND qcur)" 0
	expect_eq "most sessions at the server" "$(cell l s1 smax)" 5
}

the_queue_has_a_timeout_and_is_left_by_who_goes_away()
{
	local n

	config "splice require" "timeout queue 2s;option tcplog;log stdout format raw local0" | sed 's/9001$/9001 maxconn 5/' | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	hold first 5 5 8080
	for n in 1 2 3; do
		spawn "gone$n" socat -u TCP:127.0.0.1:8080,linger=0 -
	done
	wait_until "three clients in the queue" 5 equals 3 cell l BACKEND qcur
	kill_now gone1 gone2 gone3 # lingering for 0 s, they reset
	wait_until "an empty queue" 1 equals 0 cell l BACKEND qcur
	wait_until "log lines of those who went" 1 equals 3 grep -c ' CQ ' "$T/shunt.out"
	spawn late "$PEER" ping --connect 127.0.0.1:8080 --connections 2 --count 10
	join late 10 1
	expect_eq "resets after the queue's timeout" "$(field reset "$T/late.out")" 2
	wait_until "their log lines" 1 equals 2 grep -c ' sQ ' "$T/shunt.out"
	expect_eq "queue" "$(cell l BACKEND qcur)" 0
	join first 20
	client ping 10 ping --connect 127.0.0.1:8080 --connections 5 --count 10
}

thousands_of_sessions_at_once()
{
	local before rss count

	count=$(full 1000 4000)
	config "splice require;maxconn $((count + 10))" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	rss=$(memory shunt VmRSS)
	hold many "$count" 4 8080
	expect_eq CurrConns "$(info CurrConns)" "$count"
	expect_eq SlotsUsed "$(info SlotsUsed)" "$count"
	wait_until "all to be joined" 5 equals "$count" info SessionsJoined
	expect_idle
	client ping 10 ping --connect 127.0.0.1:8080 --count 100
	note "$((($(memory shunt VmRSS) - rss) * 1024 / count)) bytes of the daemon's memory per session"
	note "p99 beside them $(field p99_us "$T/ping.out") us"
	join many 60
	expect_no_leftovers "$before"
	stop_server echo
	expect_eq "connections at the server" "$(field connections "$T/echo.out")" $((count + 1))
}

# silent_clients COUNT HOST PORT: connects and says nothing, until it is killed.
silent_clients()
{
	local i fd

	for ((i = 0; i < $1; i++)); do
		# shellcheck disable=SC2034 # it is there to be open
		exec {fd}<> "/dev/tcp/$2/$3" || exit 1
	done
	sleep 1000
}

silent_clients_cost_nobody_anything()
{
	local before

	config "splice require;maxconn 1100" "timeout client 3s" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	spawn silent silent_clients 1000 127.0.0.1 8080
	wait_until "a thousand silent clients" 20 at_least 1000 info CurrConns
	client ping 10 ping --connect 127.0.0.1:8080 --connections 10 --count 200
	note "p99 beside them $(field p99_us "$T/ping.out") us"
	wait_until "the timeout to end them all" 15 equals 0 info CurrConns
	expect_no_leftovers "$before"
	expect_eq "clients that were timed out" "$(cell l FRONTEND stot)" 1010
}

# The wire to the clients is cut: no FIN, no RST, ever.
clients_that_are_gone_without_a_word_are_timed_out()
{
	local before

	hosts
	{
		config "splice require;maxconn 1100" "timeout client 4s"
		printf 'listen l2\n  bind 10.2.0.1:8080\n  server s1 10.2.0.2:9001\n'
	} | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	spawn echo nsenter "--net=/run/netns/$SERVER" "$PEER" echo --listen 10.2.0.2:9001
	wait_until "the server to listen" 10 has_line "$T/echo.out" '^ready'
	before=$(descriptors)
	spawn hold nsenter "--net=/run/netns/$CLIENT" "$PEER" hold --connect 10.1.0.1:8080 --connections 1000 --seconds 100
	wait_until "a thousand clients" 20 has_line "$T/hold.out" '^holding'
	ip -n "$CLIENT" link set eth0 down
	spawn ping nsenter "--net=/run/netns/$SERVER" "$PEER" ping --connect 10.2.0.1:8080 --count 500 --interval-us 1000
	join ping 10
	note "p99 beside them $(field p99_us "$T/ping.out") us"
	wait_until "the timeout to end them all" 15 equals 0 info CurrConns
	expect_no_leftovers "$before"
	# Their servers were told.
	kill -TERM "${PID[echo]}"
	join echo 10
	expect_eq "connections that are still open at the server" "$(field open "$T/echo.out")" 0
	expect_eq "resets at the server" "$(field resets "$T/echo.out")" 1000
}

run descriptors_run_out_and_come_back
run a_client_with_the_last_descriptor_is_served
run nobody_is_accepted_without_a_descriptor_for_the_server
run a_connect_waits_for_a_descriptor
run maxconn_of_the_process_makes_clients_wait
run maxconn_of_the_process_stops_every_listener
run maxconn_of_a_frontend_is_its_own_affair
run maxconn_of_a_server_makes_a_queue
run the_queue_has_a_timeout_and_is_left_by_who_goes_away
run thousands_of_sessions_at_once
run silent_clients_cost_nobody_anything
run clients_that_are_gone_without_a_word_are_timed_out
net_end
