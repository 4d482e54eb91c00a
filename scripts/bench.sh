#!/bin/bash
#
# bench.sh - shunt against HAProxy and nginx, and against no balancer at all (the engine of "make bench")
#
#	sudo scripts/bench.sh [OPTIONS]
#
#	--quick			the main rows, 3 rounds of short windows; prints, writes nothing into docs/
#	--rows REGEX		only rows whose name matches (scripts/bench/rows has them)
#	--contenders LIST	of direct,haproxy,nginx,shunt,shunt-kernel,shunt-relay
#	--rounds N		5; contenders take turns in each round: A B C A B C ...
#	--seconds S		3; the window that is measured, after half a second of warming up
#	--no-write		do not write docs/BENCHMARKS.md and docs/bench/*.svg
#	--report-only		do not measure: write them from the last results
#	--keep FOLDER		copy logs of the run there
#
# Every result is a line of build/bench/results.tsv, from which scripts/bench/report.py makes the tables and plots.
#
# Needs root. Installs what is missing from Debian (services are not started). Everything runs in namespaces of its own, which the
# kernel takes away at the end, however the script ends; the one thing outside that is touched is the list of allowed congestion
# controls, and that is put back.
#
# Exit status: 0 everything was measured; 1 something failed (each failure is in the results); 2 usage; 3 wrong bytes somewhere.

set -u
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")
BUILD=${SHUNT_BUILD:-$ROOT/build}
OUT=$BUILD/bench
ALLOWED=/proc/sys/net/ipv4/tcp_allowed_congestion_control

fail()
{
	printf 'bench: FAILED: %s\n' "$*" >&2
	exit 1
}

usage()
{
	sed -n '3,/^$/p' "$0" | sed 's/^# \?//; $d'
}

# ---- arguments ----

QUICK='' ROWS=. CONTENDERS='' ROUNDS='' SECONDS_EACH='' WRITE=yes MEASURE=yes KEEP=''

parse()
{
	while [ $# -gt 0 ]; do
		case $1 in
		--quick) QUICK=yes WRITE='' ;;
		--no-write) WRITE='' ;;
		--report-only) MEASURE='' ;;
		--rows | --contenders | --rounds | --seconds | --keep)
			[ $# -gt 1 ] || { usage >&2; exit 2; }
			case $1 in
			--rows) ROWS=$2 ;;
			--contenders) CONTENDERS=${2//,/ } ;;
			--rounds) ROUNDS=$2 ;;
			--seconds) SECONDS_EACH=$2 ;;
			--keep) KEEP=$2 ;;
			esac
			shift
			;;
		-h | --help) usage; exit 0 ;;
		*) usage >&2; exit 2 ;;
		esac
		shift
	done
	if [ -n "$QUICK" ]; then
		: "${ROUNDS:=3}" "${SECONDS_EACH:=0.5}" "${CONTENDERS:=direct haproxy nginx shunt shunt-kernel}"
		WARMUP_MS=200 VERIFY_BYTES=4m
	else
		: "${ROUNDS:=5}" "${SECONDS_EACH:=3}"
		WARMUP_MS=500 VERIFY_BYTES=64m
	fi
	[[ $ROUNDS =~ ^[1-9][0-9]*$ && $SECONDS_EACH =~ ^[0-9]*\.?[0-9]+$ ]] || { usage >&2; exit 2; }
	WINDOW_MS=$(awk -v s="$SECONDS_EACH" 'BEGIN { printf "%d", s * 1000 }')
}

# ---- outside: packages, build, congestion control ----

missing_packages()
{
	local probe

	for probe in haproxy:haproxy nginx:nginx-light gnuplot:gnuplot-nox strace:strace ethtool:ethtool python3:python3 \
		socat:socat ip:iproute2 ping:iputils-ping unshare:util-linux make:make gcc:gcc clang:clang bpftool:bpftool \
		pkg-config:pkg-config; do
		type -P "${probe%:*}" > /dev/null || echo "${probe#*:}"
	done
	for probe in include/stdio.h:libc6-dev include/libelf.h:libelf-dev include/zlib.h:zlib1g-dev \
		include/bpf/libbpf.h:libbpf-dev include/seccomp.h:libseccomp-dev lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream; do
		[ -e "/usr/${probe%:*}" ] || echo "${probe#*:}"
	done
}

# Services of what is installed are not started: it is the programs that are wanted.
install_packages()
{
	local policy=/usr/sbin/policy-rc.d made_policy='' status=0

	[ $# -gt 0 ] || return 0
	type -P apt-get > /dev/null || fail "these Debian packages are missing, and there is no apt-get: $*"
	echo "== installing: $*"
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' > "$policy"
		chmod 755 "$policy"
		made_policy=yes
	fi
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
		> "$T/apt.log" 2>&1 || status=$?
	[ -z "$made_policy" ] || rm -f "$policy"
	[ "$status" -eq 0 ] || { tail -n 5 "$T/apt.log"; fail "apt-get could not install the packages"; }
}

# As the owner of the source, so that build/ is not root's.
as_owner()
{
	local owner

	owner=$(stat -c %U "$ROOT")
	if [ "$owner" != root ] && [ "$owner" != UNKNOWN ] && type -P runuser > /dev/null; then
		runuser -u "$owner" -- "$@"
	else
		"$@"
	fi
}

build()
{
	as_owner make -C "$ROOT" BUILD="$BUILD" -j"$(nproc)" all "$BUILD/load" > "$T/make.log" 2>&1 ||
		{ tail -n 20 "$T/make.log"; fail "make could not build"; }
}

# A namespace may choose what the machine allows. BBR's pacing is set by a clock, cubic fills what there is: without cubic, the
# tables would show the clock.
allow_congestion_controls()
{
	OLD_ALLOWED=
	type -P modprobe > /dev/null && modprobe -qa tcp_cubic tcp_bbr 2> /dev/null
	if [ -w "$ALLOWED" ]; then
		OLD_ALLOWED=$(cat "$ALLOWED")
		cat /proc/sys/net/ipv4/tcp_available_congestion_control > "$ALLOWED" 2> /dev/null || OLD_ALLOWED=
	fi
}

# shellcheck disable=SC2317 # the trap calls it
clean_up()
{
	[ -z "${OLD_ALLOWED:-}" ] || echo "$OLD_ALLOWED" > "$ALLOWED"
	[ -z "$KEEP" ] || { mkdir -p "$KEEP" && cp -r "$T/." "$KEEP"; }
	rm -rf "$T"
}

version_of()
{
	"$@" 2>&1 | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)*[^ ]*' | head -n 1
}

# name<TAB>value lines: where and how this was measured.
describe_machine()
{
	printf 'date\t%s\n' "$(date -u +%Y-%m-%d)"
	printf 'kernel\t%s\n' "$(uname -sr)"
	printf 'cpu\t%s x %s\n' "$(nproc)" "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
	printf 'memory\t%s MB\n' "$(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo)"
	printf 'system\t%s\n' "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
	printf 'shunt\t%s%s\n' "$("$BUILD/shunt" -v 2>&1 | head -n 1)" \
		"$(as_owner git -C "$ROOT" describe --always --dirty 2> /dev/null | sed 's/.*/ (&)/')"
	printf 'haproxy\tHAProxy %s\n' "$(version_of haproxy -v)"
	printf 'nginx\tnginx %s\n' "$(version_of nginx -v)"
	printf 'rounds\t%s\n' "$ROUNDS"
	printf 'command\t%s\n' "scripts/bench.sh${*:+ $*}"
	printf 'seconds\t%s\n' "$SECONDS_EACH"
}

outside()
{
	local packages status=0

	[ "$(id -u)" -eq 0 ] || fail "needs root, for BPF and network namespaces: sudo $0"
	T=$(mktemp -d "${TMPDIR:-/tmp}/shunt-bench.XXXXXX")
	OLD_ALLOWED=
	trap clean_up EXIT
	trap 'exit 130' INT TERM
	chmod 755 "$T"
	packages=$(missing_packages)
	# shellcheck disable=SC2086 # words
	install_packages $packages
	build
	as_owner mkdir -p "$OUT"
	if [ -n "$MEASURE" ]; then
		describe_machine "$@" > "$OUT/machine.tsv"
		allow_congestion_controls
		SHUNT_BENCH_INSIDE=$T unshare --mount --net --pid --fork --kill-child --mount-proc "$0" "$@" || status=$?
		[ "$status" -ne 130 ] || exit 130
	fi
	chown -R --reference="$ROOT" "$OUT"
	as_owner python3 "$HERE/bench/report.py" "$OUT" "$HERE/bench/rows" ${WRITE:+--write "$ROOT/docs"} || status=1
	exit "$status"
}

# ---- inside: rows, rounds, contenders ----

LOAD=$BUILD/load
WRONG=0 FAILED=0

# wait_for SECONDS COMMAND...: until the command succeeds; fails if it does not.
wait_for()
{
	local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))

	shift
	until "$@"; do
		[ "${EPOCHREALTIME/./}" -lt "$deadline" ] || return 1
		sleep 0.02
	done
}

note_once()
{
	grep -qxF -- "note	$1" "$OUT/machine.tsv" || printf 'note\t%s\n' "$1" >> "$OUT/machine.tsv"
}

# record ROUND ROW CONTENDER LINE: into the results, and a short form of it to the terminal.
record()
{
	local short

	printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >> "$OUT/results.tsv"
	case $4 in
	status=ok*)
		short=$(grep -oE "\\b(then_)?($METRIC|mbit|per_s|p99_us|peak_mb)=[^ ]*" <<< "$4" | grep -v '=0.0$' | tr '\n' ' ')
		;;
	status=wrong*) WRONG=1 short=$4 ;;
	*) FAILED=1 short=$4 ;;
	esac
	printf '   %-16s %-13s %s  %s\n' "$2" "$3" "$1" "$short"
}

# client ARGUMENTS...: the load, at the client; prints its line, whatever happens.
client()
{
	local line status=0

	line=$(nsenter "--net=/run/netns/$CLIENT" timeout -k 5 180 "$LOAD" "$@" --connect "$TARGET:$MAIN" \
		--control "$BACK:$MAIN" --bulk "$TARGET:$BULK" ${WATCHED:+--watch "$WATCHED"} 2> "$T/load.err") || status=$?
	line=$(grep -oE 'status=.*' <<< "$line" | tail -n 1)
	[ -n "$line" ] || line="status=failed reason=the load ended with status $status: $(tail -n 1 "$T/load.err")"
	echo "$line"
}

# Calls of all the balancer's threads, divided by the sessions.
client_under_strace()
{
	local line tracer pids=()

	read -ra pids <<< "${WATCHED//,/ -p }"
	strace -c -f -o "$T/strace" -p "${pids[@]}" 2> "$T/strace.err" &
	tracer=$!
	wait_for 5 grep -q attached "$T/strace.err" || { echo "status=failed reason=strace: $(tail -n 1 "$T/strace.err")"; return; }
	line=$(client "$@")
	kill -INT "$tracer"
	wait "$tracer" 2> /dev/null
	case $line in
	status=ok*)
		awk -v sessions="$(grep -oE '\bmessages=[0-9]+' <<< "$line" | cut -d = -f 2)" '
			$1 ~ /^[0-9.]+$/ && $NF != "total" { calls = $4; printf " sys_%s=%.2f", $NF, calls / sessions; sum += calls }
			END { printf " calls=%.2f", sum / sessions }' "$T/strace" | sed "s/^/$line/"
		echo
		;;
	*) echo "$line" ;;
	esac
}

# one ROUND ROW CONTENDER HOW ARGUMENTS...: starts everything, runs the load once, ends everything.
one()
{
	local round=$1 row=$2 contender=$3 how=$4 line

	shift 4
	WHY=
	if servers_start && contender_start "$contender"; then
		case " $how " in
		*" strace "*) line=$(client_under_strace "$@") ;;
		*) line=$(client "$@") ;;
		esac
		if [ -n "$DAEMON" ] && is_gone "$DAEMON"; then
			line="status=failed reason=$contender died: $(tail -n 1 "$T/daemon.out")"
		fi
		case $line in
		status=ok*) line+=$(kernel_share "$contender") ;;
		esac
	else
		line="status=failed reason=$WHY"
	fi
	contender_stop
	servers_stop
	record "$round" "$row" "$contender" "$line"
}

# contenders_of HOW: who takes part in a row.
contenders_of()
{
	local c

	for c in ${CONTENDERS:-${CONTENDERS_ALL[*]}}; do
		case " $1 " in
		*" not=$c "*) ;;
		*) echo "$c" ;;
		esac
	done
}

# Every byte of every contender, before its speed is of interest to anybody.
verify()
{
	local contender bytes=$VERIFY_BYTES

	METRIC=bytes
	[ "$1" != wan ] || bytes=1m # its echoes take 50 ms each
	echo "== every byte checked ($1)"
	net_is "$1" || { record 0 "verify-$1" all "status=failed reason=this network is not possible here"; return; }
	for contender in $(contenders_of ""); do
		one 0 "verify-$1" "$contender" "" verify --connections 8 --bytes "$bytes"
	done
}

run_row()
{
	local name=$1 net=$2 how=$3 load=$4 title=$5 round contender rounds=$ROUNDS most

	most=$(grep -oE 'rounds=[0-9]+' <<< "$how" | cut -d = -f 2)
	[ -z "$most" ] || [ "$most" -ge "$rounds" ] || rounds=$most
	echo "== $title ($name, $net)"
	if ! net_is "$net"; then
		for contender in $(contenders_of "$how"); do
			record 1 "$name" "$contender" "status=failed reason=this network is not possible here"
		done
		return
	fi
	for ((round = 1; round <= rounds; round++)); do
		for contender in $(contenders_of "$how"); do
			# shellcheck disable=SC2086 # words
			one "$round" "$name" "$contender" "$how" ${load%% *} --warmup-ms "$WARMUP_MS" --window-ms "$WINDOW_MS" \
				${load#* }
		done
	done
}

# Prints the rows that are wanted: name|net|how|load|metric|title
wanted_rows()
{
	awk -F '|' -v wanted="$ROWS" -v quick="$QUICK" '
		/^#/ || NF < 8 { next }
		{ for (i = 1; i <= NF; i++) gsub(/^[ \t]+|[ \t]+$/, "", $i) }
		$1 !~ wanted || (quick && $4 !~ /quick/) { next }
		{ print $1 "|" $3 "|" $4 "|" $5 "|" $6 "|" $8 }' "$HERE/bench/rows"
}

inside()
{
	local name net how load title nets

	T=$SHUNT_BENCH_INSIDE
	trap 'exit 130' INT TERM # process 1 of a namespace has no default actions
	cp "$BUILD/load" "$T/load" || fail "no copy of load" # copies: "make" meanwhile disturbs nothing
	cp "$BUILD/shunt" "$T/balancer" || fail "no copy of shunt"
	LOAD=$T/load
	ulimit -n 65536 2> /dev/null || ulimit -n "$(ulimit -Hn)"
	# shellcheck source=scripts/bench/net.sh
	. "$HERE/bench/net.sh"
	# shellcheck source=scripts/bench/contenders.sh
	. "$HERE/bench/contenders.sh"
	net_begin
	write_configs
	: > "$OUT/results.tsv"
	wanted_rows > "$T/rows"
	[ -s "$T/rows" ] || fail "no row is called '$ROWS'"
	nets=$(cut -d '|' -f 2 "$T/rows" | uniq | awk '!seen[$0]++')
	for net in $nets; do
		verify "$net"
	done
	while IFS='|' read -r name net how load METRIC title <&3; do
		run_row "$name" "$net" "$how" "$load" "$title"
	done 3< "$T/rows"
	[ -z "${WAN:-}" ] || note_once "the 50 ms path: $WAN"
	[ "$WRONG" -eq 0 ] || exit 3
	exit "$FAILED"
}

parse "$@"
if [ -n "${SHUNT_BENCH_INSIDE:-}" ] && [ $$ -eq 1 ]; then
	inside
else
	outside "$@"
fi
