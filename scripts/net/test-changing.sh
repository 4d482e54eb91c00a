#!/bin/bash
# test-changing.sh - a flow that changes its nature (chat, then bulk, then chat) changes its mover, exactly, and ends up where it is
# fastest: a chat in the kernel, bulk in userspace (docs/decisions/004).
#
# How fast bulk has to be for that is a rate, which a slow or busy machine may not reach. So the strict tests play with a daemon that
# chooses as if everything were a hundred times as fast (build/shunt-scaled: 16 MB/s are enough to leave the kernel); those with the
# real daemon accept a flow that stays, if it was slow.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# For any change of the mover. A direction's rate is halved twice a second when it gets slow: from some GB/s to what 0.8 GB/s are for
# the scaled daemon, that takes 5 s.
PATIENCE=60
# A flow that the client saw at this rate (MB/s) has left the kernel: the threshold, and a quarter more, because the client and the
# daemon do not look at the same moments.
SURELY_BULK=2000
SURELY_TOO_MUCH_TO_JOIN=400 # four times the threshold for who has not joined yet
ONLY_HOME='mover=kernel [^]]*why=home'
CHAT=" state=SPLICED .* req=\[$ONLY_HOME\] rsp=\[$ONLY_HOME\]"

# ---- one connection, and its session ----

# begin PHASE: connects, with this as the first command, so that nothing is idle in between.
begin()
{
	rm -f "$T/commands"
	mkfifo "$T/commands"
	exec {COMMANDS}<> "$T/commands" # for reading too: so that writing waits for nobody
	tell "$1"
	spawn talk nsenter "--net=/run/netns/$CLIENT" "$CHANGER" talk --connect 10.1.0.1:8080 --seed "$RANDOM" --commands "$T/commands"
}

tell()
{
	echo "$1" >&"$COMMANDS"
}

# finish: the end of the connection; every byte was right at both ends.
finish()
{
	tell end
	join talk 30
	exec {COMMANDS}>&-
}

session()
{
	ask "show sess"
}

session_is()
{
	is_running talk || fail "expected the connection to go on, got: $(tail -n 1 "$T/talk.err" "$T/changes.err")"
	[[ $(session) =~ $1 ]]
}

becomes()
{
	wait_until "the session to become $1 (it is $(session))" "$PATIENCE" session_is "$2"
}

# moved DIRECTION: bytes by the kernel and by userspace.
moved()
{
	session | sed -n "s/.* $1=\[mover=[a-z]* kernel=\([0-9]*\) user=\([0-9]*\) .*/\1 \2/p"
}

# only_moves MOVER DIRECTION: between two looks it moved something, and the other one nothing.
only_moves()
{
	local kernel user k u

	read -r kernel user <<< "$(moved "$2")"
	nap 0.1
	read -r k u <<< "$(moved "$2")"
	kernel=$((k - kernel)) user=$((u - user))
	[ "${!1}" -gt 0 ] && [ $((kernel + user)) -eq "${!1}" ]
}

expect_mover()
{
	wait_until "only the ${1/user/daemon} to move bytes of $2 (now: $(session))" "$PATIENCE" only_moves "$1" "$2"
}

is_chat()
{
	becomes "a chat in the kernel" "$CHAT"
	expect_mover kernel req
	expect_mover kernel rsp
}

# start_changes [DAEMON [LISTEN-LINES]]: between three hosts, as in life: over loopback a segment has 64 KB, and a small window none of
# them.
start_changes()
{
	DAEMON=${1:-$DAEMON}
	hosts
	config "splice require" "${2:-}" | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	BEFORE=$(descriptors)
	spawn changes nsenter "--net=/run/netns/$SERVER" "$CHANGER" serve --listen 10.2.0.2:9001
	wait_until "the server to listen" 10 has_line "$T/changes.out" '^ready'
}

# Nothing is left, and the daemon has counted each byte once, whoever moved it.
end_changes()
{
	stop_server changes
	expect_no_leftovers "$BEFORE"
	expect_eq "bytes to the server" $(($(info BytesInKernel) + $(info BytesInUser) - UP_BEFORE)) "$(field up "$T/talk.out")"
	expect_eq "bytes to the client" $(($(info TotalBytesOut) - DOWN_BEFORE)) "$(field down "$T/talk.out")"
}
UP_BEFORE=0 DOWN_BEFORE=0

# direction_of PHASE: where its bytes go.
direction_of()
{
	case $1 in
	upload) echo req ;;
	download) echo rsp ;;
	esac
}

# joined_bulk DIRECTION: a session in the kernel's maps, with this direction moved by userspace. The other one may be on either side:
# what it did before is forgotten within seconds, not at once.
joined_bulk()
{
	echo " state=SPLICED .* $1=\[mover=user [^]]*why=bulk\]"
}

note_rate()
{
	wait_until "the end of the $1" "$PATIENCE" has_line "$T/talk.out" "^phase=$1"
	RATE=$(grep "^phase=$1" "$T/talk.out" | tail -n 1 | grep -o 'mb_per_s=[0-9]*' | cut -d = -f 2)
	note "$1 $RATE MB/s${2:+ ($2)}"
}

# ---- chat, bulk, chat ----

a_chat_that_becomes_bulk_leaves_the_kernel_and_comes_back()
{
	local phase direction

	start_changes "$SCALED"
	begin chat
	is_chat
	for phase in upload download; do
		direction=$(direction_of $phase)
		tell $phase
		becomes "bulk in userspace" "$(joined_bulk "$direction")"
		expect_mover user "$direction"
		tell chat
		is_chat
		note_rate $phase
	done
	finish
	end_changes
}

# How often a sender had to ask for the window, because nobody told it that there was room again: each time it stood still for 200 ms
# or more.
count_probes()
{
	local host

	PROBES=0
	for host in "$CLIENT" "$SERVER"; do
		# shellcheck disable=SC2016 # the dollars are awk's
		PROBES=$((PROBES + $(on "$host" awk '
			$1 == "TcpExt:" && at { print $at }
			$1 == "TcpExt:" { for (i = 2; i <= NF; i++) if ($i == "TCPWinProbe") at = i }' /proc/net/netstat)))
	done
	note "$PROBES window probes"
}

# Has it become bulk, or had 5 s for it?
has_left_or_had_its_time()
{
	session_is "$1" || [ "${EPOCHREALTIME/./}" -gt "$2" ]
}

a_chat_that_becomes_bulk_leaves_the_kernel_where_the_machine_is_fast()
{
	local phase direction

	start_changes
	begin chat
	is_chat
	for phase in upload download; do
		direction=$(direction_of $phase)
		tell $phase
		wait_until "a decision on the $phase" 20 has_left_or_had_its_time "$(joined_bulk "$direction")" $((${EPOCHREALTIME/./} + 5000000))
		if session_is "$(joined_bulk "$direction")"; then
			tell chat
			note_rate $phase "left"
		else
			tell chat
			note_rate $phase "stayed"
			expect_lt "the rate in MB/s of the $phase that stayed in the kernel" "$RATE" "$SURELY_BULK"
		fi
		is_chat
	done
	count_probes
	finish
	end_changes
}

# has_moved_enough DIRECTION: half a GB by the kernel, or four by whomever (a direction whose reader is behind may be the daemon's for long).
has_moved_enough()
{
	local kernel user

	is_running talk || fail "expected the connection to go on, got: $(tail -n 1 "$T/talk.err" "$T/changes.err")"
	read -r kernel user <<< "$(moved "$1")"
	[ "$kernel" -ge 500000000 ] || { [ "$kernel" -gt 50000000 ] && [ "$user" -ge 4000000000 ]; }
}

# On one CPU the sender answers a window update at once, while its receiver's lock is held: the segments wait in a backlog that counts
# against the window (docs/decisions/006). Without the program's help this is 50 probes and more.
bulk_in_the_kernel_does_not_stall_on_one_cpu()
{
	local phase

	taskset -pc "$(taskset -pc $BASHPID | grep -o '[0-9]*$')" "$BASHPID" > /dev/null
	start_changes "$DAEMON" "$KERNEL"
	begin chat
	becomes "a session in the kernel" " state=SPLICED "
	for phase in upload download; do
		tell $phase
		wait_until "much $phase (it is $(session))" 60 has_moved_enough "$(direction_of $phase)"
		note "$(session | grep -o "$(direction_of $phase)=\[mover=[a-z]* kernel=[0-9]* user=[0-9]*")]"
		tell chat
		note_rate $phase
	done
	count_probes
	finish
	expect_lt "window probes" "$PROBES" 3
	end_changes
}

# ---- bulk, chat ----

# begin_bulk PHASE ATTEMPTS: a connection that is bulk before it could join. A client that was not given the CPU for 50 ms after its
# connect() was idle for so long, and joined: then once more. false: each of them was.
begin_bulk()
{
	local unjoined='mover=user [^]]*why=(bulk|home)'

	for ((i = 1; i <= $2; i++)); do
		begin "$1"
		wait_until "a verdict on the $1" "$PATIENCE" session_is " state=SPLICED | state=RELAY .*\[$unjoined\].*\[$unjoined\]"
		if session_is " state=RELAY .*why=bulk"; then
			return 0
		fi
		[ "$i" -lt "$2" ] || break
		finish
		wait_until "CurrConns 0" 10 equals 0 info CurrConns
		UP_BEFORE=$(($(info BytesInKernel) + $(info BytesInUser))) DOWN_BEFORE=$(info TotalBytesOut)
	done
	return 1
}

# bulk_first PHASE: with the scaled daemon.
bulk_first()
{
	local direction

	direction=$(direction_of "$1")
	start_changes "$SCALED"
	begin_bulk "$1" 10 || fail "expected a connection that is bulk from the start to stay out of the kernel, got: $(session)"
	note "attempt $i"
	expect_mover user "$direction"
	expect_match "the session, a look later" "$(session)" " state=RELAY .* $direction=\[mover=user kernel=0 [^]]*why=bulk\]"
	tell chat
	is_chat
	note_rate "$1"
	finish
	end_changes
}

# With the real one: where the machine is slow, it joins after a second, and whatever it did it ends as a chat in the kernel.
bulk_first_for_real()
{
	start_changes
	if begin_bulk "$1" 10; then
		expect_mover user "$(direction_of "$1")"
		tell chat
		note_rate "$1" "stayed out"
	else
		tell chat
		note_rate "$1" "joined"
		expect_lt "the rate in MB/s of the $1 that joined, ten times out of ten" "$RATE" "$SURELY_TOO_MUCH_TO_JOIN"
	fi
	is_chat
	finish
	end_changes
}

run a_chat_that_becomes_bulk_leaves_the_kernel_and_comes_back
run an_upload_stays_in_userspace_until_it_is_a_chat bulk_first upload
run a_download_stays_in_userspace_until_it_is_a_chat bulk_first download
run a_chat_that_becomes_bulk_leaves_the_kernel_where_the_machine_is_fast
run bulk_in_the_kernel_does_not_stall_on_one_cpu
run an_upload_becomes_a_chat_with_the_real_thresholds bulk_first_for_real upload
run a_download_becomes_a_chat_with_the_real_thresholds bulk_first_for_real download
net_end
