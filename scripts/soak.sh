#!/bin/bash
# soak.sh - everything at once, for long: random sessions with resets and slow readers, bulk, chats, connections that change their
# nature, short ones and idle ones, through one daemon with default options and a thread for each core. Every byte is checked at both
# ends; and nothing may grow: memory, descriptors, slots. (The engine of "make soak"; not a part of CI.)
#
#	scripts/soak.sh [--seconds N]		N seconds of load (600), and what its last connections need to end
#
# Needs root; runs in namespaces of its own (see lib.sh, also for the settings). Prints a table while it goes, then its verdicts; the
# last line is "N passed, N failed".

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck disable=SC2153 # SERVER is a host, of lib.sh
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

export SOAK_SECONDS=${SOAK_SECONDS:-600} # in the environment: net_begin starts this script anew
while [ $# -gt 0 ]; do
	case $1:${2:-} in
	--seconds:[1-9]*) SOAK_SECONDS=$2; shift ;;
	*) echo "usage: $0 [--seconds N]" >&2; exit 2 ;;
	esac
	shift
done
[ "$SOAK_SECONDS" -ge 10 ] || { echo "$0: less than 10 seconds prove nothing" >&2; exit 2; }
net_begin

SAMPLES=60		    # of each run
ROWS=20			    # of the table
BOOKS=$HOME_DIR/soak	    # what was seen; stays when a test's own directory goes
mkdir "$BOOKS" || exit 1

# What may grow between the second quarter and the last, from median to median. In the first quarter allocator, stacks and the flows'
# pages get to their working size; what is a leak goes on growing, for as long as the daemon runs. RSS moves with what happens to wait
# in relay buffers (256 KB at most for each reader that stands still), and the allocator, which has an arena for each thread, gives back
# what was freed late, or never: so 2 MB, or 5 %, or two such buffers for each thread are allowed, whichever is the most. In 600 s, with
# some hundred sessions each second, a leak of 50 bytes for each of them is more than 2 MB.
RSS_GROWTH_KB=2048
RSS_GROWTH_PERCENT=5
RSS_GROWTH_KB_PER_THREAD=512
# Sessions begin and end between the looks at two of the numbers that are subtracted. What is lost for good is found when all have
# ended, to the last one.
COUNT_GROWTH=16
# Of the machine, and so also of others on it.
TCP_NOISE_KB=$((32 * 1024))

# ---- the network and the daemon ----

# A listen section for each kind of server: what one kind does must not wait for another's maxconn or queue.
soak_config()
{
	local name port=8080

	printf 'global\n  stats socket %s level admin\n  splice require\n  log stdout format raw local0\n' "$STATS"
	printf 'defaults\n  mode tcp\n  log global\n  option tcplog\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n'
	for name in random source sink echo changing; do
		printf 'listen %s\n  bind 10.1.0.1:%s\n  server s1 10.2.0.2:%s\n  server s2 10.2.0.2:%s\n' \
			"$name" "$port" $((port + 1000)) $((port + 2000))
		port=$((port + 1))
	done
}

# listener NAME MODE [ARGUMENT...]: a server of exact, at both addresses of a section.
listener()
{
	local name=$1 port=$2 mode=$3

	shift 3
	spawn "$name" nsenter "--net=/run/netns/$SERVER" "$PEER" "$mode" --listen "10.2.0.2:$((port + 1000))" \
		--listen "10.2.0.2:$((port + 2000))" "$@"
}

start_servers()
{
	local name

	listener random 8080 serve --grace 20
	listener source 8081 source --bytes 64m
	listener sink 8082 sink --verify
	listener echo 8083 echo
	for name in 1 2; do
		spawn "changing$name" nsenter "--net=/run/netns/$SERVER" "$CHANGER" serve --listen "10.2.0.2:$((8084 + 1000 * name))"
	done
	for name in random source sink echo changing1 changing2; do
		wait_until "$name to listen" 10 has_line "$T/$name.out" '^ready'
	done
	SERVERS=(random source sink echo changing1 changing2)
}

# Some hundred connections each second leave more ports in TIME_WAIT than there are by default.
many_ports()
{
	local host

	for host in "$CLIENT" "$BALANCER" "$SERVER"; do
		{ on "$host" sh -c 'echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range'; } 2> /dev/null || :
		{ on "$host" sh -c 'echo 8080-8099,9001-9099 > /proc/sys/net/ipv4/ip_local_reserved_ports'; } 2> /dev/null || :
		{ on "$host" sh -c 'echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse'; } 2> /dev/null || :
		{ on "$host" sh -c 'echo 4096 > /proc/sys/net/core/somaxconn'; } 2> /dev/null || :
	done
}

# ---- the players: each is a process that goes on until its time is over, and has to be content ----

time_is_left()
{
	[ "$SECONDS" -lt "$DEADLINE" ]
}

# dial PORT MODE [ARGUMENT...]: a client of exact, one round of a player.
dial()
{
	local port=$1 mode=$2

	shift 2
	nsenter "--net=/run/netns/$CLIENT" "$PEER" "$mode" --connect "10.1.0.1:$port" --timeout 60 "$@"
}

# again PAUSE COMMAND...: rounds of the command, with up to so many tenths of a second between them, until the time is over.
again()
{
	local pause=$1 tenths

	shift
	while time_is_left; do
		"$@" || return 1
		tenths=$((RANDOM % (pause + 1)))
		nap $((tenths / 10)).$((tenths % 10))
	done
}

# Resets, half-closes in every order, slow readers, delays: what drive does with the defaults; and each order alone.
random_sessions()
{
	local orders=("" "" --half-close-only --no-half-close)

	# shellcheck disable=SC2086 # a word, or none
	dial 8080 drive --sessions 200 --concurrency 24 --max-bytes 1m --slow 10 --reset 10 --delays 10 --seed "$RANDOM" \
		${orders[RANDOM % 4]}
}

downloads() { dial 8081 fetch --bytes 64m --connections $((1 + RANDOM % 3)); }
uploads() { dial 8082 push --bytes 64m --connections $((1 + RANDOM % 3)); }
slow_readers() { dial 8081 fetch --bytes 64m --connections 2 --rate 16m --rcvbuf 65536; }
readers_that_stop() { dial 8081 fetch --bytes 64m --connections 4 --pause-after 8m --pause-ms 2000; }
slow_writers() { dial 8082 push --bytes 16m --connections 2 --rate 4m; }
pings() { dial 8083 ping --connections 16 --size $((1 + RANDOM % 4000)) --count 200 --interval-us 20000; }
short_connections() { dial 8083 ping --connections 40 --size 100 --count 1; }
# Until the end, however late the others are.
idle_connections() { dial 8083 hold --connections 50 --seconds "$SOAK_SECONDS"; }

# flow NAME: a connection of `changing` that lives as long as the soak; what it does is said by flow_does.
declare -A FLOW=()
flow()
{
	local fd

	mkfifo "$T/$1.commands"
	exec {fd}<> "$T/$1.commands"
	FLOW[$1]=$fd
	spawn "$1" nsenter "--net=/run/netns/$CLIENT" "$CHANGER" talk --connect 10.1.0.1:8084 --seed "$RANDOM" \
		--commands "$T/$1.commands"
}

flow_does()
{
	echo "$2" >&"${FLOW[$1]}"
}

PLAYERS=(random_sessions downloads uploads slow_readers readers_that_stop slow_writers pings short_connections idle_connections)
CHATS=(chat1 chat2 chat3)
CHANGING=(changes1 changes2)

start_players()
{
	local name

	DEADLINE=$((SECONDS + SOAK_SECONDS))
	for name in random_sessions short_connections; do spawn "$name" again 10 "$name"; done
	for name in downloads uploads slow_readers readers_that_stop slow_writers pings; do spawn "$name" again 30 "$name"; done
	spawn idle_connections idle_connections
	for name in "${CHATS[@]}"; do flow "$name"; flow_does "$name" chat; done
	for name in "${CHANGING[@]}"; do flow "$name"; done
}

expect_players()
{
	local name

	for name in "${PLAYERS[@]}" "${CHATS[@]}" "${CHANGING[@]}"; do
		if is_running "$name"; then continue; fi
		time_is_left || continue
		fail "expected $name to go on, got it ended: $(cat "$T/$name.err" "$T/$name.out" | tail -n 2 | tr '\n' ' ')"
	done
	is_running shunt || fail "expected the daemon to live, got it dead: $(tail -n 1 "$T/shunt.err")"
}

end_players()
{
	local name

	for name in "${CHATS[@]}" "${CHANGING[@]}"; do flow_does "$name" end; done
	for name in "${PLAYERS[@]}" "${CHATS[@]}" "${CHANGING[@]}"; do join "$name" 90; done
}

# ---- the samples ----

tcp_memory_kb()
{
	awk -v page="$(getconf PAGESIZE)" '$1 == "TCP:" { print int($NF * page / 1024) }' /proc/net/sockstat
}

# Of the daemon's maps, in kB: what the kernel charges for them, and the rings, which are not pinned, come to that.
map_memory_kb()
{
	local map

	for map in "$PINS"/*; do
		bpftool -j map show pinned "$map" 2> /dev/null | grep -o '"bytes_memlock":[0-9]*' || : # one of them is the program
	done | awk -F : '{ s += $2 } END { print int(s / 1024) }'
}

# Ticks that each thread has had, by number of thread.
thread_ticks()
{
	local task

	for task in "/proc/$(worker shunt)/task/"*; do
		sed 's/.*) //' "$task/stat" | awk '{ print $12 + $13 }'
	done | xargs
}

# percent MS BEFORE AFTER: of a core, for each thread.
percent()
{
	awk -v ms="$1" -v hz="$(getconf CLK_TCK)" -v before="$2" -v after="$3" 'BEGIN {
		n = split(after, a, " "); split(before, b, " ")
		for (i = 1; i <= n; i++) printf "%s%d", (i > 1 ? " " : ""), (ms > 0 ? (a[i] - b[i]) * 100000 / hz / ms : 0)
	}'
}

# The columns of the books; cpu comes last, since it is one for each thread.
columns="time sessions slots descriptors rss_kb tcp_kb maps_kb cpu%"
row_format="%6s %9s %6s %12s %8s %8s %8s  %s\n"

sample()
{
	local all ticks now=${EPOCHREALTIME/./} sessions slots

	all=$(ask "show info")
	sessions=$(sed -n 's/^CurrConns: //p' <<< "$all")
	slots=$(sed -n 's/^SlotsUsed: //p' <<< "$all")
	ticks=$(thread_ticks)
	# shellcheck disable=SC2059 # it is a format
	printf "$row_format" $((SECONDS - BEGAN)) "$sessions" "$slots" "$(descriptors)" "$(memory shunt VmRSS)" "$(tcp_memory_kb)" \
		"$(map_memory_kb)" "$(percent $(((now - ${TICKED_AT:-$now}) / 1000)) "${TICKS:-$ticks}" "$ticks")" >> "$BOOKS/samples"
	TICKED_AT=$now TICKS=$ticks
}

watch_it_go()
{
	local i phases=(chat upload download chat)

	# shellcheck disable=SC2059,SC2086 # a format, and words
	printf "$row_format" $columns
	for ((i = 1; i <= SAMPLES; i++)); do
		until [ $((SECONDS - BEGAN)) -ge $((i * SOAK_SECONDS / SAMPLES)) ]; do
			expect_players
			flow_does "${CHANGING[RANDOM % 2]}" "${phases[RANDOM % 4]}"
			nap 0.$((3 + RANDOM % 7))
		done
		sample
		[ $((i % (SAMPLES / ROWS))) -ne 0 ] || tail -n 1 "$BOOKS/samples"
	done
}

# ---- the end ----

# put NAME VALUE, got NAME: the books of single numbers.
put()
{
	echo "$1=$2" >> "$BOOKS/final"
}

got()
{
	field "$1" "$BOOKS/final"
}

# The verdicts are about a load that came to its end.
has_ended_in_order()
{
	[ -s "$BOOKS/info" ] || fail "expected the load to come to its end, got none: see above"
}

# in_time SECONDS COMMAND...: waits until it succeeds, but gives up without failing: the verdicts tell.
in_time()
{
	local deadline=$((SECONDS + $1))

	shift
	until "$@" || [ "$SECONDS" -ge "$deadline" ]; do
		nap 0.1
	done
}

is_quiet()
{
	equals 0 info CurrConns && equals 0 info SlotsUsed && equals "$1" descriptors
}

tcp_memory_is_back()
{
	[ "$(tcp_memory_kb)" -le "$1" ]
}

# Sockets of the whole machine, like its TCP memory: when there are more than before, somebody else is at work.
sockets_of_the_machine()
{
	awk '$1 == "TCP:" { for (i = 2; i < NF; i++) if ($i == "alloc") print $(i + 1) }' /proc/net/sockstat
}

# Connections of ours, in whatever state, also those that no process has any more.
our_connections()
{
	local host

	for host in "$CLIENT" "$BALANCER" "$SERVER"; do
		on "$host" ss -Htan
	done | grep -Evc '^(LISTEN|TIME-WAIT)' || :
}

# entries_with MAP PATTERN: how many of its entries look like that.
entries_with()
{
	timeout 60 bpftool -j map dump pinned "$PINS/$1" | grep -o "$2" | wc -l
}

write_final()
{
	local name

	put descriptors "$(descriptors)"
	put tcp_kb "$(tcp_memory_kb)"
	put sockets "$(sockets_of_the_machine)"
	put connections "$(our_connections)"
	put slots_entries "$(entries_with slots '"key"')"
	# A flow that nobody has is all zeros; in one that somebody has, the limit is not.
	put flows_entries "$(entries_with flows '"limit":[1-9]')"
	ask "show info" > "$BOOKS/info"
	ask "show stat" > "$BOOKS/stat"
	sed -n 's/^\(CurrConns\|SlotsUsed\|CumConns\|SessionsJoined\|Pauses\|Resumes\|Bytes[A-Za-z]*\): /\1=/p' "$BOOKS/info" >> "$BOOKS/final"
	cp "$T/shunt.err" "$BOOKS/messages"
	# How each session ended, and how many did so. Messages of the daemon itself have no time in the second column.
	awk '$2 ~ /^\[/ { print $7 }' "$T/shunt.out" | sort | uniq -c > "$BOOKS/ends"
	for name in "${PLAYERS[@]}" "${CHATS[@]}" "${CHANGING[@]}"; do
		put "$name" "$(grep -c '\bok=' "$T/$name.out")"
	done
}

# ---- the soak ----

the_load_plays_to_its_end_and_every_byte_is_right()
{
	local before name

	hosts
	many_ports
	soak_config | RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	before=$(descriptors)
	start_servers
	put tcp_kb_before "$(tcp_memory_kb)"
	put sockets_before "$(sockets_of_the_machine)"
	BEGAN=$SECONDS
	start_players
	watch_it_go
	end_players
	in_time 20 is_quiet "$before"
	sample
	tail -n 1 "$BOOKS/samples"
	# While the servers still live: what they have seen and not ended is an end that has not arrived.
	for name in "${SERVERS[@]}"; do stop_server "$name"; done
	in_time 20 equals 0 our_connections
	in_time 20 tcp_memory_is_back $(($(got tcp_kb_before) + TCP_NOISE_KB))
	expect_eq "errors at the servers of random sessions" "$(field errors "$T/random.out")" 0
	expect_eq "errors at the sinks" "$(field errors "$T/sink.out")" 0
	put descriptors_before "$before"
	write_final
	note "$(got CumConns) sessions, $(awk -F = '/^Bytes/ { s += $2 } END { printf "%.1f", s / 1e9 }' "$BOOKS/final") GB"
}

# What there is no load of proves nothing.
each_kind_of_load_had_its_part()
{
	local name

	has_ended_in_order
	for name in "${PLAYERS[@]}"; do
		expect_gt "rounds of $name" "$(got "$name")" 0
	done
	for name in SessionsJoined Pauses Resumes BytesInKernel BytesInUser BytesOutKernel BytesOutUser; do
		expect_gt "$name" "$(got "$name")" 0
	done
	note "ends: $(awk '{ print $2, $1 }' "$BOOKS/ends" | xargs)"
}

no_session_is_left()
{
	has_ended_in_order
	expect_eq CurrConns "$(got CurrConns)" 0
	expect_eq SlotsUsed "$(got SlotsUsed)" 0
	expect_eq "entries in the map of slots" "$(got slots_entries)" 0
	expect_eq "flows in use" "$(got flows_entries)" 0
	expect_eq "descriptors" "$(got descriptors)" "$(got descriptors_before)"
	expect_eq "connections of the three hosts" "$(got connections)" 0
}

# median COLUMN-EXPRESSION QUARTER: over the samples of this quarter of the time of load.
median()
{
	head -n "$SAMPLES" "$BOOKS/samples" | awk "{ print $1 }" |
		awk -v q="$2" -v n="$SAMPLES" 'NR > n * (q - 1) / 4 && NR <= n * q / 4' | sort -n |
		awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# expect_flat WHAT COLUMN-EXPRESSION ALLOWED-GROWTH [PERCENT]
expect_flat()
{
	local second last allowed=$3

	second=$(median "$2" 2)
	last=$(median "$2" 4)
	[ "$((second * ${4:-0} / 100))" -le "$allowed" ] || allowed=$((second * $4 / 100))
	note "$1: $second, then $last"
	expect_le "the growth of $1 from the second quarter to the last" $((last - second)) "$allowed"
}

has_samples()
{
	[ "$(wc -l < "$BOOKS/samples")" -ge "$SAMPLES" ] || fail "expected $SAMPLES samples, got $(wc -l < "$BOOKS/samples")"
}

memory_is_flat()
{
	local allowed=$RSS_GROWTH_KB threads

	has_samples
	threads=$(tail -n 1 "$BOOKS/samples" | awk '{ print NF - 7 }')
	[ $((threads * RSS_GROWTH_KB_PER_THREAD)) -le "$allowed" ] || allowed=$((threads * RSS_GROWTH_KB_PER_THREAD))
	# shellcheck disable=SC2016 # columns of awk
	expect_flat "kB of RSS" '$5' "$allowed" "$RSS_GROWTH_PERCENT"
	# shellcheck disable=SC2016
	expect_flat "kB of maps" '$7' 0
}

descriptors_and_slots_are_flat()
{
	has_samples
	# Each session has two, and a slot.
	# shellcheck disable=SC2016
	expect_flat "descriptors beside those of sessions" '$4 - 2 * $2' "$COUNT_GROWTH"
	# shellcheck disable=SC2016
	expect_flat "slots beside those of sessions" '$3 - $2' "$COUNT_GROWTH"
}

the_kernel_has_its_memory_back()
{
	has_ended_in_order
	note "$(got tcp_kb_before) kB of TCP memory before, $(got tcp_kb) after"
	if [ "$(got sockets)" -gt "$(got sockets_before)" ]; then
		note "not judged: others have connections on this machine"
		return 0
	fi
	expect_le "TCP memory of the machine, in kB" "$(got tcp_kb)" $(($(got tcp_kb_before) + TCP_NOISE_KB))
}

# none_of NAME...: each of these lines of `show info` says 0.
none_of()
{
	local name

	for name; do
		expect_eq "$name" "$(sed -n "s/^$name: //p" "$BOOKS/info")" 0
	done
}

nothing_contradicts_itself_and_nobody_is_alarmed()
{
	has_ended_in_order
	none_of Verdict_broken Verdict_redirect_lost DroppedLogs ConnectErrors AcceptPausedExhausted \
		Fallback_unavailable Fallback_no_memory Fallback_busy Fallback_other Fallback_off
	expect_eq "alerts and warnings" "$(grep '^\[\(ALERT\|WARNING\)\]' "$BOOKS/messages" | head -n 1)" ""
	# In order, or reset by an end as it was planned; never by us (R, K, I), or because nothing came (c, s).
	expect_eq "ends of another kind" "$(awk '$2 !~ /^(--|[CS][CDL])$/' "$BOOKS/ends" | xargs)" ""
}

run the_load_plays_to_its_end_and_every_byte_is_right
run each_kind_of_load_had_its_part
run no_session_is_left
run memory_is_flat
run descriptors_and_slots_are_flat
run the_kernel_has_its_memory_back
run nothing_contradicts_itself_and_nobody_is_alarmed
net_end
