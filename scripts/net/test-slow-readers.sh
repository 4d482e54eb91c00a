#!/bin/bash
# test-slow-readers.sh - readers that stop, that go on, that are slow: memory stays within the limit plus the sockets' buffers,
# everybody else keeps his latency, every byte arrives, and the mover may change as often as it likes.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# What one stopped reader may cost, in MB: the limit (2) and the buffers of the four sockets (4 and 6 are the kernel's largest, ours
# sends with 8); and what the machine may do besides.
READER_MB=32
NOISE_MB=64

total_bytes()
{
	ask "show info" | awk -F ': ' '/^Bytes(In|Out)(Kernel|User):/ { s += $2 } END { print s }'
}

# Are there sessions, and has nothing moved for 300 ms, but something before?
stands_still()
{
	local before

	[ "$(info CurrConns)" -gt 0 ] || return 1
	before=$(total_bytes)
	[ "$before" -gt 0 ] || return 1
	nap 0.3
	[ "$(total_bytes)" -eq "$before" ]
}

tcp_memory_kb()
{
	awk -v page="$(getconf PAGESIZE)" '$1 == "TCP:" { print int($NF * page / 1024) }' /proc/net/sockstat
}

# keep_memory MEGABYTES READERS COMMAND...: plays the command, in which so much waits for so many readers, and looks at the memory
# meanwhile. It is the whole machine's: others may be at work there, so it has three attempts.
keep_memory()
{
	local mb=$1 allowed=$(((NOISE_MB + $2 * READER_MB) * 1024)) before tcp_before used tcp_used

	shift 2
	for _ in 1 2 3; do
		rm -f "$T/memory.min" "$T/tcp.max"
		before=$(machine_memory MemAvailable)
		tcp_before=$(tcp_memory_kb)
		spawn watch watch_memory
		wait_until "a first look at the memory" 5 test -s "$T/memory.min"
		"$@"
		kill_now watch
		used=$((before - $(cat "$T/memory.min")))
		tcp_used=$(($(cat "$T/tcp.max" 2> /dev/null || echo "$tcp_before") - tcp_before))
		note "$((used / 1024)) MB of memory ($((tcp_used / 1024)) by TCP) for $mb MB that waited"
		[ "$used" -gt "$allowed" ] || [ "$tcp_used" -gt "$allowed" ] || break
	done
	expect_le "memory used by the machine in kB" "$used" "$allowed"
	expect_le "memory used by TCP in kB" "$tcp_used" "$allowed"
	note "daemon: $(memory shunt VmHWM) kB"
	expect_le "peak memory of the daemon in kB" "$(memory shunt VmHWM)" 65536
}

# A client of ours stops, and its end is awaited. The pause is over after 3 s; at 60 MB/s, which no path of ours is slower than, 1 GB
# takes 17.
download()
{
	spawn fetch ${CLIENT:+nsenter "--net=/run/netns/$CLIENT"} "$PEER" fetch --connect "$1" --bytes "$2m" \
		--pause-after 8m --pause-ms 3000
	wait_until "the download to stand still" 3 stands_still
	join fetch 20
}

upload()
{
	spawn push "$PEER" push --connect 127.0.0.1:8080 --bytes "$1m"
	wait_until "the upload to stand still" 3 stands_still
	join push 20
}

# stopped_download GLOBAL LISTEN
stopped_download()
{
	local mb

	mb=$(full 256 1024)
	config "$1" "$2" | start_shunt
	spawn_server source source --listen 127.0.0.1:9001 --bytes "${mb}m"
	keep_memory "$mb" 1 download 127.0.0.1:8080 "$mb"
	stop_server source
}

stopped_upload()
{
	local mb

	mb=$(full 256 1024)
	config "splice require" "" | start_shunt
	spawn_server sink sink --verify --listen 127.0.0.1:9001 --pause-after 8m --pause-ms 3000
	keep_memory "$mb" 1 upload "$mb"
	stop_server sink
}

# The same over wires with real windows and segments of 1500 bytes.
a_client_on_another_host_stops_with_much_behind_it()
{
	local mb

	mb=$(full 128 512)
	hosts
	config "splice require" "" | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	spawn source nsenter "--net=/run/netns/$SERVER" "$PEER" source --listen 10.2.0.2:9001 --bytes "${mb}m"
	wait_until "the source to listen" 10 has_line "$T/source.out" '^ready'
	keep_memory "$mb" 1 download 10.1.0.1:8080 "$mb"
	stop_server source
}

# Eight stop; a ninth plays ping-pong meanwhile.
eight_stop()
{
	local quiet busy

	client ping 20 ping --connect 127.0.0.1:8081 --count 500 --interval-us 1000
	quiet=$(field p99_us "$T/ping.out")
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes "$1m" --connections 8 --pause-after 4m --pause-ms 4000
	wait_until "eight downloads to stand still" 4 stands_still
	expect_eq "sessions" "$(info CurrConns)" 8
	client ping 20 ping --connect 127.0.0.1:8081 --count 1000 --interval-us 1000
	busy=$(field p99_us "$T/ping.out")
	is_running fetch || fail "expected the readers to be stopped still, got them ended"
	note "p99 $quiet us without, $busy us with them"
	expect_le "p99 of a round trip in us beside eight stopped readers" "${busy%.*}" 10000
	join fetch 60
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
}

eight_stopped_readers_disturb_nobody()
{
	local mb

	mb=$(full 64 128)
	two_listens 9002 "splice require" "" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9002
	spawn_server source source --listen 127.0.0.1:9001 --bytes "${mb}m"
	keep_memory $((8 * mb)) 8 eight_stop "$mb"
}

held_kb()
{
	ask "show sess" | grep -o ' held=[0-9]*' | awk -F = '{ s += $2 } END { print int(s / 1024) }'
}

# Large reads are for a few: of forty readers that stop, no more than the smaller read of each is held.
of_many_stopped_readers_little_is_held()
{
	local held

	config "nbthread 1" "no option splice-auto" | start_shunt
	spawn_server source source --listen 127.0.0.1:9001 --bytes 32m
	spawn fetch "$PEER" fetch --connect 127.0.0.1:8080 --bytes 32m --connections 40 --pause-after 2m --pause-ms 4000
	wait_until "forty sessions" 5 equals 40 info CurrConns
	wait_until "forty downloads to stand still" 4 stands_still
	held=$(held_kb)
	note "$held kB"
	expect_gt "what is held in kB" "$held" 0
	expect_le "what is held in kB" "$held" $((40 * 252))
	join fetch 60
	stop_server source
}

# Has each direction of the only session changed to userspace, and back, so often?
each_direction_changed()
{
	ask "show sess" | grep -o '\(pauses\|resumes\)=[0-9]*' |
		awk -F = -v wanted="$1" '{ n++; if ($2 < wanted) few = 1 } END { exit n != 4 || few }'
}

# Bursts that the limit has no room for, again and again, with an end between them.
a_session_changes_its_movers_1000_times()
{
	config "splice require;tune.splice.limit 4k" "$KERNEL" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --size 256k --count 4000
	wait_until "1000 changes of the mover and back, in each direction" 20 each_direction_changed 1000
	join ping 30
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	note "$(info Pauses) pauses, $(info Resumes) resumes"
	expect_eq "bytes moved in all" "$(info TotalBytesOut)" $((4000 * 256 * 1024))
	stop_server echo
}

# Between three hosts, as in life: loopback's segments of 64 KB leave a small buffer no room.
a_slow_client_is_served_by_the_kernel()
{
	hosts
	config "splice require" "" | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	spawn source nsenter "--net=/run/netns/$SERVER" "$PEER" source --listen 10.2.0.2:9001 --bytes 256m
	wait_until "the source to listen" 10 has_line "$T/source.out" '^ready'
	spawn fetch nsenter "--net=/run/netns/$CLIENT" "$PEER" fetch --connect 10.1.0.1:8080 --bytes 256m --rate 48m
	join fetch 60 0
	wait_until "CurrConns 0" 10 equals 0 info CurrConns
	note "$(info BytesOutKernel) bytes by the kernel, $(info BytesOutUser) by userspace, $(info Pauses) pauses"
	expect_gt "bytes moved by the kernel" "$(info BytesOutKernel)" "$(info BytesOutUser)"
	expect_eq "bytes moved in all" "$(info TotalBytesOut)" $((256 * 1024 * 1024))
	stop_server source
}

run a_client_stops_with_1_gb_behind_it stopped_download "splice require" ""
run a_client_stops_with_1_gb_behind_it_in_userspace stopped_download "" "no option splice-auto"
run a_server_stops_with_1_gb_behind_it stopped_upload
run a_client_on_another_host_stops_with_much_behind_it
run eight_stopped_readers_disturb_nobody
run of_many_stopped_readers_little_is_held
run a_session_changes_its_movers_1000_times
run a_slow_client_is_served_by_the_kernel
net_end
