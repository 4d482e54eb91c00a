#!/bin/bash
# kills.sh - workers that are killed (SIGKILL) at random moments, a thousand times, over random sessions on all paths: no byte is wrong,
# no stream is cut off with a clean end, (nearly) nobody is reset, and nothing is left behind. (The engine of "make check-kills"; not a
# part of CI, where scripts/net/test-supervisor.sh shows the same with less.)
#
#	scripts/kills.sh [--kills N] [--sessions N]	N workers at least (1000), over N sessions at least (50000)
#	scripts/kills.sh --upgrades N [--sessions N]	nobody is killed; another program takes the daemon's place, N times, every other time one with
#							another program in the kernel; once in between one that cannot run, and once one
#							that never gets ready, so that the old one goes on
#
# Needs root; runs in namespaces of its own (see lib.sh, also for the settings). The last line is "N passed, N failed".

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

export KILLS=${KILLS:-1000} UPGRADES=${UPGRADES:-} SESSIONS=${SESSIONS:-50000} # in the environment: net_begin starts this script anew
while [ $# -gt 0 ]; do
	case $1:${2:-} in
	--kills:[1-9]*) KILLS=$2; shift ;;
	--upgrades:[1-9]*) UPGRADES=$2; shift ;;
	--sessions:[1-9]*) SESSIONS=$2; shift ;;
	*) echo "usage: $0 [--kills N | --upgrades N] [--sessions N]" >&2; exit 2 ;;
	esac
	shift
done
needs nft pgrep
if [ -n "$UPGRADES" ]; then WHAT=upgrades; else WHAT="workers killed"; fi
net_begin

BOOKS=$HOME_DIR/kills # what was seen; stays when a test's own directory goes
mkdir "$BOOKS" || exit 1

ROUND=100	   # sessions of a player, one after the other or at once, before it looks whether it is enough
LOST_PER_MILLE=1   # of the sessions may be reset
GROWTH_KB=1024	   # of the supervisor's memory

# A section for each path. Who throws dice (shunt-dice) begins in userspace, joins in mid-stream and comes back; the others are where
# the configuration wants them from the start; of the last ones most wait for a place.
PLAYERS=(dice relay kernel queue)

kills_config()
{
	local name port=8080 more

	printf 'global\n  stats socket %s level admin\n  splice require\n' "$STATS"
	printf 'defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  timeout queue 60s\n'
	for name in "${PLAYERS[@]}"; do
		case $name in
		relay) more="no option splice-auto" ;;
		kernel) more=$KERNEL ;;
		*) more= ;;
		esac
		printf 'listen %s\n  bind 127.0.0.1:%s\n  server s1 127.0.0.1:%s%s\n%s\n' "$name" "$port" $((port + 1000)) \
			"$([ "$name" != queue ] || echo ' maxconn 6')" "$(lines "$more")"
		port=$((port + 1))
	done
}

# A connect takes no time here, and nobody would die in one: so some lose their first segment.
make_connects_slow()
{
	nft -f - <<-'END'
		table inet slow {
			chain in {
				type filter hook input priority 0
				tcp dport 9080-9083 tcp flags & (syn | ack) == syn numgen random mod 100 < 3 drop
			}
		}
	END
}

# play PORT: rounds of random sessions until it is enough.
play()
{
	while [ ! -e "$BOOKS/enough" ]; do
		"$PEER" drive --connect "127.0.0.1:$1" --sessions "$ROUND" --concurrency 12 --delays 40 --reset 10 --timeout 60 \
			--forgive-resets --seed $((RANDOM * 32768 + RANDOM)) || return 1
	done
}

# sum FIELD: over all rounds of all players.
sum()
{
	cat "$T"/{dice,relay,kernel,queue}.out | grep -o "\b$1=[0-9]*" | awk -F = '{ s += $2 } END { printf "%.0f\n", s }'
}

all_play()
{
	local name

	for name in "${PLAYERS[@]}"; do
		is_running "$name" ||
			fail "expected '$name' to go on, got it ended: $(cat "$T/$name.err" "$T/$name.out" | tail -n 2 | tr '\n' ' ')"
	done
	[ -e "/proc/${PID[shunt]}" ] || fail "expected the daemon to live, got it dead: $(tail -n 1 "$T/shunt.err")"
}

# A worker that lived for less than a second makes the next one wait, each time twice as long: so every fifth lives longer.
let_it_live()
{
	if [ $(($1 % 5)) -eq 4 ]; then nap 1.0$((RANDOM % 10)); else nap "0.$((RANDOM % 3))$((RANDOM % 10))"; fi
}

# memory_of PID FIELD: in kB.
memory_of()
{
	awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"
}

put()
{
	echo "$1=$2" >> "$BOOKS/final"
}

got()
{
	field "$1" "$BOOKS/final"
}

put_memory()
{
	local field

	for field in RssAnon RssShmem; do
		put "supervisor_$field$1" "$(memory_of "${PID[shunt]}" "$field")"
		put "worker_$field$1" "$(memory_of "$(worker shunt)" "$field")"
	done
}

kill_one()
{
	let_it_live "$1"
	kill_worker
}

# What is started to say whether it can take over is the daemon; what then takes its place never gets ready. The old one goes on, in another
# process.
fail_when_it_is_late()
{
	local old=${PID[shunt]}

	disown "$old" # or bash would tell of its end
	cp "$T/one" "$T/real"
	# shellcheck disable=SC2016 # it is the script's
	install_script 'case $SHUNT_HANDOVER in trial*) exec '"$T/real"' "$@" ;; esac' 'exec sleep 1000'
	kill -USR2 "$old"
	wait_until "the message of the guardian" 30 has_line "$T/shunt.err" "the new program was not ready in time: process [0-9]* goes on with the old one"
	wait_until "the guardian's number in the pid file" 10 has_other_words "$T/shunt.pid" "$old"
	PID[shunt]=$(cat "$T/shunt.pid")
}

has_other_words()
{
	[ "$(cat "$1")" != "$2" ]
}

upgrade_once()
{
	nap "0.$((RANDOM % 3))$((RANDOM % 10))"
	case $1 in
	$((UPGRADES / 3)))
		install_script 'exit 7'
		kill -USR2 "${PID[shunt]}"
		wait_until "its message" 20 has_line "$T/shunt.err" "upgrade: the new program ended with status 7: the old one goes on"
		;;
	$((UPGRADES / 2))) fail_when_it_is_late ;;
	*)
		if (($1 % 2)); then install_next "$NEXT"; else install_next "$T/one"; fi
		upgrade
		;;
	esac
}

every_byte_is_right()
{
	local name port=8080 before times=0 began=$SECONDS field

	make_connects_slow
	DAEMON=$DICE
	cp "$DAEMON" "$T/one"
	install_daemon
	kills_config | start_shunt shunt -W -p "$T/shunt.pid"
	[ -z "$UPGRADES" ] || upgrade # who took over has other descriptors of its own
	spawn_server serve serve --listen 127.0.0.1:9080 --listen 127.0.0.1:9081 --listen 127.0.0.1:9082 --listen 127.0.0.1:9083 \
		--forgive-resets --grace 20
	before=$(descriptors)
	put_memory _before
	for name in "${PLAYERS[@]}"; do
		spawn "$name" play "$port"
		port=$((port + 1))
	done
	while [ "$times" -lt "${UPGRADES:-$KILLS}" ] || [ "$(sum sessions)" -lt "$SESSIONS" ]; do
		all_play
		if [ -n "$UPGRADES" ]; then upgrade_once "$times"; else kill_one "$times"; fi
		times=$((times + 1))
		[ $((times % 100)) -ne 0 ] || echo "# $times $WHAT, $(sum sessions) sessions, $((SECONDS - began)) s"
	done
	: > "$BOOKS/enough"
	for name in "${PLAYERS[@]}"; do join "$name" 120; done
	stop_server serve
	expect_no_leftovers "$before"
	put_memory _after
	put times "$times"
	for field in sessions ok errors truncated clean_instead_of_reset stuck forgiven bytes_up bytes_down; do
		put "$field" "$(sum "$field")"
	done
	for field in errors truncated clean_instead_of_reset stuck; do
		put "server_$field" "$(field "$field" "$T/serve.out")"
	done
	put deaths "$(info WorkerDeaths)"
	put lost "$(info SessionsLost)"
	cp "$T/shunt.err" "$BOOKS/messages"
	[ -z "$UPGRADES" ] || end_guardian
	note "$times ${WHAT}, $(got sessions) sessions, $((($(got bytes_up) + $(got bytes_down)) / 1000000)) MB"
	for field in errors truncated clean_instead_of_reset stuck; do
		expect_eq "$field" "$(got "$field")" 0
		expect_eq "$field at the servers" "$(got "server_$field")" 0
	done
}

has_ended_in_order()
{
	[ -n "$(got lost 2> /dev/null)" ] || fail "expected the sessions to come to their end, got none: see above"
}

# What the clients saw (a reset that nobody had planned), and what the daemon says of itself: the one may be hidden by a planned reset, the
# other by a client that had its bytes already.
hardly_a_session_is_reset()
{
	has_ended_in_order
	note "$(got forgiven) unplanned resets at the clients, SessionsLost $(got lost)"
	sed -n 's/.* is reset: /is reset: /p' "$BOOKS/messages" | sort | uniq -c | sed 's/^ */# /'
	if [ -n "$UPGRADES" ]; then
		expect_le WorkerDeaths "$(got deaths)" 2 # of the one that was never ready, and of the one that the guardian started in its place
	else
		# It is the next one that counts a death, and that may be killed before it does.
		expect_ge WorkerDeaths "$(got deaths)" $(($(got times) * 99 / 100))
	fi
	expect_le "unplanned resets at the clients" "$(got forgiven)" $(($(got sessions) * LOST_PER_MILLE / 1000))
	expect_le SessionsLost "$(got lost)" $(($(got sessions) * LOST_PER_MILLE / 1000))
}

memory_does_not_grow()
{
	local field

	has_ended_in_order
	for field in supervisor_RssAnon supervisor_RssShmem worker_RssAnon worker_RssShmem; do
		note "$field $(got "${field}_before") kB, then $(got "${field}_after")"
	done
	expect_le "growth of the supervisor's memory in kB" \
		$(($(got supervisor_RssAnon_after) - $(got supervisor_RssAnon_before))) "$GROWTH_KB"
}

run every_byte_is_right
run hardly_a_session_is_reset
run memory_does_not_grow
net_end
