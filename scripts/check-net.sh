#!/bin/bash
#
# check-net.sh - the third ring: the daemon as a whole, between real clients and servers (the engine of "make check-net")
#
#	scripts/check-net.sh [--quick] [NAME...]	all of scripts/net/test-*.sh, or those whose name contains a NAME
#
# Runs them one after the other, each in namespaces of its own (see lib.sh), and sums up: the last line is "N passed, N failed".
# Needs root. --quick: smaller numbers, for the impatient.

set -u
here=$(cd "$(dirname "$0")" && pwd)
quick=() names=()
for arg in "$@"; do
	case $arg in
	--quick) quick=(--quick) ;;
	-*) echo "usage: $0 [--quick] [NAME...]" >&2; exit 2 ;;
	*) names+=("$arg") ;;
	esac
done

is_wanted()
{
	local name

	[ "${#names[@]}" -gt 0 ] || return 0
	for name in "${names[@]}"; do
		case $1 in *"$name"*) return 0 ;; esac
	done
	return 1
}

passed=0 failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT
for script in "$here"/net/test-*.sh; do
	name=$(basename "$script" .sh)
	is_wanted "$name" || continue
	began=$SECONDS
	echo "== $name"
	timeout --foreground "${SHUNT_NET_TIMEOUT:-600}" "$script" "${quick[@]}" < /dev/null | tee "$output"
	status=${PIPESTATUS[0]}
	sum=$(tail -n 1 "$output")
	if [[ $sum =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
	else
		passed=$((passed + $(grep -c '^ok ' "$output")))
		failed=$((failed + $(grep -c '^FAIL ' "$output") + 1))
		echo "FAIL $name: expected it to end with a sum, got exit status $status"
	fi
	echo "== $name took $((SECONDS - began)) s"
done
if [ $((passed + failed)) -eq 0 ]; then
	echo "FAIL check-net: expected a test called '${names[*]}', got none"
	failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
