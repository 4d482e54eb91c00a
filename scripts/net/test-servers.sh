#!/bin/bash
# test-servers.sh - which server gets a session, and what becomes of it when a server is not there: refuses, is a black hole, comes
# back.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# backend LINES: a configuration whose servers are those.
backend()
{
	config "splice require" "$1" | grep -v 'server s1 127.0.0.1:9001$'
}

# took_ms BEGAN: since a moment in microseconds.
took_ms()
{
	echo $(((${EPOCHREALTIME/./} - $1) / 1000))
}

sessions_are_spread_by_weight_exactly()
{
	local n

	backend "server a 127.0.0.1:9001 weight 1;server b 127.0.0.1:9002 weight 2;server c 127.0.0.1:9003 weight 3
		server d 127.0.0.1:9004 weight 0;server e 127.0.0.1:9004 disabled" | start_shunt
	for n in 1 2 3 4; do
		spawn_server "echo$n" echo --listen "127.0.0.1:900$n"
	done
	client hold 20 hold --connect 127.0.0.1:8080 --connections 600 --seconds 0
	for n in 1 2 3 4; do
		stop_server "echo$n"
	done
	expect_eq "connections at the server of weight 1" "$(field connections "$T/echo1.out")" 100
	expect_eq "connections at the server of weight 2" "$(field connections "$T/echo2.out")" 200
	expect_eq "connections at the server of weight 3" "$(field connections "$T/echo3.out")" 300
	expect_eq "connections at those without weight, or disabled" "$(field connections "$T/echo4.out")" 0
	expect_eq "stot of a, b, c" "$(cell l a stot) $(cell l b stot) $(cell l c stot)" "100 200 300"
}

sessions_are_spread_evenly_while_they_come_and_go()
{
	local n

	backend "server a 127.0.0.1:9001;server b 127.0.0.1:9002;server c 127.0.0.1:9003" | start_shunt
	for n in 1 2 3; do
		spawn_server "serve$n" serve --listen "127.0.0.1:900$n"
	done
	client drive 60 drive --connect 127.0.0.1:8080 --sessions 900 --max-bytes 64k
	expect_eq "stot of a, b, c" "$(cell l a stot) $(cell l b stot) $(cell l c stot)" "300 300 300"
	for n in 1 2 3; do
		stop_server "serve$n"
	done
}

a_server_that_refuses_is_left_out_and_comes_back()
{
	backend "server a 127.0.0.1:9001;server b 127.0.0.1:9002" | start_shunt
	spawn_server b echo --listen 127.0.0.1:9002
	client ping 10 ping --connect 127.0.0.1:8080 --connections 100 --count 5
	expect_eq "sessions at b" "$(cell l b stot)" 100
	expect_gt "failed connects to a" "$(cell l a econ)" 0
	expect_eq "redispatches from a" "$(cell l a wredis)" "$(cell l a econ)"
	spawn_server a echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --connections 100 --count 5
	stop_server a
	expect_eq "connections at a, back again" "$(field connections "$T/a.out")" 50
}

nobody_there_is_a_prompt_reset()
{
	local began

	backend "server a 127.0.0.1:9001;server b 127.0.0.1:9002;option tcplog;log stdout format raw local0" | start_shunt
	began=${EPOCHREALTIME/./}
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 20 --count 5
	join ping 10 1
	expect_le "ms until all were reset" "$(took_ms "$began")" 1000
	# A reset may be quicker than the client's connect() itself: then it is that which fails.
	expect_eq "resets" $(($(field reset "$T/ping.out") + $(field connect "$T/ping.out"))) 20
	wait_until "a log line for each" 5 equals 20 grep -c ' SC ' "$T/shunt.out"
	wait_until "SlotsUsed 0" 5 equals 0 info SlotsUsed
}

# A host that swallows everything: its hardware address is known, and nobody has it.
black_hole()
{
	ip -n "$BALANCER" neigh add "10.2.0.$1" lladdr "02:00:00:00:00:$1" dev eth2 nud permanent
}

a_black_hole_costs_a_timeout_and_then_the_next_server_has_it()
{
	local began ms

	hosts
	black_hole 66
	backend "timeout connect 700ms;server hole 10.2.0.66:9001;server b 10.2.0.2:9001" |
		sed 's/127.0.0.1:8080/10.1.0.1:8080/' | RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	spawn echo nsenter "--net=/run/netns/$SERVER" "$PEER" echo --listen 10.2.0.2:9001
	wait_until "the server to listen" 10 has_line "$T/echo.out" '^ready'
	began=${EPOCHREALTIME/./}
	spawn ping nsenter "--net=/run/netns/$CLIENT" "$PEER" ping --connect 10.1.0.1:8080 --connections 10 --count 5
	join ping 10
	ms=$(took_ms "$began")
	expect_ge "ms until all were served" "$ms" 700
	expect_le "ms until all were served" "$ms" 2000
	expect_eq "sessions at b" "$(cell l b stot)" 10
	expect_eq "failed connects to the hole" "$(cell l hole econ)" 5
	expect_eq "redispatches from the hole" "$(cell l hole wredis)" 5
}

only_black_holes_are_a_reset_after_the_timeouts()
{
	local began ms

	hosts
	black_hole 66
	black_hole 67
	backend "timeout connect 500ms;server a 10.2.0.66:9001;server b 10.2.0.67:9001;option tcplog;log stdout format raw local0" |
		sed 's/127.0.0.1:8080/10.1.0.1:8080/' | RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	began=${EPOCHREALTIME/./}
	spawn ping nsenter "--net=/run/netns/$CLIENT" "$PEER" ping --connect 10.1.0.1:8080 --connections 10 --count 5
	join ping 10 1
	ms=$(took_ms "$began")
	expect_ge "ms until all were reset" "$ms" 1000
	expect_le "ms until all were reset" "$ms" 2000
	expect_eq "resets" "$(field reset "$T/ping.out")" 10
	wait_until "a log line for each" 5 equals 10 grep -c ' sC ' "$T/shunt.out"
}

retries_without_redispatch_wait_for_the_same_server()
{
	backend "retries 3;no option redispatch;server a 127.0.0.1:9001;server b 127.0.0.1:9002 weight 0" | start_shunt
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --count 5
	wait_until "a failed connect" 5 at_least 1 cell l a econ
	spawn_server a echo --listen 127.0.0.1:9001
	join ping 10
	expect_ge "retries" "$(cell l a wretr)" 1
	expect_eq "redispatches" "$(cell l a wredis)" 0
}

clients_that_leave_during_the_connect_leave_nothing()
{
	local before n

	hosts
	black_hole 66
	backend "timeout connect 20s;server hole 10.2.0.66:9001" |
		sed 's/127.0.0.1:8080/10.1.0.1:8080/' | RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	before=$(descriptors)
	for n in 1 2 3 4 5; do
		spawn "gone$n" nsenter "--net=/run/netns/$CLIENT" socat -u TCP:10.1.0.1:8080,linger=0 -
	done
	wait_until "five sessions" 5 equals 5 info CurrConns
	kill_now gone1 gone2 gone3 gone4 gone5 # lingering for 0 s, they reset
	wait_until "CurrConns 0" 2 equals 0 info CurrConns
	expect_no_leftovers "$before"
}

run sessions_are_spread_by_weight_exactly
run sessions_are_spread_evenly_while_they_come_and_go
run a_server_that_refuses_is_left_out_and_comes_back
run nobody_there_is_a_prompt_reset
run a_black_hole_costs_a_timeout_and_then_the_next_server_has_it
run only_black_holes_are_a_reset_after_the_timeouts
run retries_without_redispatch_wait_for_the_same_server
run clients_that_leave_during_the_connect_leave_nothing
net_end
