#!/bin/bash
# test-sessions.sh - thousands of random sessions (sizes, chunks, delays, half-closes, slow readers, resets), checked at both ends,
# through every path and every pair of address families; and nothing is left over afterwards.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
needs nft
net_begin "$@"

# random_sessions COUNT LISTEN SERVER: drives them, by $DRIVER and $SERVE (words in front of the two programs); $BYTES at most, each
# way.
random_sessions()
{
	local count=$1 front=$2 back=$3 seed=${SHUNT_NET_SEED:-$RANDOM}

	# shellcheck disable=SC2086 # words
	spawn serve ${SERVE:-} "$PEER" serve --listen "$back" --grace "${GRACE:-2}"
	wait_until "the server to listen" 10 has_line "$T/serve.out" '^ready'
	# shellcheck disable=SC2086
	spawn drive ${DRIVER:-} "$PEER" drive --connect "$front" --sessions "$count" --concurrency 64 --max-bytes "${BYTES:-4m}" \
		--slow 10 --reset 10 --delays 10 --seed "$seed" --timeout 30
	note "seed $seed"
	watch_drive
	stop_server serve
	expect_eq "errors at the servers" "$(field errors "$T/serve.out")" 0
	expect_eq "right sessions" "$(field ok "$T/drive.out")" "$count"
}

# Waits for the driver; if it stands still for 15 s, keeps what is to be seen then.
watch_drive()
{
	local before=-1 now since=$SECONDS

	while is_running drive; do
		now=$(awk '{ s += $3 } END { print s }' /proc/net/dev)
		now=$(info CumConns)
		if [ "$now" != "$before" ]; then
			before=$now since=$SECONDS
		elif [ $((SECONDS - since)) -ge 15 ] && [ ! -e "$T/stuck" ]; then
			touch "$T/stuck"
			save_state
			mkdir -p "$T/when-stuck"
			mv "$T"/show-*.txt "$T/ss.txt" "$T/flows.txt" "$T/when-stuck/" 2> /dev/null || :
		fi
		nap 0.5
	done
	join drive 1
}

# path COUNT GLOBAL LISTEN: COUNT sessions, after some that bring the daemon's memory to its working size.
path()
{
	local count=$1 before rss

	config "maxconn 200;$2" "$3" | start_shunt
	before=$(descriptors)
	random_sessions $((count / 5)) 127.0.0.1:8080 127.0.0.1:9001
	expect_no_leftovers "$before"
	rss=$(memory shunt VmRSS)
	random_sessions $((count - count / 5)) 127.0.0.1:8080 127.0.0.1:9001
	expect_no_leftovers "$before"
	# What allocator and stack have once used, they keep: that is not more the longer it runs. Each thread has its own.
	expect_le "growth of the daemon's memory in kB" $(($(memory shunt VmRSS) - rss)) $((4096 + 2048 * $(info Nbthread)))
	expect_eq CumConns "$(info CumConns)" "$count"
}

random_sessions_through_the_kernel()
{
	path "$(full 1000 10000)" "splice require" "$KERNEL"
	expect_gt "bytes moved by the kernel" "$(info BytesInKernel)" "$(info BytesInUser)"
	expect_gt SessionsJoined "$(info SessionsJoined)" 0
}

random_sessions_through_userspace()
{
	path "$(full 1000 10000)" "" "no option splice-auto"
	expect_eq BytesInKernel "$(info BytesInKernel)" 0
	expect_eq BytesOutKernel "$(info BytesOutKernel)" 0
}

random_sessions_with_movers_of_shunts_choice()
{
	path "$(full 1000 10000)" "splice require" ""
	# Few of them live long enough to join; with dice they all do.
	expect_gt Fallback_choice "$(info Fallback_choice)" 0
	expect_gt BytesInUser "$(info BytesInUser)" 0
}

random_sessions_with_dice_for_the_movers()
{
	DAEMON=$DICE
	path "$(full 1000 10000)" "splice require" ""
	expect_gt SessionsJoined "$(info SessionsJoined)" 0
	expect_gt Pauses "$(info Pauses)" "$(full 20 200)"
	expect_gt Resumes "$(info Resumes)" "$(full 20 200)"
}

random_sessions_with_requests_in_the_kernel()
{
	path "$(full 500 2500)" "splice require" "option splice-request"
	expect_gt BytesInKernel "$(info BytesInKernel)" 0
	expect_eq BytesOutKernel "$(info BytesOutKernel)" 0
}

random_sessions_with_responses_in_the_kernel()
{
	path "$(full 500 2500)" "splice require" "option splice-response"
	expect_eq BytesInKernel "$(info BytesInKernel)" 0
	expect_gt BytesOutKernel "$(info BytesOutKernel)" 0
}

random_sessions_that_change_their_mover_all_the_time()
{
	path "$(full 500 2500)" "splice require;tune.splice.limit 4k" "$KERNEL"
	expect_gt Pauses "$(info Pauses)" "$(full 100 500)"
	expect_gt Resumes "$(info Resumes)" "$(full 100 500)"
}

random_sessions_between_three_hosts()
{
	local before

	hosts
	config "maxconn 200;splice require" "" | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	before=$(descriptors)
	DRIVER="nsenter --net=/run/netns/$CLIENT" SERVE="nsenter --net=/run/netns/$SERVER" \
		random_sessions "$(full 300 2000)" 10.1.0.1:8080 10.2.0.2:9001
	expect_no_leftovers "$before"
}

# Seconds that a server has for what a client left on its way to it: time-outs of TCP double, 0.2 to 6.4 s for five losses in a row.
LOSSY_GRACE=15

# lossy [HOST]: every 50th packet that comes to a TCP socket is lost. What is sent again overlaps with what has come. (Resets are
# spared, and what may be a bare acknowledgment: nobody sends a reset again, and one that comes behind a lost segment is answered with
# such an acknowledgment, to be asked for exactly. Whoever misses either waits for ever, with or without us.)
lossy()
{
	if [ $# -gt 0 ]; then set -- on "$1"; fi
	"$@" nft -f - <<-'END'
		table inet lossy {
			chain in {
				type filter hook input priority 0;
				tcp flags & (syn | fin) != 0 numgen random mod 50 0 drop
				tcp flags & rst == 0 meta length > 100 numgen random mod 50 0 drop
			}
		}
	END
}

random_sessions_over_a_lossy_network()
{
	local before

	hosts
	config "maxconn 200;splice require" "" | sed 's/127.0.0.1:8080/10.1.0.1:8080/; s/127.0.0.1:9001/10.2.0.2:9001/' |
		RUN_AS="nsenter --net=/run/netns/$BALANCER" start_shunt
	before=$(descriptors)
	lossy "$BALANCER"
	lossy "$CLIENT"
	lossy "$SERVER"
	GRACE=$LOSSY_GRACE BYTES=1m DRIVER="nsenter --net=/run/netns/$CLIENT" SERVE="nsenter --net=/run/netns/$SERVER" \
		random_sessions "$(full 100 500)" 10.1.0.1:8080 10.2.0.2:9001
	expect_no_leftovers "$before"
}

# lossy_loopback GLOBAL LISTEN: the same with segments of 64 kB.
lossy_loopback()
{
	local before

	# The log says who ended what, should anything go wrong.
	config "maxconn 200;splice require;log stdout format raw local0;$1" "log global;option tcplog;$2" | start_shunt
	before=$(descriptors)
	lossy
	GRACE=$LOSSY_GRACE BYTES=8m random_sessions "$(full 100 400)" 127.0.0.1:8080 127.0.0.1:9001
	nft delete table inet lossy
	expect_no_leftovers "$before"
	note "$(info Verdict_trimmed) segments trimmed"
}

# dice COMMAND...: with a daemon that throws dice.
dice()
{
	DAEMON=$DICE
	"$@"
}

# families LISTEN SERVER
families()
{
	config "maxconn 200;splice require" "$KERNEL" | sed "s/127.0.0.1:8080/$1/; s/127.0.0.1:9001/$2/" | start_shunt
	random_sessions "$(full 200 1000)" "$1" "$2"
	expect_no_leftovers "$(descriptors)"
	expect_gt BytesInKernel "$(info BytesInKernel)" 0
}

run random_sessions_through_the_kernel
run random_sessions_through_userspace
run random_sessions_with_movers_of_shunts_choice
run random_sessions_with_dice_for_the_movers
run random_sessions_with_requests_in_the_kernel
run random_sessions_with_responses_in_the_kernel
run random_sessions_that_change_their_mover_all_the_time
run random_sessions_between_three_hosts
run random_sessions_over_a_lossy_network
run random_sessions_over_a_lossy_loopback lossy_loopback "" "$KERNEL"
run random_sessions_over_a_lossy_loopback_with_movers_of_shunts_choice lossy_loopback "" ""
run random_sessions_over_a_lossy_loopback_with_dice_for_the_movers dice lossy_loopback "" ""
run random_sessions_over_a_lossy_loopback_with_a_small_limit lossy_loopback "tune.splice.limit 64k" "$KERNEL"
run random_sessions_from_ipv4_to_ipv6 families 127.0.0.1:8080 '[::1]:9001'
run random_sessions_from_ipv6_to_ipv4 families '[::1]:8080' 127.0.0.1:9001
run random_sessions_from_ipv6_to_ipv6 families '[::1]:8080' '[::1]:9001'
net_end
