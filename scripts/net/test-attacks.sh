#!/bin/bash
# test-attacks.sh - those who mean harm, and a machine that runs out: crowds of silent and half-open connections, floods of tiny segments,
# no memory, a full disk behind the log. Others are served meanwhile, counters say what was refused, memory has a bound, and all of it is
# free afterwards.
#
# Elsewhere: no descriptors, maxconn, a thousand silent or vanished clients (test-limits.sh); a log's reader that stops or is gone
# (test-logs.sh); crowds and garbage at the stats socket (test-bad-input.sh); readers that stand still (test-slow-readers.sh). A clock that
# jumps is not here, since it would jump for the whole machine: timers ask CLOCK_MONOTONIC, only the time in a log line is the other one.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck disable=SC2153 # CLIENT and the like are hosts, of lib.sh
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

GROUP=shunt-test-$RANDOM
P99_US=250000 # what an echo beside an attack may take; the machine may be small

# expect_quick NAME: a ping that is over.
expect_quick()
{
	local p99

	p99=$(field p99_us "$T/$1.out")
	note "p99 of $1 $p99 us"
	expect_le "p99 of $1 in us" "${p99%.*}" "$P99_US"
}

# silent_clients COUNT: connects and says nothing, until it is killed.
silent_clients()
{
	local i fd

	for ((i = 0; i < $1; i++)); do
		# shellcheck disable=SC2034 # it is there to be open
		exec {fd}<> "/dev/tcp/127.0.0.1/8080" || exit 1
	done
	: > "$T/all-silent"
	sleep 1000
}

# More than maxconn allows: those who have a place keep it until their time is over, the others wait in the backlog, and cost nothing.
silent_crowd_beyond_maxconn()
{
	local before rss

	two_listens 9001 "splice require" "timeout client 3s;maxconn 200" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	rss=$(memory shunt VmRSS)
	spawn ping "$PEER" ping --connect 127.0.0.1:8081 --connections 4 --count 1500 --interval-us 2000
	wait_until "the others" 5 equals 4 cell l2 FRONTEND scur
	spawn silent silent_clients 600
	wait_until "all of the crowd" 20 test -e "$T/all-silent"
	wait_until "a full frontend" 5 equals 200 cell l FRONTEND scur
	expect_le "most sessions of the frontend" "$(cell l FRONTEND smax)" 200
	join ping 20
	expect_quick ping
	expect_le "growth of the daemon's memory in kB" $(($(memory shunt VmRSS) - rss)) 8192
	# One lot after the other gets its place, and loses it.
	wait_until "all of them to be timed out" 30 equals 600 cell l FRONTEND stot
	wait_until "all of them to be gone" 10 equals 0 info CurrConns
	expect_no_leftovers "$before"
	client after 10 ping --connect 127.0.0.1:8080 --connections 10 --count 10
}

# of_kernel NAME: a counter of TcpExt, on the balancer.
of_kernel()
{
	on "$BALANCER" cat /proc/net/netstat | awk -v name="$1" '
		$1 == "TcpExt:" && !n { n = split($0, names, " "); next }
		$1 == "TcpExt:" { for (i = 2; i <= n; i++) if (names[i] == name) print $i }'
}

three_hosts()
{
	hosts
	config "splice require" "$1" | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	spawn echo nsenter "--net=/run/netns/$SERVER" "$PEER" echo --listen 10.2.0.2:9001
	wait_until "the server to listen" 10 has_line "$T/echo.out" '^ready'
}

# The kernel answers with cookies, and the daemon never hears of it.
half_open_connections_are_the_kernels_affair()
{
	local count before rss i

	count=$(full 20000 200000)
	three_hosts ""
	before=$(descriptors)
	rss=$(memory shunt VmRSS)
	spawn old nsenter "--net=/run/netns/$CLIENT" "$PEER" ping --connect 10.1.0.1:8080 --connections 8 --count 1000 --interval-us 2000
	wait_until "established sessions" 10 at_least 8 info CurrConns
	spawn flood nsenter "--net=/run/netns/$CLIENT" "$FLOOD" syn 10.1.0.1:8080 10.1.0.0 "$count"
	for i in 1 2 3 4 5; do
		nsenter "--net=/run/netns/$CLIENT" "$PEER" ping --connect 10.1.0.1:8080 --connections 20 --count 5 > "$T/new.out" ||
			fail "expected new clients to be served, got: $(cat "$T/new.out")"
	done
	join flood 60
	join old 30
	expect_eq "segments sent" "$(field sent "$T/flood.out")" "$count"
	note "$(of_kernel SyncookiesSent) cookies"
	expect_gt "SYN cookies" "$(of_kernel SyncookiesSent)" 1000
	expect_quick old
	expect_eq "sessions in all" "$(info CumConns)" 108
	expect_le "growth of the daemon's memory in kB" $(($(memory shunt VmRSS) - rss)) 4096
	expect_no_leftovers "$before"
}

# What the system gives to a connection without us; it may be several MB.
small_buffers()
{
	echo "4096 131072 1048576" > /proc/sys/net/ipv4/tcp_rmem
	echo "4096 65536 1048576" > /proc/sys/net/ipv4/tcp_wmem
}

# Watches until it is killed: the most memory, in kB, that the sockets in this network (and no other's) were seen to hold, in $T/held.max.
watch_sockets()
{
	local max=0 now

	trap - ERR # who is killed has not failed
	while :; do
		now=$(ss -Htmn | grep -o 'skmem:([^)]*' | awk -F '[(,]' '
			{ for (i = 2; i <= NF; i++) if ($i ~ /^[rw][0-9]/) sum += substr($i, 2) } END { printf "%d", sum / 1024 }')
		[ "$now" -le "$max" ] || { max=$now; echo "$max" > "$T/held.new"; mv "$T/held.new" "$T/held.max"; }
		nap 0.1
	done
}

# flooded LISTEN MODE ARGUMENT...: sessions of the attacker's, others beside them, and what all sockets hold meanwhile.
flooded()
{
	local listen=$1 mode=$2 connections=$3 seconds=$4 before rss

	shift 4
	small_buffers
	two_listens 9001 "splice require" "$listen" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	rss=$(memory shunt VmRSS)
	spawn memory watch_sockets
	spawn flood "$FLOOD" "$mode" 127.0.0.1:8080 "$connections" "$seconds" "$@"
	wait_until "the flood" 10 has_line "$T/flood.out" connected
	wait_until "its sessions" 10 at_least "$connections" info CurrConns
	client ping 60 ping --connect 127.0.0.1:8081 --connections 8 --count 200 --interval-us 5000 --timeout 60
	expect_quick ping
	is_running flood || fail "expected the flood to go on, got it ended: $(cat "$T/flood.err")"
	join flood $((seconds + 20))
	kill_now memory
	HELD=$(cat "$T/held.max")
	note "$HELD kB in all sockets at most"
	expect_gt "bytes sent" "$(field sent "$T/flood.out")" 10000
	expect_le "growth of the daemon's memory in kB" $(($(memory shunt VmRSS) - rss)) 32768
	wait_until "CurrConns 0" 20 equals 0 info CurrConns
	expect_no_leftovers "$before"
	client after 10 ping --connect 127.0.0.1:8080 --connections 10 --count 10
}

tiny_segments()
{
	flooded "$1" bytes 32 "$(full 4 6)"
	expect_le "memory of 32 sessions' sockets in kB" "$HELD" $((32 * 1024))
}

# They send and read nothing, so that each buffer on the way fills, with segments that weigh hundreds of times their bytes.
deaf_senders()
{
	flooded "$1" deaf 32 "$(full 5 6)" "$2"
	# Of each session: eight buffers (2 MB of memory at most for 1 MB of bytes, and what we ask for), most of which are full.
	expect_le "memory of 32 sessions' sockets in kB" "$HELD" $((32 * 16 * 1024))
}

# make_memory_group LIMIT: a control group in which so much memory is allowed, TCP's included; $T/into-the-group starts a command in it.
make_memory_group()
{
	local v1 v2

	v1=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
	v2=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
	if [ -e "$v1/memory.kmem.tcp.limit_in_bytes" ]; then
		MEMORY_GROUP=$v1/$GROUP
		mkdir "$MEMORY_GROUP"
		echo "$1" > "$MEMORY_GROUP/memory.limit_in_bytes"
		echo "$1" > "$MEMORY_GROUP/memory.kmem.tcp.limit_in_bytes"
	elif [ -w "$v2/memory.max" ]; then
		MEMORY_GROUP=$v2/$GROUP
		mkdir "$MEMORY_GROUP"
		echo "$1" > "$MEMORY_GROUP/memory.max"
	else
		skip "no control group for memory can be made here"
	fi
	echo "$MEMORY_GROUP" > "$HOME_DIR/memory-group"
	printf '#!/bin/sh\necho $$ > %s/cgroup.procs\nexec "$@"\n' "$MEMORY_GROUP" > "$T/into-the-group"
	chmod +x "$T/into-the-group"
}

# Where it ends however the test does: when nobody is in it any more.
remove_memory_group()
{
	local group

	[ -e "$HOME_DIR/memory-group" ] || return 0
	group=$(cat "$HOME_DIR/memory-group")
	rm "$HOME_DIR/memory-group"
	rmdir "$group"
}

# The kernel takes a little more than the limit, and then less from everybody; nobody is killed, nobody loses a byte. (With much less than
# this, what waits behind a send queue that refuses for want of memory is charged to nobody, and has a bound for each session alone: decision 008.)
little_memory()
{
	make_memory_group 64M
	RUN_AS=$T/into-the-group flooded "$1" deaf 64 "$(full 5 8)" 65536
	expect_le "memory of 64 sessions' sockets in kB" "$HELD" $((64 * 8 * 1024))
}

# A disk of 64 kB, and 20 of these go to the log. Others do not notice; lines are lost, and counted; when there is room again they come.
full_disk_behind_the_log()
{
	local dropped before

	mkdir "$T/disk"
	mount -t tmpfs -o size=64k tmpfs "$T/disk"
	printf '#!/bin/sh\nexec "$@" >> %s/log\n' "$T/disk" > "$T/to-the-disk"
	chmod +x "$T/to-the-disk"
	config "splice require" "option tcplog;log stdout format raw local0" | RUN_AS=$T/to-the-disk start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --count 500 --interval-us 2000
	client hold 60 hold --connect 127.0.0.1:8080 --connections 1500 --seconds 0
	join ping 20
	expect_quick ping
	wait_until "CurrConns 0" 5 equals 0 info CurrConns
	dropped=$(info DroppedLogs)
	expect_gt DroppedLogs "$dropped" 500
	expect_eq "lines on the disk, and lost" $(($(wc -l < "$T/disk/log") + dropped)) 1504
	: > "$T/disk/log"
	client ping 10 ping --connect 127.0.0.1:8080 --count 1
	wait_until "a line" 5 has_line "$T/disk/log" ' l l/s1 '
	expect_no_leftovers "$before"
	kill -TERM "${PID[shunt]}"
	join shunt 10 0
	umount "$T/disk"
}

# put_clock SECONDS: forward, or back, from what it really is.
put_clock()
{
	python3 -c 'import struct, sys; sys.stdout.buffer.write(struct.pack("=q", int(sys.argv[1])))' "$1" |
		dd of="$SHUNT_CLOCK" conv=notrunc status=none
}

# A day forward, two days back, fifty years forward, and right again. Timeouts are what they were, and only dates in the log are not.
clock_that_jumps()
{
	local year began took i=0

	export SHUNT_CLOCK=$T/clock
	DAEMON=$JUMPY
	put_clock 0
	config "splice require" "timeout client 3s;timeout server 3s;option tcplog;log stdout format raw local0" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --connections 4 --count 2000 --interval-us 2000
	began=${EPOCHREALTIME/./}
	spawn idle "$PEER" hold --connect 127.0.0.1:8080 --connections 2 --seconds 60
	wait_until "six sessions" 5 equals 6 info CurrConns
	for seconds in 86400 -172800 1600000000 0; do
		put_clock "$seconds"
		nap 0.4
		client "new$((++i))" 10 ping --connect 127.0.0.1:8080 --count 10
	done
	join idle 10 1
	took=$(((${EPOCHREALTIME/./} - began) / 1000))
	note "idle sessions ended after $took ms"
	expect_ge "ms until idle sessions ended" "$took" 2900
	expect_le "ms until idle sessions ended" "$took" 5000
	join ping 20
	expect_quick ping
	wait_until "all log lines" 5 equals 10 grep -c ' l l/s1 ' "$T/shunt.out"
	year=$(date -d "@$((EPOCHSECONDS + 1600000000))" +%Y)
	expect_eq "sessions of $year" "$(grep -c "/$year:" "$T/shunt.out")" 1
	# wait/connect/total
	expect_eq "lines with strange times" "$(awk '{ split($5, t, "/"); if (t[1] != 0 || t[2] > 100 || t[3] < 0 || t[3] > 10000) print }' "$T/shunt.out")" ""
	expect_eq "sessions that timed out" "$(grep -c ' [cs]D ' "$T/shunt.out")" 2
	expect_eq WorkerDeaths "$(info WorkerDeaths)" 0
}

run silent_crowd_beyond_maxconn
run half_open_connections_are_the_kernels_affair
run tiny_segments_in_the_kernel tiny_segments "$KERNEL"
run tiny_segments_in_userspace tiny_segments "no option splice-auto"
run senders_of_tiny_segments_that_read_nothing deaf_senders "$KERNEL" 1
run senders_that_read_nothing deaf_senders "$KERNEL" 65536
run senders_that_read_nothing_in_userspace deaf_senders "no option splice-auto" 65536
# A peer with a tiny window makes many small buffers of few bytes, and fills a send queue before the limit in bytes is reached; what is passed behind that
# would be charged to nobody.
tiny_window()
{
	config "" "$1" | sed 's/bind 127.0.0.1:8080/bind 0.0.0.0:8080/' | start_shunt
	spawn attack python3 "$ROOT/tests/tools/tiny_window.py" "$2" 2 100000000
	join attack 60
	note "$(field taken "$T/attack.out") bytes were taken"
	expect_gt "bytes taken" "$(field taken "$T/attack.out")" 10000
	expect_le "bytes taken" "$(field taken "$T/attack.out")" 20000000
}

run clients_with_a_tiny_window_in_the_kernel tiny_window "$KERNEL" 100
run clients_with_a_tiny_window_in_userspace tiny_window "no option splice-auto" 100
run clients_with_a_window_in_the_kernel tiny_window "$KERNEL" 50000
run little_memory_in_the_kernel little_memory "$KERNEL"
remove_memory_group
run little_memory_in_userspace little_memory "no option splice-auto"
remove_memory_group
run full_disk_behind_the_log
run clock_that_jumps
net_end
