#!/bin/bash
#
# run-cmocka.sh - run cmocka programs one after the other and sum up their tests.
#
#	scripts/run-cmocka.sh PROGRAM...
#
# Prints the whole output of what failed, a line for what passed, and at last "N passed, N failed".
# A program that dies, or runs no test at all, counts as a failed test. SHUNT_WRAP is put in front
# of each (SHUNT_WRAP="valgrind -q --error-exitcode=9 --leak-check=full").

set -u
passed=0 failed=0
for program in "$@"; do
	# shellcheck disable=SC2086 # SHUNT_WRAP is words
	output=$(CMOCKA_MESSAGE_OUTPUT=stdout timeout "${SHUNT_TEST_TIMEOUT:-300}" ${SHUNT_WRAP:-} "$program" 2>&1)
	status=$?
	ok=$(grep -c '^\[       OK \]' <<< "$output")
	bad=$(grep '^\[  FAILED  \] [a-z_0-9]*$' <<< "$output" | sort -u | wc -l)
	if [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; then
		printf '%s\n' "$output"
		printf 'FAIL %s: exit status %d\n' "${program##*/}" "$status"
		[ "$bad" -gt 0 ] || bad=1
	else
		printf 'ok   %s: %d tests\n' "${program##*/}" "$ok"
		bad=0
	fi
	passed=$((passed + ok)) failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
