#!/bin/bash
# test-edges.sh - every edge case of a session (build/edges: half-closes, resets, early bytes, closed windows, refusals, ...) through
# every path. Each scenario is a test of its own.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

# edges_through PATH GLOBAL LISTEN [quick]: plays them all; quick: but for those that wait for timeouts, which know nothing of movers.
edges_through()
{
	local path=$1 before QUICK=${4:-$QUICK}

	config "$2" "$3;retries 0" | start_shunt
	before=$(descriptors)
	# shellcheck disable=SC2046 # words
	spawn edges "$CASES" --front 127.0.0.1:8080 --back 127.0.0.1:9001 $(full --quick "")
	wait_until "edges to end" 180 has_ended edges
	sed -n "s/^\(ok\|FAIL\) /\1 ${path}_/p" "$T/edges.out" >> "$HOME_DIR/results"
	grep -v '^ok\|passed,' "$T/edges.out" | sed "s/^FAIL /FAIL ${path}_/" || :
	expect_match "the last line of edges" "$(tail -n 1 "$T/edges.out")" "^[0-9]+ passed, [0-9]+ failed"
	note "$(tail -n 1 "$T/edges.out")"
	expect_ge "the number of scenarios" "$(grep -c '^ok\|^FAIL' "$T/edges.out")" "$(full 60 80)"
	expect_no_leftovers "$before"
}

run edges_through_the_kernel edges_through kernel "splice require" "$KERNEL"
run edges_through_userspace edges_through userspace "" "no option splice-auto"
run edges_with_requests_in_the_kernel edges_through requests "splice require" "option splice-request" quick
run edges_with_responses_in_the_kernel edges_through responses "splice require" "option splice-response" quick
run edges_with_a_tiny_limit edges_through tiny_limit "splice require;tune.splice.limit 4k" "$KERNEL" quick
run edges_with_movers_of_shunts_choice edges_through choice "splice require" ""
net_end
