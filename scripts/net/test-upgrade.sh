#!/bin/bash
# test-upgrade.sh - another program takes the daemon's place while sessions go on; and what happens when it cannot.

# shellcheck disable=SC2016 # scripts in scripts
# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# fail_to_upgrade SECONDS MESSAGE: sends the signal; returns when the old program has said that it goes on.
fail_to_upgrade()
{
	kill -USR2 "${PID[shunt]}"
	wait_until "the message '$2'" "$1" has_line "$T/shunt.err" "$2"
}

# What both hosts know of the connections: addresses, ports, and the kernel's number of each socket.
sockets()
{
	ss -tneHO state established "( sport = :9001 or dport = :8080 )" |
		sed -n 's/.* \([0-9.]*:[0-9]*\) *\([0-9.]*:[0-9]*\) .*\(ino:[0-9]*\).*/\1 \2 \3/p' | sort
}

sessions_do_not_notice_an_upgrade()
{
	local before counted

	install_daemon
	config "splice require" "" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	client calm 30 ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 500 --interval-us 2000
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 2500 --interval-us 2000
	wait_until "eight sessions" 5 equals 8 info CurrConns
	before=$(sockets)
	counted=$(info Uptime_sec)
	expect_eq "the program's version" "$(ask "show info" | sed -n 's/^Version: //p')" 0.1.0
	install_next "$NEXT"
	upgrade
	expect_match "the program's version" "$(ask "show info" | sed -n 's/^Version: //p')" "-next$"
	expect_eq "the sockets of both sides" "$(sockets)" "$before"
	expect_ge "the seconds that it is up" "$(info Uptime_sec)" "$counted"
	upgrade
	expect_eq "the sockets of both sides" "$(sockets)" "$before"
	is_running ping || fail "expected traffic during the upgrades, got its end before"
	join ping 30
	note "p99 $(field p99_us "$T/ping.out") us and most $(field max_us "$T/ping.out") us across two upgrades; $(field p99_us "$T/calm.out") and $(field max_us "$T/calm.out") us without"
	expect_eq "sessions in all" "$(info CumConns)" 16
	expect_eq SessionsAdopted "$(info SessionsAdopted)" 16
	expect_eq SessionsLost "$(info SessionsLost)" 0
	expect_eq WorkerDeaths "$(info WorkerDeaths)" 0
	expect_eq Upgrades "$(info Upgrades)" 2
	expect_eq UpgradesFailed "$(info UpgradesFailed)" 0
	expect_gt "the FINs that the program has seen in all" "$(info Verdict_fin)" 0
}

# upgraded_under_load GLOBAL LISTEN: every other time to another version with another program in the kernel.
upgraded_under_load()
{
	local upgrades=0 sessions before lost

	sessions=$(full 600 2000)
	install_daemon
	cp "$DAEMON" "$T/one"
	config "$1" "$2" | start_shunt shunt -W
	spawn_server serve serve --listen 127.0.0.1:9001 --forgive-resets
	upgrade # the first supervisor has other descriptors of its own than those that took over
	before=$(descriptors)
	spawn drive "$PEER" drive --connect 127.0.0.1:8080 --sessions "$sessions" --concurrency 32 --delays 50 --reset 10 \
		--timeout 30 --forgive-resets
	while is_running drive; do
		if ((upgrades % 2)); then install_next "$T/one"; else install_next "$NEXT"; fi
		upgrade
		upgrades=$((upgrades + 1))
		nap "0.$((RANDOM % 3))$((RANDOM % 10))"
	done
	join drive 120
	stop_server serve
	expect_ge "upgrades" "$upgrades" "$(full 3 6)"
	lost=$(info SessionsLost)
	note "$upgrades upgrades, $(field forgiven "$T/drive.out") of $sessions sessions reset, $lost lost"
	expect_eq "sessions that were reset" "$(field forgiven "$T/drive.out")" 0
	expect_eq SessionsLost "$lost" 0
	expect_no_leftovers "$before"
}

# goes_on_with_the_old_one SECONDS MESSAGE: eight sessions go on while an upgrade fails, and so do new ones.
goes_on_with_the_old_one()
{
	local before failed

	before=$(sockets)
	failed=$(info UpgradesFailed)
	fail_to_upgrade "$1" "$2"
	wait_until "UpgradesFailed to grow" 5 equals $((failed + 1)) info UpgradesFailed
	wait_until "its answer" 10 equals 8 info CurrConns
	expect_eq "the sockets of both sides" "$(sockets)" "$before"
	client more 10 ping --connect 127.0.0.1:8080 --count 10
	is_running ping || fail "expected traffic during the upgrade, got its end before"
	wait_until "the new client's end" 5 equals 8 info CurrConns
	expect_eq SessionsLost "$(info SessionsLost)" 0
}

begin_with_eight()
{
	install_daemon
	export NOTIFY_SOCKET=$T/notify.sock
	spawn manager socat -u "UNIX-RECV:$NOTIFY_SOCKET" "CREATE:$T/notified"
	wait_until "the service manager's socket" 5 test -S "$NOTIFY_SOCKET"
	config "splice require" "" | start_shunt shunt -W -p "$T/shunt.pid"
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 100000 --interval-us 10000 --timeout 60
	wait_until "eight sessions" 5 equals 8 info CurrConns
}

program_that_cannot_run_changes_nothing()
{
	begin_with_eight
	install_script 'exit 7'
	goes_on_with_the_old_one 10 "upgrade: the new program ended with status 7: the old one goes on"
	echo "no program" > "$T/text"
	install_next "$T/text"
	goes_on_with_the_old_one 10 "upgrade: cannot run .*daemon: Exec format error"
	# And one that can run does, after that.
	install_next "$NEXT"
	upgrade
	wait_until "eight sessions" 5 equals 8 info CurrConns
	wait_until "what the service manager was told" 5 has_line "$T/notified" "^READY=1MAINPID=[0-9]*READY=1MAINPID=${PID[shunt]}$"
}

program_that_says_nothing_changes_nothing()
{
	begin_with_eight
	install_script 'exec sleep 1000'
	goes_on_with_the_old_one 20 "upgrade: the new program was killed by signal 9 (Killed): the old one goes on"
}

is_another_process()
{
	[ "$(cat "$T/shunt.pid")" != "$1" ]
}

# It passes its trial, and fails when it is too late for the old program to go on in its place: then the guardian does.
guarded()
{
	local supervisor=${PID[shunt]}

	disown "$supervisor" # or bash would tell of its end
	kill -USR2 "$supervisor"
	wait_until "the message of the guardian" 20 has_line "$T/shunt.err" "$1"
	wait_until "the guardian's number in the pid file" 10 is_another_process "$supervisor"
	PID[shunt]=$(cat "$T/shunt.pid")
	wait_until "what the service manager was told" 5 equals "READY=1MAINPID=${PID[shunt]}" cat "$T/notified"
	wait_until "its answer" 10 equals 8 info CurrConns
	client more 10 ping --connect 127.0.0.1:8080 --count 10
	is_running ping || fail "expected traffic during the upgrade, got its end before"
	wait_until "the new client's end" 5 equals 8 info CurrConns
	expect_eq SessionsLost "$(info SessionsLost)" 0
	expect_eq Upgrades "$(info Upgrades)" 0
	expect_eq UpgradesFailed "$(info UpgradesFailed)" 1
	# It is a supervisor like any other.
	kill -KILL "$(worker shunt)"
	wait_until "the worker's death, and the other program's" 10 equals 2 info WorkerDeaths
	wait_until "eight sessions" 5 equals 8 info CurrConns
	install_next "$NEXT"
	upgrade
	wait_until "eight sessions" 5 equals 8 info CurrConns
	kill -TERM "${PID[ping]}"
	PID[ping]=
	end_guardian
}

program_that_ends_at_the_wrong_time_is_given_up()
{
	begin_with_eight
	cp "$DAEMON" "$T/real"
	install_script 'case $SHUNT_HANDOVER in trial*) exec '"$T/real"' "$@" ;; esac' 'exit 1'
	guarded "the new program ended before it was ready: process [0-9]* goes on with the old one"
}

program_that_is_never_ready_is_given_up()
{
	begin_with_eight
	cp "$DAEMON" "$T/real"
	install_script 'case $SHUNT_HANDOVER in trial*) exec '"$T/real"' "$@" ;; esac' 'exec sleep 1000'
	guarded "the new program was not ready in time: process [0-9]* goes on with the old one"
}

goes_on_or_is_gone()
{
	is_another_process "$1" || ! pgrep -f "^$T/daemon " > "$T/others"
}

# Somebody kills the new program while its worker takes over, or just after: whoever goes on, every session does.
killed_while_it_takes_over()
{
	local supervisor

	install_daemon
	config "$1" "$2" | start_shunt shunt -W -p "$T/shunt.pid"
	supervisor=${PID[shunt]}
	disown "$supervisor"
	spawn_server serve serve --listen 127.0.0.1:9001
	spawn drive "$PEER" drive --connect 127.0.0.1:8080 --sessions 600 --concurrency 32 --delays 50 --reset 10 --timeout 30
	wait_until "sessions" 10 at_least 20 info CurrConns
	kill -USR2 "$supervisor"
	until has_line "$T/shunt.err" "path: taken over"; do # wait_until would look too seldom
		is_running shunt || fail "expected the new program, got none"
	done
	nap "0.00$((RANDOM % 10))"
	kill -KILL "$supervisor"
	wait_until "the guardian, or nobody" 10 goes_on_or_is_gone "$supervisor"
	PID[shunt]=
	if ! is_another_process "$supervisor"; then
		note "it was ready" # and so nobody is left
		kill_now drive serve
		return
	fi
	PID[shunt]=$(cat "$T/shunt.pid")
	join drive 60
	stop_server serve
	expect_eq SessionsLost "$(info SessionsLost)" 0
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	end_guardian
}

# A configuration that passes the trial and fails afterwards: what had been taken over is left to the guardian as it was.
program_that_fails_in_order_leaves_everything_as_it_was()
{
	local pins supervisor

	begin_with_eight # "$1": where its bad stats socket stands, before or behind the good one
	supervisor=${PID[shunt]}
	disown "$supervisor"
	pins=$(ls "$PINS")
	cp "$T/shunt.cfg" "$T/as-it-was"
	if [ "$1" = before ]; then
		sed "s|^global|global\n stats socket $T/nowhere/stats.sock|" "$T/as-it-was" > "$T/shunt.cfg"
	else
		printf '%s\nglobal\n  stats socket %s/nowhere/stats.sock\n' "$(cat "$T/as-it-was")" "$T" > "$T/shunt.cfg"
	fi
	kill -USR2 "$supervisor"
	wait_until "the guardian's number in the pid file" 20 is_another_process "$supervisor"
	PID[shunt]=$(cat "$T/shunt.pid")
	wait_until "its answer" 10 equals 8 info CurrConns
	expect_eq "the pins" "$(ls "$PINS")" "$pins"
	expect_eq SessionsLost "$(info SessionsLost)" 0
	# Somebody has removed the file of the stats socket: the next program makes it anew.
	rm "$STATS"
	cp "$T/as-it-was" "$T/shunt.cfg"
	install_next "$NEXT"
	upgrade
	expect_eq "the pins" "$(ls "$PINS")" "$pins"
	wait_until "eight sessions" 5 equals 8 info CurrConns
	kill -TERM "${PID[ping]}"
	PID[ping]=
	end_guardian
}

other_configurations_are_refused_or_taken()
{
	begin_with_eight
	cp "$T/shunt.cfg" "$T/as-it-was"
	sed -i 's/server s1 /server s2 /' "$T/shunt.cfg"
	goes_on_with_the_old_one 10 "cannot take over: the checksum of the names of proxies and servers.* that needs a restart"
	sed 's/^global/global\n maxconn 77/' "$T/as-it-was" > "$T/shunt.cfg"
	goes_on_with_the_old_one 10 "cannot take over: the maxconn is 77, and [0-9]* in the running shunt: that needs a restart"
	sed 's/splice require/nosplice/' "$T/as-it-was" > "$T/shunt.cfg"
	goes_on_with_the_old_one 10 "cannot take over: the running shunt has sessions in the kernel"
	sed 's/^global/global\n tune.splice.limit 8m/' "$T/as-it-was" > "$T/shunt.cfg"
	goes_on_with_the_old_one 10 "cannot take over: the tune.splice.limit is 8388608, and 2097152 in the running shunt: that needs a restart"
	sed 's|^global|global\n bpf-pin-path /sys/fs/bpf/other|' "$T/as-it-was" > "$T/shunt.cfg"
	goes_on_with_the_old_one 10 "cannot take over: the checksum of bpf-pin-path"
	echo nonsense > "$T/shunt.cfg"
	goes_on_with_the_old_one 10 "shunt.cfg:1.*nonsense"
	# Names are the same: the rest may change.
	sed 's/^listen l/listen l\n timeout client 3s\n maxconn 10/' "$T/as-it-was" > "$T/shunt.cfg"
	upgrade
	wait_until "eight sessions" 5 equals 8 info CurrConns
	expect_eq "its limit" "$(cell l FRONTEND slim)" 10
}

no_client_is_refused_during_upgrades()
{
	local began most=0 took i

	install_daemon
	config "maxconn 5000;splice require" "" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn hold "$PEER" hold --connect 127.0.0.1:8080 --connections 4000 --seconds 10
	wait_until "4000 sessions" 30 has_line "$T/hold.out" holding
	for i in 1 2 3; do
		kill -USR2 "${PID[shunt]}"
		until [ "$(times_said "sessions taken over")" -ge "$i" ]; do
			began=${EPOCHREALTIME/./}
			"$PEER" ping --connect 127.0.0.1:8080 --count 1 > "$T/one.out" # served, or the test fails
			took=$(((${EPOCHREALTIME/./} - began) / 1000))
			most=$((took > most ? took : most))
		done
		wait_until "4000 sessions" 5 at_least 4000 info CurrConns
	done
	join hold 60
	note "the longest wait of a new client, with 4000 sessions: $most ms (taking over: $(sed -n "s/.*taken over: .*, in \([0-9]*\) ms/\1/p" "$T/shunt.err" | paste -sd " "))"
	expect_lt "that" "$most" 1500
	expect_eq SessionsLost "$(info SessionsLost)" 0
}

daemon_in_the_background_is_upgraded_and_ends_in_order()
{
	local pid

	install_daemon
	mkdir "$T/there"
	config "daemon;pidfile $T/shunt.pid" "" > "$T/there/shunt.cfg"
	(cd "$T/there" && "$DAEMON" -f shunt.cfg -W > "$T/shunt.out" 2> "$T/shunt.err")
	pid=$(cat "$T/shunt.pid")
	PID[shunt]=$pid
	spawn_server echo echo --listen 127.0.0.1:9001
	client before 10 ping --connect 127.0.0.1:8080 --count 10
	install_next "$NEXT"
	kill -USR2 "$pid"
	wait_until "the other version" 20 is_version next
	expect_eq "its number" "$(cat "$T/shunt.pid")" "$pid"
	client after 10 ping --connect 127.0.0.1:8080 --count 10
	expect_eq "sessions in all" "$(info CumConns)" 2
	kill -TERM "$pid"
	wait_until "its end" 10 has_ended shunt
	PID[shunt]=
	[ ! -e "$T/shunt.pid" ] || fail "expected no pid file, got one"
	[ ! -e "$STATS" ] || fail "expected no stats socket, got one"
	[ ! -e "$PINS" ] || fail "expected no pins, got $PINS"
}

is_version()
{
	[[ $(ask "show info" 2> /dev/null | sed -n 's/^Version: //p') == *"$1" ]]
}

signals_during_an_upgrade_are_not_lost()
{
	local i

	for i in 1 2 3 4 5 6; do
		install_daemon
		config "" "" | start_shunt "shunt$i" -W
		PID[shunt]=${PID[shunt$i]}
		kill -USR2 "${PID[shunt]}"
		nap "0.0$((i * 3))"
		kill -TERM "${PID[shunt]}"
		join "shunt$i" 20
		DAEMON=$BIN/balancer
	done
	PID[shunt]=
}

# The second one comes when the new program does not serve yet, and its guardian still has copies of all descriptors.
an_upgrade_that_is_asked_for_during_another_comes_after_it()
{
	begin_with_eight
	kill -USR2 "${PID[shunt]}"
	until has_line "$T/shunt.err" "upgrade: the new program takes over"; do # wait_until would look too seldom
		is_running shunt || fail "expected the daemon, got none"
	done
	kill -USR2 "${PID[shunt]}"
	wait_until "two upgrades" 20 equals 2 info Upgrades
	wait_until "its supervisor alone" 5 equals 1 children
	wait_until "eight sessions" 5 equals 8 info CurrConns
	client more 10 ping --connect 127.0.0.1:8080 --count 10
	is_running ping || fail "expected traffic during the upgrades, got its end before"
	expect_eq UpgradesFailed "$(info UpgradesFailed)" 0
	expect_eq SessionsLost "$(info SessionsLost)" 0
	kill -TERM "${PID[ping]}"
	PID[ping]=
}

without_a_supervisor_the_signal_is_refused()
{
	install_daemon
	config "no master-worker" "" | start_shunt
	kill -USR2 "${PID[shunt]}"
	wait_until "the message" 5 has_line "$T/shunt.err" "SIGUSR2: there is no supervisor, and only that can upgrade the program"
}

run sessions_do_not_notice_an_upgrade
run no_client_is_refused_during_upgrades
run upgrades_under_load_on_all_paths upgraded_under_load "" ""
run upgrades_under_load_in_userspace upgraded_under_load "" "no option splice-auto"
run upgrades_under_load_in_the_kernel upgraded_under_load "splice require" "$KERNEL"
run program_that_cannot_run_changes_nothing
run program_that_says_nothing_changes_nothing
run program_that_ends_at_the_wrong_time_is_given_up
run program_that_is_never_ready_is_given_up
for n in $(seq "$(full 2 6)"); do
	run "program_that_is_killed_while_it_takes_over_$n" killed_while_it_takes_over "splice require" "$KERNEL"
done
for where in before behind; do
	run "program_that_fails_in_order_leaves_everything_as_it_was_$where" program_that_fails_in_order_leaves_everything_as_it_was "$where"
done
run other_configurations_are_refused_or_taken
run daemon_in_the_background_is_upgraded_and_ends_in_order
run signals_during_an_upgrade_are_not_lost
run an_upgrade_that_is_asked_for_during_another_comes_after_it
run without_a_supervisor_the_signal_is_refused
net_end
