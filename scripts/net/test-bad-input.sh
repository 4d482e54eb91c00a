#!/bin/bash
# test-bad-input.sh - what others do wrong: files that cannot be read or make no sense, ports that are taken, garbage and crowds at
# the stats socket. Each gets a clear answer, and nobody else notices.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# refuse_file FILE REGEX: neither -c nor a start accepts it.
refuse_file()
{
	local option

	for option in -c -q; do
		spawn refused "$DAEMON" -f "$1" "$option"
		join refused 10 1
		expect_match "what it says" "$(cat "$T/refused.err")" "$2"
	done
}

files_that_cannot_be_read()
{
	refuse_file "$T/none" "cannot read configuration file $T/none: No such file or directory"
	refuse_file "$T" "cannot read configuration file $T: Is a directory"
	config > "$T/secret"
	chmod 000 "$T/secret"
	spawn refused setpriv --reuid=65534 --regid=65534 --clear-groups "$DAEMON" -f "$T/secret"
	join refused 10 1
	expect_match "what it says" "$(cat "$T/refused.err")" "cannot read configuration file $T/secret: Permission denied"
	: > "$T/empty"
	refuse_file "$T/empty" "nothing to listen on"
	head -c 20m /dev/zero > "$T/large"
	refuse_file "$T/large" "cannot read configuration file $T/large: File too large"
	head -c 1m /dev/urandom > "$T/garbage"
	refuse_file "$T/garbage" "^.ALERT. .*$T/garbage:[0-9]+:[0-9]+: error: .* errors in the configuration"
}

# wrong LINE COLUMN TEXT: the configuration on standard input is refused with a message that begins so.
wrong()
{
	cat > "$T/wrong"
	refuse_file "$T/wrong" "$T/wrong:$1:$2: error: .*$3"
	printf 'listen ok\n  bind 127.0.0.1:8088\n' > "$T/ok"
	spawn refused "$DAEMON" -f "$T/ok" -f "$T/wrong"
	join refused 10 1
	expect_match "what it says of the second file" "$(cat "$T/refused.err")" "$T/wrong:$1:$2: error: .*$3"
}

each_mistake_has_its_place()
{
	wrong 2 3 "unknown keyword 'maxcon'" <<-'END'
		global
		  maxcon 100
	END
	wrong 2 11 "maxconn" <<-'END'
		global
		  maxconn -5
	END
	wrong 3 13 "a port is a number" <<-'END'
		listen l
		  bind 127.0.0.1:8080
		  server s1 127.0.0.1:99999
	END
	wrong 2 8 "does not resolve" <<-'END'
		listen l
		  bind nowhere.invalid:80
		  server s1 127.0.0.1:9001
	END
	wrong 2 8 "the mode 'http'" <<-'END'
		listen l
		  mode http
		  bind 127.0.0.1:8080
		  server s1 127.0.0.1:9001
	END
	wrong 3 20 "nowhere" <<-'END'
		frontend f
		  bind 127.0.0.1:8080
		  default_backend  nowhere
	END
	wrong 4 10 "s1" <<-'END'
		listen l
		  bind 127.0.0.1:8080
		  server s1 127.0.0.1:9001
		  server s1 127.0.0.1:9002
	END
	wrong 5 8 "127.0.0.1:8080" <<-'END'
		listen a
		  bind 127.0.0.1:8080
		  server s1 127.0.0.1:9001
		listen b
		  bind 127.0.0.1:8080
		  server s1 127.0.0.1:9001
	END
	wrong 2 21 "from 4k to 65536k" <<-'END'
		global
		  tune.splice.limit 65537k
	END
	wrong 2 20 "takes a time" <<-'END'
		defaults
		  timeout connect  5parsecs
	END
	wrong 1 3 "before any section" <<< "  maxconn 100"
	wrong 3 15 "quote" <<-'END'
		listen l
		  server s1 127.0.0.1:9001
		  description "never closed
	END
}

a_port_in_use()
{
	config | start_shunt
	config "bpf-pin-path none" | sed 's/stats[.]sock/second.sock/' | refuse_start 1
	expect_match "what it says" "$(cat "$T/refused.err")" "refused.cfg:[0-9]+: cannot listen on 127.0.0.1:8080 for 'l': Address already in use"
	config "bpf-pin-path none" | sed 's/stats[.]sock/second.sock/; s/127.0.0.1:8080/192.0.2.1:8080/' | refuse_start 1
	expect_match "what it says" "$(cat "$T/refused.err")" "cannot listen on 192.0.2.1:8080 for 'l': Cannot assign requested address"
	[ ! -e "$T/second.sock" ] || fail "expected no stats socket of the refused daemon, got one"
}

a_stats_socket_that_cannot_be_made()
{
	config | sed 's|stats socket [^ ]*|stats socket /proc/none|' | refuse_start 1
	expect_match "what it says" "$(cat "$T/refused.err")" "stats socket '/proc/none': "
	echo precious > "$STATS"
	config | refuse_start 1
	expect_match "what it says" "$(cat "$T/refused.err")" "stats socket '$STATS': a file is there that is no socket"
	expect_eq "the file in the way" "$(cat "$STATS")" precious
}

# garbage FILE: to the stats socket; what comes back is in $T/answer. Being hung up on is no failure.
garbage()
{
	timeout 20 socat -t 2 "OPEN:$1!!CREATE:$T/answer" "UNIX-CONNECT:$STATS" 2> /dev/null || :
}

garbage_at_the_stats_socket()
{
	local rss before

	config "splice require" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	expect_match "an answer" "$(ask "show info")" "Name: shunt"
	before=$(descriptors)
	rss=$(memory shunt VmRSS)
	spawn ping "$PEER" ping --connect 127.0.0.1:8080 --count 1500 --interval-us 2000
	head -c 10m /dev/urandom | tr -d '\n' > "$T/one-line"
	garbage "$T/one-line"
	# Who goes on writing when he is hung up on may not read why; who waits does.
	head -c 16384 "$T/one-line" > "$T/long-line"
	garbage "$T/long-line"
	expect_match "the answer to 16 kB without a newline" "$(tr -d '\0' < "$T/answer")" "The line is too long"
	head -c 10m /dev/urandom > "$T/lines"
	garbage "$T/lines"
	head -c 10m /dev/zero > "$T/zeros"
	garbage "$T/zeros"
	yes 'show stat; show sess; nonsense;;;;; \ ' | head -n 2000 > "$T/commands"
	garbage "$T/commands"
	printf '%016000d\n' 1 > "$T/long-word"
	garbage "$T/long-word"
	expect_match "the answer to a long word" "$(tr -d '\0' < "$T/answer")" "Unknown command"
	for _ in 1 2 3 4 5; do
		: | socat - "UNIX-CONNECT:$STATS"
	done
	join ping 20
	note "p99 meanwhile $(field p99_us "$T/ping.out") us"
	expect_match "an answer" "$(ask "show info")" "Name: shunt"
	expect_no_leftovers "$before"
	expect_le "growth of the daemon's memory in kB" $(($(memory shunt VmRSS) - rss)) 8192
}

# Somebody who asks for much and reads nothing.
a_reader_who_does_not_read_waits_alone()
{
	local before

	config "splice require;maxconn 1100;stats timeout 2s" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	spawn hold "$PEER" hold --connect 127.0.0.1:8080 --connections 1000 --seconds 6
	wait_until "a thousand sessions" 20 has_line "$T/hold.out" '^holding'
	yes 'show sess' | head -n 1000 > "$T/commands"
	spawn silent socat -u "OPEN:$T/commands" "UNIX-CONNECT:$STATS"
	client ping 10 ping --connect 127.0.0.1:8080 --count 300 --interval-us 1000
	note "p99 meanwhile $(field p99_us "$T/ping.out") us"
	expect_eq "sessions in show sess" "$(ask "show sess" | grep -c '^0x')" 1000
	expect_le "memory of the daemon in kB" "$(memory shunt VmHWM)" 65536
	join hold 30
	expect_no_leftovers "$before"
}

a_hundred_admin_clients()
{
	local i before

	config "splice require;stats timeout 30s" | start_shunt
	spawn_server echo echo --listen 127.0.0.1:9001
	before=$(descriptors)
	for ((i = 0; i < 100; i++)); do
		spawn "admin$i" socat "EXEC:sleep 100" "UNIX-CONNECT:$STATS"
	done
	wait_until "as many admin clients as are allowed" 10 at_least $((before + 32)) descriptors
	client ping 10 ping --connect 127.0.0.1:8080 --connections 10 --count 20
	expect_le "descriptors" "$(descriptors)" $((before + 32))
	expect_match "what one more is told" "$(socat -u "UNIX-CONNECT:$STATS" - 2> /dev/null)" "Too many clients"
	for ((i = 0; i < 100; i++)); do
		kill -TERM "${PID[admin$i]}" 2> /dev/null || :
	done
	wait_until "the admin clients to be gone" 10 equals "$before" descriptors
	expect_match "an answer" "$(ask "show info")" "Name: shunt"
}

arguments_that_make_no_sense()
{
	spawn refused "$DAEMON"
	join refused 5 2
	spawn refused "$DAEMON" --no-such-option
	join refused 5 2
	spawn refused "$DAEMON" -f "$T/a" --listen 127.0.0.1:80 --server 127.0.0.1:81
	join refused 5 2
	spawn refused "$DAEMON" --listen 127.0.0.1:8080
	join refused 5 2
	spawn refused "$DAEMON" --listen nonsense --server 127.0.0.1:9001
	join refused 5 1
	expect_match "what it says" "$(cat "$T/refused.err")" "nonsense"
	spawn refused "$DAEMON" -f "$T/a" extra
	join refused 5 2
}

run files_that_cannot_be_read
run each_mistake_has_its_place
run a_port_in_use
run a_stats_socket_that_cannot_be_made
run garbage_at_the_stats_socket
run a_reader_who_does_not_read_waits_alone
run a_hundred_admin_clients
run arguments_that_make_no_sense
net_end
