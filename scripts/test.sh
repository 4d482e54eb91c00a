#!/bin/bash
#
# test.sh - everything that must hold, from a fresh Debian 12: installs what it needs, builds, runs every ring.
#
#	sudo scripts/test.sh [RING...]
#
# Rings: check sanitize (check, bpf and net with sanitizers) tsan valgrind (check and the whole daemon) bench (is the bench itself right?)
# bpf net threads fuzz; all of them without an argument, after the build. (threads: parts of net with 1 and with 8 threads; net has as
# many as there are cores.) The last line is the sum over all rings: "N passed, N failed". A test that is skipped counts as failed
# under CI (CI=true, which is set here).

set -u
cd "$(dirname "$0")/.." || exit 1
export CI=true LC_ALL=C

PACKAGES=(
	make gcc clang llvm libbpf-dev libelf-dev zlib1g-dev libseccomp-dev bpftool pkg-config libcmocka-dev # build
	libclang-rt-14-dev valgrind						# sanitizers, fuzzer
	iproute2 util-linux procps socat curl nftables python3 strace		# the third ring's own tools
	haproxy nginx-light redis-server redis-tools wrk iperf3 postgresql	# real peers, and halog
)

# Of the third ring; left out are those that measure speed (peers, slow-readers, changing), and sandbox: a sanitized
# daemon does not restrict its calls.
SANITIZED_NET="sessions edges shutdown limits servers bad-input logs privileges stop-kill supervisor"

if [ "$(id -u)" -ne 0 ]; then
	echo "test.sh: needs root (the kernel's rings load BPF programs): sudo scripts/test.sh" >&2
	exit 1
fi

install_packages()
{
	local missing

	missing=$(dpkg-query -W -f '${Package} ${Status}\n' "${PACKAGES[@]}" 2>/dev/null |
		awk '/ok installed$/ { print $1 }' | sort | comm -13 - <(printf '%s\n' "${PACKAGES[@]}" | sort))
	[ -n "$missing" ] || return 0
	echo "== installing" $missing
	# Services of these packages need not run; where they are started all the same, they are in nobody's way.
	apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
}

passed=0 failed=0 summary=()
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# run NAME COMMAND...: a ring that ends with "N passed, N failed".
run()
{
	local name=$1 began=$SECONDS status p f

	shift
	echo "== $name: $*"
	"$@" 2>&1 < /dev/null | tee "$output"
	status=${PIPESTATUS[0]}
	if [[ $(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$output" | tail -n 1) =~ ^([0-9]+)\ passed,\ ([0-9]+) ]]; then
		p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]}
		[ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
	else
		p=0 f=1
	fi
	passed=$((passed + p)) failed=$((failed + f))
	summary+=("$(printf '%-10s %4d passed %3d failed %4d s' "$name" "$p" "$f" $((SECONDS - began)))")
}

# step NAME COMMAND...: one that passes or fails as a whole.
step()
{
	local name=$1

	shift
	run "$name" bash -c '"$@" && echo "1 passed, 0 failed" || { echo "FAIL '"$name"'"; echo "0 passed, 1 failed"; exit 1; }' - "$@"
}

wanted()
{
	local ring

	[ "${#rings[@]}" -gt 0 ] || return 0
	for ring in "${rings[@]}"; do
		[ "$ring" = "$1" ] && return 0
	done
	return 1
}

rings=("$@")
jobs=-j$(nproc)
if ! install_packages; then
	echo "FAIL install: apt-get could not install what is needed"
	echo "0 passed, 1 failed"
	exit 1
fi
[ -d /sys/fs/bpf ] && ! mountpoint -q /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf

step build make "$jobs" all tools
step vmlinux make vmlinux-check
wanted check && run check make -s "$jobs" check
wanted sanitize && run sanitize make -s "$jobs" SAN=address,undefined check
wanted tsan && run tsan make -s "$jobs" SAN=thread check
wanted valgrind && run valgrind make -s check-valgrind
wanted valgrind && run memcheck make -s "$jobs" check-memcheck
wanted bench && run bench make -s check-bench
wanted bpf && run bpf make -s "$jobs" check-bpf
wanted sanitize && run san-bpf make -s "$jobs" SAN=address,undefined check-bpf
wanted net && run net make -s "$jobs" check-net
wanted sanitize && run san-net env SHUNT_FLAGS=-db make -s "$jobs" SAN=address,undefined RINGS_NET="--quick $SANITIZED_NET" check-net
wanted threads && SHUNT_NBTHREAD=1 run threads-1 scripts/check-net.sh --quick sessions
wanted threads && SHUNT_NBTHREAD=8 run threads-8 scripts/check-net.sh --quick sessions edges
wanted fuzz && step fuzz make -s FUZZ_SECONDS=6 fuzz

echo
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
