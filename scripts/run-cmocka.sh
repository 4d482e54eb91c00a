#!/bin/bash
#
# run-cmocka.sh - run cmocka programs and sum up their tests.
#
#	scripts/run-cmocka.sh PROGRAM...
#
# Prints the whole output of what failed, a line for what passed, and at last "N passed, N failed".
# A program that dies, or runs no test at all, counts as a failed test. SHUNT_WRAP is put in front
# of each (SHUNT_WRAP="valgrind -q --error-exitcode=9 --leak-check=full"). SHUNT_JOBS of them run at a time; 1 unless given.

set -u

# run PROGRAM: its numbers go into a file of their own.
run()
{
	local output status ok bad

	# shellcheck disable=SC2086 # SHUNT_WRAP is words
	output=$(CMOCKA_MESSAGE_OUTPUT=stdout timeout "${SHUNT_TEST_TIMEOUT:-300}" ${SHUNT_WRAP:-} "$1" 2>&1)
	status=$?
	ok=$(grep -c '^\[       OK \]' <<< "$output")
	bad=$(grep '^\[  FAILED  \] [a-z_0-9]*$' <<< "$output" | sort -u | wc -l)
	if [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; then
		printf '%s\nFAIL %s: exit status %d\n' "$output" "${1##*/}" "$status"
		[ "$bad" -gt 0 ] || bad=1
	else
		printf 'ok   %s: %d tests\n' "${1##*/}" "$ok"
		bad=0
	fi
	echo "$ok $bad" > "$T/${1##*/}"
}

T=$(mktemp -d) || exit 1
trap 'rm -rf "$T"' EXIT
for program in "$@"; do
	[ "$(jobs -rp | wc -l)" -lt "${SHUNT_JOBS:-1}" ] || wait -n
	run "$program" &
done
wait
passed=0 failed=0
for program in "$@"; do
	# Without a line it did not even get as far as to fail.
	read -r ok bad < "$T/${program##*/}" || ok=0 bad=1
	passed=$((passed + ok)) failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
