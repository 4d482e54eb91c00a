#!/bin/bash
# test-sandbox.sh - what the daemon gives up before its first client (docs/SECURITY.md), and that it serves all the same.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
needs strace
net_begin "$@"

NOBODY="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"
NET_ADMIN=0000000000001000

# A sanitized daemon does not restrict its system calls, since those of the sanitizer would be among them.
FILTERED=2
if is_sanitized; then
	FILTERED=0
	export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0" # for that it needs /proc, which the new root directory does not have
fi

# dropped: lines for `global`.
dropped()
{
	mkdir -p "$T/empty"
	echo "user nobody;group nogroup;chroot $T/empty;pidfile $T/pid"
}

# status FIELD [FILE]: of /proc/PID/status, words separated by one blank.
status()
{
	awk -v name="$1:" '$1 == name { $1 = ""; print substr($0, 2) }' "${2:-/proc/$(worker shunt)/status}"
}

# expect_dropped UID GID: by each thread of the one who serves.
expect_dropped()
{
	local task n=0

	for task in "/proc/$(worker shunt)/task/"*/status; do
		expect_eq "Uid" "$(status Uid "$task")" "$1 $1 $1 $1"
		expect_eq "Gid" "$(status Gid "$task")" "$2 $2 $2 $2"
		expect_eq "Groups" "$(status Groups "$task")" ""
		expect_eq "CapEff" "$(status CapEff "$task")" "$NET_ADMIN"
		expect_eq "CapPrm" "$(status CapPrm "$task")" "$NET_ADMIN"
		expect_eq "CapInh" "$(status CapInh "$task")" 0000000000000000
		expect_eq "CapBnd" "$(status CapBnd "$task")" 0000000000000000
		expect_eq "CapAmb" "$(status CapAmb "$task")" 0000000000000000
		expect_eq "NoNewPrivs" "$(status NoNewPrivs "$task")" 1
		expect_eq "Seccomp" "$(status Seccomp "$task")" "$FILTERED"
		n=$((n + 1))
	done
	expect_eq "threads" "$n" "$(info Nbthread)"
}

expect_no_noise()
{
	expect_eq "what is alarming" "$(grep -E 'ALERT|WARNING' "$T/shunt.err" || :)" ""
}

worker_has_dropped_all_but_what_is_named_here()
{
	config "$(dropped);nbthread 3" | start_shunt shunt -W
	expect_dropped 65534 65534
	expect_eq "its root directory" "$(readlink "/proc/$(worker shunt)/root")" "$T/empty"
	expect_eq "who may look into its memory" "$(stat -c %u "/proc/$(worker shunt)/mem")" 0 # not nobody's other processes
	expect_eq "the supervisor's user" "$(status Uid "/proc/${PID[shunt]}/status")" "0 0 0 0"
	expect_eq "the supervisor's root directory" "$(readlink "/proc/${PID[shunt]}/root")" /
	expect_no_noise
}

process_without_a_supervisor_has_too()
{
	config "$(dropped);nbthread 3" | start_shunt shunt -db
	expect_dropped 65534 65534
	expect_eq "its root directory" "$(readlink "/proc/${PID[shunt]}/root")" "$T/empty"
	expect_no_noise
}

root_without_a_user_has_no_capability_but_that_one()
{
	local groups

	groups=$(status Groups /proc/self/status)
	config "nbthread 3" | RUN_AS="setpriv --clear-groups" start_shunt
	expect_dropped 0 0
	[ -n "$groups" ] || note "(there were no groups to leave)"
}

user_alone_brings_his_group()
{
	config "user daemon" | start_shunt shunt -W
	expect_dropped 1 1
}

numbers_do_as_well()
{
	config "uid 4711;gid 4712" | start_shunt shunt -W
	expect_dropped 4711 4712
}

who_is_no_root_restricts_his_calls_all_the_same()
{
	chmod 777 "$T"
	config "maxconn 200" | RUN_AS=$NOBODY start_shunt
	expect_eq CapEff "$(status CapEff)" 0000000000000000
	expect_eq NoNewPrivs "$(status NoNewPrivs)" 1
	expect_eq Seccomp "$(status Seccomp)" "$FILTERED"
	serve_sessions
}

who_is_no_root_cannot_become_another()
{
	chmod 777 "$T"
	config "maxconn 200;nosplice;user daemon" | RUN_AS=$NOBODY refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "cannot leave the groups: Operation not permitted"
	config "maxconn 200;nosplice;chroot /" | RUN_AS=$NOBODY refuse_start 1 -W
	expect_match "the reason" "$(cat "$T/refused.err")" "cannot change the root directory: Operation not permitted"
	config "maxconn 200;nosplice;user nobody;group nogroup" | RUN_AS=$NOBODY start_shunt # who he is already
	expect_eq Uid "$(status Uid)" "65534 65534 65534 65534"
}

noseccomp_leaves_the_calls_alone()
{
	config "noseccomp;user nobody" | start_shunt shunt -W
	expect_eq Seccomp "$(status Seccomp)" 0
	expect_eq NoNewPrivs "$(status NoNewPrivs)" 1
	expect_eq CapEff "$(status CapEff)" "$NET_ADMIN"
}

serve_sessions()
{
	spawn_server serve serve --listen 127.0.0.1:9001
	client drive 60 drive --connect 127.0.0.1:8080 --sessions "$(full 200 1000)" --max-bytes 256k --delays 10 --slow 10 --reset 10 \
		--timeout 30
	stop_server serve
}

# serves MOVER LISTEN [ARGUMENT...]: random sessions and every edge case, with all of it given up; and what people ask meanwhile. MOVER
# (Kernel, User) is who is to move bytes. (For the kernel to do so maps are changed, which takes no capability.)
serves()
{
	local mover=$1 listen=$2 question before

	shift 2
	config "$(dropped)" "$listen;retries 0" | start_shunt shunt "$@"
	before=$(descriptors)
	serve_sessions
	expect_gt "bytes that the $mover path moved" "$(info "BytesIn$mover")" 0
	spawn edges "$CASES" --front 127.0.0.1:8080 --back 127.0.0.1:9001 --quick
	wait_until "edges to end" 60 has_ended edges
	expect_match "the last line of edges" "$(grep -v '^ok' "$T/edges.out" | paste -s -d ' ')" "^[0-9]+ passed, 0 failed"
	for question in "show info" "show stat" "show sess" "show sess all" "show servers state" "show version" help "show nothing"; do
		ask "$question" >> "$T/answers"
	done
	expect_match "the answers" "$(cat "$T/answers")" "Version: .*Unknown command"
	kill -HUP "${PID[shunt]}"
	wait_until "the servers' states" 5 has_line "$T/shunt.err" "server l/s1 is ready"
	expect_no_leftovers "$before"
	[ $# -eq 0 ] || expect_eq WorkerDeaths "$(info WorkerDeaths)" 0
}

# The send buffer that the kernel path needs is larger than net.core.wmem_max grants (here: 256 MB for a limit of 64 MB).
large_buffers_need_cap_net_admin()
{
	expect_lt "net.core.wmem_max" "$(cat /proc/sys/net/core/wmem_max 2> /dev/null || echo 212992)" $((128 << 20))
	config "$(dropped);splice require;tune.splice.limit 64m" "$KERNEL" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --size 1000 --count 100 --interval-us 20000
	wait_until "a session in the kernel" 5 at_least 1 info SessionsJoined
	expect_match "the server's socket" "$(ss -tnmHO "dport = :9001" | grep ESTAB | head -n 1)" "tb268435456"
	join ping 20
}

the_next_worker_adopts_and_drops_again()
{
	local old

	config "$(dropped);nbthread 3" "" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 1000 --interval-us 2000
	wait_until "eight sessions" 5 equals 8 info CurrConns
	for _ in 1 2 3; do
		old=$(worker shunt)
		kill -KILL "$old"
		wait_until "another worker" 10 has_another_worker "$old"
		wait_until "eight sessions" 5 equals 8 info CurrConns
		expect_dropped 65534 65534
	done
	join ping 30
	expect_eq SessionsLost "$(info SessionsLost)" 0
	expect_eq WorkerDeaths "$(info WorkerDeaths)" 3
}

# As root it takes everything over; its worker has nothing of that.
program_that_takes_over_drops_too()
{
	config "$(dropped);nbthread 3;splice require" "$KERNEL" | start_shunt shunt -W
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 1000 --interval-us 2000
	wait_until "eight sessions" 5 equals 8 info CurrConns
	for i in 1 2; do
		kill -USR2 "${PID[shunt]}"
		wait_until "another program" 20 has_taken_over "$i"
		wait_until "its supervisor alone" 5 equals 1 pgrep -c -P "${PID[shunt]}"
		expect_dropped 65534 65534
	done
	join ping 30
	expect_eq SessionsLost "$(info SessionsLost)" 0
	end_shunt shunt TERM 0
	expect_nothing_left
}

has_taken_over()
{
	[ "$(grep -c "sessions taken over" "$T/shunt.err")" -ge "$1" ]
}

has_another_worker()
{
	local now

	now=$(pgrep -P "${PID[shunt]}") && [ "$now" != "$1" ]
}

# One of its directions begins with the word, so whoever serves it tries. The others do not notice.
worker_that_attacks_its_supervisor_is_replaced()
{
	export SHUNT_MORTAL_WORD=poison SHUNT_MORTAL_MURDER=1
	DAEMON=$MORTAL
	config "" "no option splice-auto" | start_shunt shunt -W # as root, whose signals would arrive
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --size 100 --count 100 --interval-us 20000
	wait_until "four sessions" 5 equals 4 info CurrConns
	echo "poison and more" | socat -t 5 - TCP4:127.0.0.1:8080 > "$T/socat.out" 2> "$T/socat.err" || :
	wait_until "two deaths" 5 equals 2 info WorkerDeaths
	join ping 30
	expect_eq "deaths by a forbidden call" "$(grep -c "was killed by signal 31 (Bad system call)" "$T/shunt.err")" 2
	expect_eq SessionsLost "$(info SessionsLost)" 1
}

# The change of the user takes PR_SET_PDEATHSIG away; it must have been asked for again.
worker_dies_with_its_supervisor()
{
	local worker

	config "$(dropped)" | start_shunt shunt -W
	worker=$(worker shunt)
	kill_now shunt
	wait_until "the end of the worker" 5 test ! -e "/proc/$worker"
}

expect_nothing_left()
{
	local file

	for file in "$PINS" "$STATS" "$T/pid"; do
		[ ! -e "$file" ] || fail "expected no $file, got one"
	done
}

supervisor_removes_what_was_made()
{
	config "$(dropped);splice require" | start_shunt shunt -W
	[ -e "$PINS/flows" ] || fail "expected pins, got none"
	[ -S "$STATS" ] || fail "expected a stats socket, got none"
	[ -s "$T/pid" ] || fail "expected a pid file, got none"
	end_shunt shunt TERM 0
	expect_nothing_left
	expect_no_noise
}

# What it has shared with workers it takes apart when it has nothing left to give: after its files are removed, and capabilities and user
# given up.
supervisor_gives_its_privileges_up_at_its_end()
{
	config "$(dropped);splice require" | start_shunt shunt -W
	spawn tracer strace -o "$T/trace" -e trace=unlink,unlinkat,capset,setresuid,munmap -p "${PID[shunt]}"
	wait_until "the tracer" 10 has_line "$T/tracer.err" attached
	end_shunt shunt TERM 0
	join tracer 10
	# The largest is the ledger's room for what sessions hold.
	awk '/^unlinkat.*"flows"/ { said = said " pins" } /^unlink/ { late = n++ && user } /^setresuid/ { user = 1; said = said " user" }
		/^capset/ { said = said " capabilities" } /^munmap/ && $2 + 0 > 1e9 { said = said " ledger" }
		END { print said (late ? " file" : "") }' "$T/trace" > "$T/order"
	expect_eq "what it gave up, in order" "$(cat "$T/order")" " pins user capabilities ledger"
}

# Without a supervisor nobody is left who could remove them; the next start finds nobody who uses them.
without_one_the_next_start_replaces_it()
{
	for _ in 1 2; do
		config "$(dropped)" "$KERNEL" | start_shunt shunt -db
		serve_sessions
		end_shunt shunt TERM 0
		[ -e "$PINS/flows" ] || fail "expected the pins to stay, got none"
		expect_no_noise
	done
	rm -rf "$PINS"
}

root_without_a_user_removes_what_it_made()
{
	config "splice require;pidfile $T/pid" | start_shunt shunt -db
	end_shunt shunt TERM 0
	expect_nothing_left
	expect_no_noise
}

what_is_made_is_for_nobody_else()
{
	config "splice require;pidfile $T/pid" | sed "s/ level admin/ mode 600 level admin/" | (umask 0; start_shunt; stat -c '%a %u' "$PINS" "$PINS"/* "$STATS" > "$T/modes"; finish_test)
	expect_eq "the folder of pins" "$(sed -n 1p "$T/modes")" "700 0"
	expect_eq "the pins and the stats socket" "$(sed 1d "$T/modes" | sort -u)" "600 0"
	expect_eq "how many" "$(wc -l < "$T/modes")" 8
}

# closed_on_exec PID: how many descriptors there are; the test has failed if one of them would survive an exec(2).
closed_on_exec()
{
	local info n=0

	for info in "/proc/$1/fdinfo/"*; do
		case ${info##*/} in 0 | 1 | 2) continue ;; esac
		[ $((0$(awk '$1 == "flags:" { print $2 }' "$info") & 02000000)) -ne 0 ] ||
			fail "expected descriptor ${info##*/} to be closed on exec, got $(readlink "/proc/$1/fd/${info##*/}")"
		n=$((n + 1))
	done
	echo "$n"
}

# all_descriptors LISTEN [ARGUMENT...]: with sessions of all kinds, a stats client, a log of each kind.
all_descriptors()
{
	local listen=$1 n

	shift
	spawn log socat -u "UNIX-RECV:$T/log.sock,mode=777" "CREATE:$T/log.txt"
	wait_until "the receiver of the log" 5 test -S "$T/log.sock"
	config "user nobody;log $T/log.sock local0;log 127.0.0.1:5140 local0;log stdout format raw local0" "$listen;log global;option tcplog" |
		start_shunt shunt "$@"
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 8 --size 1000 --count 300 --interval-us 10000
	wait_until "eight sessions" 5 equals 8 info CurrConns
	"$PEER" ping --connect 127.0.0.1:8080 --count 1 > "$T/some.out"
	wait_until "a line in the log" 5 has_line "$T/log.txt" " l l/s1 "
	spawn client sh -c "{ echo prompt; sleep 20; } | socat - UNIX-CONNECT:$STATS"
	wait_until "a client at the stats socket" 5 has_line "$T/client.out" '^>'
	n=$(closed_on_exec "$(worker shunt)")
	expect_gt "descriptors" "$n" 25
	note "$n descriptors"
	kill_now client
	join ping 20
}

# What is not served where it looks for its log is dropped, and told to nobody.
log_socket_in_the_root_directory_is_found_again()
{
	mkdir -p "$T/empty$T"
	ln -s "$T/empty$T/log.sock" "$T/log.sock" # one socket, by the same name outside and inside
	for i in 1 2; do
		rm -f "$T/empty$T/log.sock"
		spawn "log$i" socat -u "UNIX-RECV:$T/empty$T/log.sock,mode=777" "CREATE:$T/log$i.txt"
		wait_until "the receiver of the log" 5 test -S "$T/empty$T/log.sock"
		[ "$i" -ne 1 ] || config "$(dropped);log $T/log.sock local0" "log global;option tcplog" | start_shunt shunt -W
		[ "$i" -ne 1 ] || spawn_server echo echo --listen 127.0.0.1:9001
		wait_until "a session's line" 10 session_leaves_a_line "$T/log$i.txt"
		kill_now "log$i"
	done
}

session_leaves_a_line()
{
	"$PEER" ping --connect 127.0.0.1:8080 --count 1 > "$T/some.out"
	nap 0.05
	has_line "$1" " l l/s1 "
}

in_the_background_it_is_the_same()
{
	local SHUNT_FLAGS= # -db would keep it in the foreground

	config "$(dropped);daemon;$1" | spawn_shunt shunt
	join shunt 10
	PID[shunt]=$(cat "$T/pid")
	expect_dropped 65534 65534
	expect_eq "its standard error" "$(readlink "/proc/$(worker shunt)/fd/2")" /dev/null
	serve_sessions
	kill -TERM "${PID[shunt]}"
	wait_until "its end" 10 test ! -e "/proc/${PID[shunt]}"
	PID[shunt]=
	rm -rf "$PINS"
}

run worker_has_dropped_all_but_what_is_named_here
run process_without_a_supervisor_has_too
run root_without_a_user_has_no_capability_but_that_one
run user_alone_brings_his_group
run numbers_do_as_well
run who_is_no_root_restricts_his_calls_all_the_same
run who_is_no_root_cannot_become_another
run noseccomp_leaves_the_calls_alone
run worker_serves_in_the_kernel serves Kernel "$KERNEL" -W
run worker_serves_in_userspace serves User "no option splice-auto" -W
run worker_serves_by_shunts_choice serves User "" -W
run process_serves_in_the_kernel serves Kernel "$KERNEL" -db
run process_serves_in_userspace serves User "no option splice-auto" -db
run large_buffers_need_cap_net_admin
run the_next_worker_adopts_and_drops_again
run program_that_takes_over_drops_too
[ "$FILTERED" -eq 0 ] || run worker_that_attacks_its_supervisor_is_replaced
run worker_dies_with_its_supervisor
run supervisor_removes_what_was_made
[ "$FILTERED" -eq 0 ] || run supervisor_gives_its_privileges_up_at_its_end # leaks cannot be looked for under strace
run without_one_the_next_start_replaces_it
run root_without_a_user_removes_what_it_made
run what_is_made_is_for_nobody_else
run descriptors_of_a_worker_are_closed_on_exec all_descriptors "" -W
run descriptors_of_a_process_are_closed_on_exec all_descriptors "$KERNEL" -db
run log_socket_in_the_root_directory_is_found_again
run worker_in_the_background_is_the_same in_the_background_it_is_the_same master-worker
run process_in_the_background_is_the_same in_the_background_it_is_the_same "no master-worker"
net_end
