#!/bin/bash
# test-threads.sh - clients are divided between the daemon's threads, few of them and many.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# held_clients NUMBER: so many, whose sessions stay.
held_clients()
{
	spawn "held$1" "$PEER" hold --connect 127.0.0.1:8080 --connections "$1" --seconds 30
	wait_until "$1 clients to be served" 20 has_line "$T/held$1.out" holding
}

# of_each_thread: the sessions of each thread that has any, fewest first.
of_each_thread()
{
	ask "show sess" | grep -o ' thread=[0-9]*' | sort | uniq -c | awk '{ print $1 }' | sort -n | xargs
}

# balanced THREADS MAXCONN
balanced()
{
	config "nbthread $1;maxconn $2" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	expect_eq Nbthread "$(info Nbthread)" "$1"
}

eight_clients_are_four_and_four_on_two_threads()
{
	local round

	for round in 1 2 3 4 5; do
		balanced 2 1000
		held_clients 8
		expect_eq "the sessions of each thread in round $round" "$(of_each_thread)" "4 4"
		kill_now held8 echo
		end_shunt shunt INT 0
		SHUNTS=()
	done
}

two_hundred_clients_are_25_of_each_of_eight_threads_more_or_less()
{
	local all

	balanced 8 1000
	held_clients 200
	read -ra all <<< "$(of_each_thread)"
	note "${all[*]}"
	expect_eq "the number of threads with sessions" "${#all[@]}" 8
	expect_ge "the sessions of the thread with the fewest" "${all[0]}" 19
	expect_le "the sessions of the thread with the most" "${all[7]}" 31
}

new_clients_go_where_old_ones_have_left()
{
	balanced 2 1000
	held_clients 20
	held_clients 12
	kill_now held20
	wait_until "12 sessions" 10 equals 12 info CurrConns
	held_clients 8
	expect_eq "sessions" "$(info CurrConns)" 20
	note "$(of_each_thread)"
	expect_le "the sessions of the thread with the most" "$(of_each_thread | awk '{ print $NF }')" 12
}

# As many as all threads have room for, each for its share of 100.
every_place_of_every_thread_is_used()
{
	balanced 8 100
	held_clients 100
	expect_eq "the sessions of each thread" "$(of_each_thread)" "12 12 12 12 13 13 13 13"
}

there_is_a_thread_for_each_core_unless_the_configuration_says_otherwise()
{
	config "" "" | SHUNT_NBTHREAD='' start_shunt
	expect_eq Nbthread "$(info Nbthread)" "$(nproc)"
}

run eight_clients_are_four_and_four_on_two_threads
run two_hundred_clients_are_25_of_each_of_eight_threads_more_or_less
run new_clients_go_where_old_ones_have_left
run every_place_of_every_thread_is_used
run there_is_a_thread_for_each_core_unless_the_configuration_says_otherwise
net_end
