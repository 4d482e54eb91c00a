#!/bin/bash
# test-logs.sh - one line per session, to stdout, a UDP receiver, a datagram socket; and nobody waits for a reader who does not read.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# What `option tcplog` writes for a session between two of ours that ended well.
ADDRESS='127\.0\.0\.1:[0-9]+'
TIME='\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9:]{8}\.[0-9]{3}\]'
LINE="$ADDRESS $TIME l l/s1 0/[0-9]+/[0-9]+ [0-9]+ -- [0-9]+/[0-9]+/[0-9]+/[0-9]+/0 0/0"

# ten_sessions: with 640 bytes each way.
ten_sessions()
{
	spawn_server echo echo --listen 127.0.0.1:9001
	client ping 10 ping --connect 127.0.0.1:8080 --connections 10 --count 10 --size 64
	wait_until "CurrConns 0" 5 equals 0 info CurrConns
}

# lines_like FILE REGEX: how many are like this as a whole?
lines_like()
{
	grep -cE "^$2\$" "$1"
}

to_stdout()
{
	config "splice require" "option tcplog;log stdout format raw local0" | start_shunt
	ten_sessions
	wait_until "ten lines" 5 equals 10 lines_like "$T/shunt.out" "$LINE"
	expect_eq "all lines" "$(wc -l < "$T/shunt.out")" 10
	expect_eq "lines with 640 bytes" "$(grep -c ' 640 -- ' "$T/shunt.out")" 10
	expect_eq DroppedLogs "$(info DroppedLogs)" 0
}

to_udp()
{
	config "splice require" "option tcplog;log 127.0.0.1:5140 local0;log 127.0.0.1:5141 format rfc5424 local1 info" > "$T/cfg"
	spawn old socat -u UDP-RECV:5140,bind=127.0.0.1 -
	spawn new socat -u UDP-RECV:5141,bind=127.0.0.1 -
	wait_until "the first receiver" 5 is_listening 5140 -u
	wait_until "the second receiver" 5 is_listening 5141 -u
	start_shunt < "$T/cfg"
	ten_sessions
	wait_until "ten lines of RFC 3164" 5 equals 10 lines_like "$T/old.out" "<134>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} shunt\[[0-9]+\]: $LINE"
	wait_until "ten lines of RFC 5424" 5 equals 10 lines_like "$T/new.out" "<142>1 [0-9-]{10}T[0-9:.]{15}[+-][0-9:]{5} [^ ]+ shunt [0-9]+ - - $LINE"
	expect_eq DroppedLogs "$(info DroppedLogs)" 0
}

to_a_datagram_socket()
{
	spawn receiver socat -u "UNIX-RECV:$T/log" -
	wait_until "the receiver" 5 test -S "$T/log"
	config "splice require;log $T/log local2" "option tcplog;log global" | start_shunt
	ten_sessions
	wait_until "ten lines" 5 equals 10 lines_like "$T/receiver.out" "<150>[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} shunt\[[0-9]+\]: $LINE"
	# The daemon's own messages go there too.
	expect_match "the messages" "$(cat "$T/receiver.out")" "<149>[^>]*: ready: listening on 127.0.0.1:8080"
}

a_session_is_logged()
{
	client ping 10 ping --connect 127.0.0.1:8080 --count 1
	nap 0.1
	[ -s "$T/receiver.out" ]
}

a_receiver_that_was_restarted_gets_lines_again()
{
	config "splice require" "option tcplog;log $T/log local2" | start_shunt
	ten_sessions
	expect_eq DroppedLogs "$(info DroppedLogs)" 10
	spawn receiver socat -u "UNIX-RECV:$T/log" -
	wait_until "the receiver" 5 test -S "$T/log"
	wait_until "a line" 10 a_session_is_logged
}

a_line_comes_through()
{
	dd bs=1M iflag=nonblock status=none <&"$1" 2> /dev/null | grep -qE "^$LINE\$"
}

a_pipe_that_nobody_reads_blocks_nobody()
{
	local dropped reader written

	mkfifo "$T/fifo"
	exec {reader}<> "$T/fifo"
	printf '#!/bin/sh\nexec "$@" > %s\n' "$T/fifo" > "$T/into-the-fifo"
	chmod +x "$T/into-the-fifo"
	config "splice require" "option tcplog;log stdout format raw local0" | RUN_AS=$T/into-the-fifo start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	client hold 60 hold --connect 127.0.0.1:8080 --connections 2000 --seconds 0
	client ping 10 ping --connect 127.0.0.1:8080 --count 100
	wait_until "CurrConns 0" 5 equals 0 info CurrConns
	dropped=$(info DroppedLogs)
	expect_gt DroppedLogs "$dropped" 500
	# Who reads at last finds whole lines only, and as many as were not dropped.
	dd bs=1M iflag=nonblock status=none <&"$reader" > "$T/read" 2> /dev/null || :
	written=$(wc -l < "$T/read")
	expect_eq "lines in the pipe" "$written" $((2001 - dropped))
	expect_eq "whole lines in the pipe" "$(lines_like "$T/read" "$LINE")" "$written"
	client ping 10 ping --connect 127.0.0.1:8080 --count 1
	wait_until "the next line" 5 a_line_comes_through "$reader"
	exec {reader}>&-
}

a_stopped_syslog_blocks_nobody()
{
	local dropped

	spawn receiver socat -u "UNIX-RECV:$T/log" -
	wait_until "the receiver" 5 test -S "$T/log"
	config "splice require" "option tcplog;log $T/log local0" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	kill -STOP "${PID[receiver]}"
	client hold 60 hold --connect 127.0.0.1:8080 --connections 1000 --seconds 0
	wait_until "CurrConns 0" 5 equals 0 info CurrConns
	dropped=$(info DroppedLogs)
	expect_gt DroppedLogs "$dropped" 0
	kill -CONT "${PID[receiver]}"
	wait_until "all lines that were not dropped" 10 equals $((1000 - dropped)) grep -c ' -- ' "$T/receiver.out"
}

sessions_that_end_badly_say_why()
{
	config "splice require" "timeout client 1s;timeout server 30s;option tcplog;log stdout format raw local0" | start_shunt
	spawn refused "$PEER" ping --connect 127.0.0.1:8080 --count 1
	join refused 5 1
	wait_until "SC: the server refused" 5 has_line "$T/shunt.out" 'l/s1 0/-1/[0-9]* 0 SC '
	spawn_server echo echo --listen 127.0.0.1:9001
	spawn idle "$PEER" hold --connect 127.0.0.1:8080 --seconds 10
	join idle 5 1
	wait_until "cD: the client was idle" 5 has_line "$T/shunt.out" 'l/s1 0/[0-9]*/[0-9]* 1 cD '
	spawn resetting socat -u TCP:127.0.0.1:8080,linger=0 -
	wait_until "a session" 5 equals 1 info CurrConns
	kill_now resetting
	wait_until "CD: the client reset" 5 has_line "$T/shunt.out" 'l/s1 0/[0-9]*/[0-9]* 0 CD '
}

run a_line_for_each_session_to_stdout to_stdout
run a_line_for_each_session_by_udp to_udp
run a_line_for_each_session_to_a_datagram_socket to_a_datagram_socket
run a_receiver_that_was_restarted_gets_lines_again
run a_pipe_that_nobody_reads_blocks_nobody
run a_stopped_syslog_blocks_nobody
run sessions_that_end_badly_say_why
net_end
