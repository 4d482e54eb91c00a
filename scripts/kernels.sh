#!/bin/bash
#
# kernels.sh - does shunt work on the kernels that people have? (the engine of "make check-kernels")
#
#	scripts/kernels.sh [6.1] [6.12]		default: both
#
# For each kernel: fetch Debian's cloud kernel (downloaded and unpacked, never installed), pack an
# initramfs with our programs and the libraries that they need, boot it under qemu's software
# emulation (no KVM, no network), run TESTS inside, read the results from the serial lines: looks at
# what the kernel has, the tests that need no privileges, the tests of the BPF program, and the
# whole daemon (kernel-guest.sh). A command that has exited 0 has passed: as one test, or as those
# that it names in its output. A skip inside the guest is a failure, since we decide what is in
# there. A warning of the kernel is a failure too, whatever the tests say. The last line is "N
# passed, N failed".
#
# The guest has two serial lines, so that kernel messages never cut a result in two: ttyS0 is the
# kernel's console, ttyS1 carries the output of the tests. Both stay in the cache directory, as
# VERSION/console.log and VERSION/tests.log.
#
# Needs no root, unless a tool is missing. Everything that was downloaded stays in the cache; to get
# newer kernels, remove it. Settings, from the environment:
#
#	SHUNT_KERNEL_CACHE	where kernels, busybox and logs are kept	build/kernels
#	SHUNT_KERNEL_TIMEOUT	seconds for one kernel, boot included		600
#	SHUNT_TEST_TIMEOUT	seconds for one command				300
#	SHUNT_DEBIAN_MIRROR	URI of a Debian mirror		that of this machine's own apt
#	SHUNT_KERNEL_ONLY	run only what has a name that matches this (grep -E)	all
#	V=1			show the output of passed tests too

set -euo pipefail

# What runs in the guest, in this order: the first word is the test's name, the rest is for sh -c,
# in the guest's copy of the project's root.
TESTS=(
	'kernel_release		uname -r'
	'kernel_has_btf		test -s /sys/kernel/btf/vmlinux'
	'kernel_has_tls_ulp	grep -w tls /proc/sys/net/ipv4/tcp_available_ulp'
	'bpftool_lists_programs	bpftool prog list'
	'sockmap_8_byte_value	bpftool map create /sys/fs/bpf/m type sockmap key 4 value 8 entries 1 name m'
	'netns_has_veth		unshare --net ip link add veth0 type veth peer name veth1'
	# Without CI it may skip: one of its tests asks halog, which is a part of HAProxy.
	'test_tcplog		env -u CI build/tests/test_tcplog'
)

# Every executable that matches is one more command, run by itself, without arguments, and called by
# its file name, unless TESTS has that name. (What scripts read belongs to GUEST_FILES, the programs
# that they call to GUEST_BINARIES.)
TEST_GLOBS=(
	'build/tests/test_*'
	'build/tests/bpf_*'
	'scripts/kernel-guest.sh'
)

# Files of the project that tests need, at the same place in the guest; patterns may match nothing,
# names must exist.
GUEST_FILES=(
	build/shunt build/shunt-dice build/shunt-scaled build/shunt-mortal build/shunt-next build/shunt-jumpy build/shunt-older build/exact build/edges build/changing build/flood
	scripts/lib.sh
)

# Programs of this machine that tests call; whatever else they call is busybox. Beware that busybox
# runs its own imitation of a program even when the real one is there: when a test calls "xargs ip",
# it needs the real xargs as well. sh, env and timeout are always real.
GUEST_BINARIES=(bash bpftool ip ss unshare nsenter setpriv socat getconf find pgrep)

# Kernel modules to load; what they depend on comes along, what is built in is left out.
GUEST_MODULES=(veth tls)

# Where a tool comes from, if its package is called differently.
declare -A PACKAGE_OF=(
	[qemu-system-x86_64]=qemu-system-x86
	[ip]=iproute2
	[ss]=iproute2
	[find]=findutils
	[pgrep]=procps
	[unshare]=util-linux
	[nsenter]=util-linux
	[setpriv]=util-linux
	[getconf]=libc-bin
	[ldd]=libc-bin
	[dpkg-deb]=dpkg
	[awk]=mawk
)

# Kernel messages that fail a run, and those that are only worth a look (extended regular
# expressions). Emulation is slow and the machine may be busy, so a hogged workqueue proves nothing.
KERNEL_FAILURES='BUG:|WARNING:|Oops|general protection|KASAN|Kernel panic|blocked for more than'
# inet_sock_destruct: sk_forward_alloc of a socket with a verdict program drifts, in every kernel that we know ("bpf, sockmap: Fix
# concurrency issues between memory charge and uncharge" is in none). It is an accounting warning, once per boot; no byte is touched.
KERNEL_KNOWN='WARNING: .*inet_sock_destruct'
KERNEL_NOTES='workqueue: .* hogged|waiting for .* to become free|detected stall'

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

ROOT=$(cd "$(dirname "$0")/.." && pwd)
CACHE=${SHUNT_KERNEL_CACHE:-build/kernels}
TIMEOUT=${SHUNT_KERNEL_TIMEOUT:-600}
TEST_TIMEOUT=${SHUNT_TEST_TIMEOUT:-300}

TMP=
QEMU=
PASSED=0
FAILED=0

say() {
	printf '%s\n' "$*"
}

die() {
	printf 'kernels.sh: %s\n' "$*" >&2
	exit 1
}

indent() {
	sed 's/^/      | /'
}

clean_up() {
	if [[ -n $QEMU ]]; then
		kill "$QEMU" 2>/dev/null || true
	fi
	if [[ -n $TMP ]]; then
		rm -rf "$TMP"
	fi
}

# --- tools -------------------------------------------------------------------------------------

install_packages() {
	apt-get install -qq -y --no-install-recommends "$@"
}

# need TOOL...: installs what is missing when it may, else says what is missing.
need() {
	local tool tools=() packages=()

	for tool; do
		if ! type -P "$tool" >/dev/null; then
			tools+=("$tool")
			packages+=("${PACKAGE_OF[$tool]:-$tool}")
		fi
	done
	if [[ ${#tools[@]} -eq 0 ]]; then
		return
	fi
	if [[ $(id -u) -ne 0 ]]; then
		die "missing: ${tools[*]} (packages: ${packages[*]})"
	fi
	say "installing ${packages[*]}"
	export DEBIAN_FRONTEND=noninteractive
	# A fresh machine may have no package lists yet, or old ones.
	{
		install_packages "${packages[@]}" ||
			{ apt-get update -qq && install_packages "${packages[@]}"; }
	} >"$TMP/install.log" 2>&1 ||
		{ cat "$TMP/install.log" >&2; die "cannot install ${packages[*]}"; }
}

# --- fetching ----------------------------------------------------------------------------------

# private_apt TOOL ARGUMENT...: apt with lists, cache and sources of our own, which neither sees
# nor changes those of the machine. (Proxies and the like, in apt.conf, still hold.)
private_apt() {
	local tool=$1

	shift
	"$tool" -q \
		-o Dir::Etc::SourceList="$TMP/apt/sources.list" \
		-o Dir::Etc::SourceParts="$TMP/apt/none" \
		-o Dir::Etc::Preferences="$TMP/apt/none" \
		-o Dir::Etc::PreferencesParts="$TMP/apt/none" \
		-o Dir::State="$TMP/apt/state" -o Dir::State::status="$TMP/apt/status" \
		-o Dir::Cache="$TMP/apt/cache" \
		-o APT::Architecture=amd64 -o APT::Architectures::=amd64 \
		-o APT::Sandbox::User=root \
		-o Acquire::Languages=none "$@" 2>>"$TMP/apt/log"
}

# Prints "URI SUITE" for each suite that this machine's apt knows. (Not "apt-get indextargets",
# which prints nothing until the lists have been fetched for the first time.)
machine_suites() {
	if [[ -n ${SHUNT_DEBIAN_MIRROR:-} ]]; then
		say "${SHUNT_DEBIAN_MIRROR%/} bookworm"
		return
	fi
	apt-get --print-uris update |
		sed -n "s|^'\(.*\)/dists/\([^/']*\)/InRelease'.*|\1 \2|p" | sort -u
}

# read_lists EXTRA_SUITE: fetches the package lists of Debian 12's own suites, plus one that lies on
# the same mirror. Another vendor's repository may have a suite of the same name; it is not signed
# with Debian's keys, so apt rejects it, and that is no reason to give up.
read_lists() {
	local uri suite suites

	suites=$(machine_suites)
	rm -rf "$TMP/apt"
	mkdir -p "$TMP"/apt/{none,state/lists/partial,cache/archives/partial}
	: >"$TMP/apt/status"
	while read -r uri suite; do
		case $suite in
		bookworm)
			say "deb [signed-by=$KEYRING] $uri bookworm main"
			say "deb [signed-by=$KEYRING] $uri $1 main"
			;;
		bookworm-updates | bookworm-security)
			say "deb [signed-by=$KEYRING] $uri $suite main"
			;;
		esac
	done <<<"$suites" >"$TMP/apt/sources.list"
	if [[ ! -s $TMP/apt/sources.list ]]; then
		die "this machine's apt knows no suite 'bookworm': set SHUNT_DEBIAN_MIRROR"
	fi
	private_apt apt-get update >>"$TMP/apt/log" || true
}

# package_version PACKAGE PREFIX: prints the newest version that begins so, if there is one.
package_version() {
	private_apt apt-cache madison "$1" |
		awk -F ' *[|] *' -v prefix="$2" '
			index($2, prefix) == 1 && !found { print $2; found = 1 }'
}

# unpack PACKAGE VERSION INTO: downloads a package and unpacks it.
unpack() {
	mkdir -p "$3"
	(cd "$3" && private_apt apt-get download "$1=$2") >>"$TMP/apt/log" 2>&1 ||
		{ tail -n 20 "$TMP/apt/log" >&2; die "cannot download $1 $2"; }
	dpkg-deb -x "$3"/*.deb "$3"
	rm -f "$3"/*.deb
}

fetch_busybox() {
	local version

	version=$(package_version busybox-static '')
	if [[ -z $version ]]; then
		tail -n 20 "$TMP/apt/log" >&2
		die "cannot find the package busybox-static"
	fi
	# Unpacked, not installed: the package conflicts with the "busybox" that a machine may have.
	unpack busybox-static "$version" "$TMP/busybox"
	mv "$(find "$TMP/busybox" -type f -path '*bin/busybox')" "$CACHE/busybox"
}

# fetch_kernel 6.1: puts vmlinuz, config, modules/, release and version into the cache.
fetch_kernel() {
	local meta=linux-image-cloud-amd64 version package release new=$TMP/kernel-$1

	version=$(package_version $meta "$1.")
	if [[ -z $version ]]; then
		read_lists trixie
		version=$(package_version $meta "$1.")
	fi
	if [[ -z $version ]]; then
		tail -n 20 "$TMP/apt/log" >&2
		die "neither Debian 12, nor its backports, nor Debian 13 has a cloud kernel $1"
	fi
	package=$(private_apt apt-cache show "$meta=$version" |
		sed -n 's/^Depends: \([^ ,]*\).*/\1/p')
	say "fetching $package $version"
	unpack "$package" "$version" "$new.deb"

	release=$(basename "$(find "$new.deb/boot" -name 'vmlinuz-*')")
	release=${release#vmlinuz-}
	mkdir "$new"
	mv "$new.deb/boot/vmlinuz-$release" "$new/vmlinuz"
	mv "$new.deb/boot/config-$release" "$new/config"
	mv "$(find "$new.deb" -type d -path "*lib/modules/$release")" "$new/modules"
	say "$release" >"$new/release"
	say "$version" >"$new/version"
	# Last, in one step: a kernel in the cache is a complete one.
	rm -rf "${CACHE:?}/$1"
	mv "$new" "$CACHE/$1"
}

fetch() {
	local version missing=()

	for version; do
		if [[ ! -f $CACHE/$version/version ]]; then
			missing+=("$version")
		fi
	done
	if [[ -x $CACHE/busybox && ${#missing[@]} -eq 0 ]]; then
		return
	fi
	if [[ ! -r $KEYRING ]]; then
		die "missing: $KEYRING (package: debian-archive-keyring)"
	fi
	read_lists bookworm-backports
	if [[ ! -x $CACHE/busybox ]]; then
		fetch_busybox
	fi
	for version in "${missing[@]}"; do
		fetch_kernel "$version"
	done
}

# --- the guest's root --------------------------------------------------------------------------

# add_file SOURCE TARGET: copies a file and, if it is a program, the shared libraries that it needs.
add_file() {
	local needed library

	install -D -m "$(stat -L -c %a "$1")" "$1" "$TMP/root$2"
	if ! needed=$(ldd "$1" 2>/dev/null); then
		return 0 # a script, or a static program
	fi
	if [[ $needed == *'not found'* ]]; then
		die "$1 lacks a shared library: $(grep 'not found' <<<"$needed")"
	fi
	while read -r library; do
		add_library "$library"
	done < <(awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' <<<"$needed")
}

add_library() {
	if [[ ! -e $TMP/root$1 ]]; then
		install -D -m 755 "$1" "$TMP/root$1"
	fi
}

# add_binaries NAME...: programs of this machine, at the place where they are here.
add_binaries() {
	local name path

	need "$@"
	for name; do
		path=$(type -P "$name")
		add_file "$path" "$path"
	done
}

# add_project_files PATTERN...: files of the project. Patterns are relative to its root.
add_project_files() {
	local pattern path

	for pattern; do
		while read -r path; do
			if [[ $path == *.[od] ]]; then
				continue # left by the build beside its programs
			elif [[ -f $path ]]; then
				add_file "$path" "/shunt/$path"
			elif [[ $path == "$pattern" && $pattern != *[*?[]* ]]; then
				die "there is no $path: run make first"
			fi
		done < <(compgen -G "$pattern" || say "$pattern")
	done
}

# Prints the tests, one per line, "NAME COMMAND". (A glob that matches nothing is worth a note: it
# may be that nobody has run make.)
list_tests() {
	local entry pattern path name command found names=()

	for entry in "${TESTS[@]}"; do
		read -r name command <<<"$entry"
		names+=("$name")
		say "$name $command"
	done
	for pattern in "${TEST_GLOBS[@]}"; do
		found=
		while read -r path; do
			if [[ -f $path && -x $path ]]; then
				found=yes
				name=$(basename "$path" .sh)
				[[ " ${names[*]} " == *" $name "* ]] || say "$name $path"
			fi
		done < <(compgen -G "$pattern" | sort)
		if [[ -z $found ]]; then
			say "note  nothing to run matches $pattern" >&2
		fi
	done
}

# The guest's process 1. busybox comes last in PATH: a real program is preferred to its imitation.
write_init() {
	cat >"$TMP/root/init" <<'INIT'
#!/busybox/busybox sh
/busybox/busybox mkdir -p /proc /sys /dev /tmp /run /root
/busybox/busybox mount -t proc proc /proc
/busybox/busybox --install -s /busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/busybox
export HOME=/root LC_ALL=C CI=true

mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
ln -s /proc/self/fd /dev/fd
chmod 1777 /tmp /dev/shm
# As under systemd; the kernel's own limit is 4096.
ulimit -H -n 524288

# No waiting for a carrier, no translation of what tests print.
stty -F /dev/ttyS1 clocal -opost
exec </dev/null >/dev/ttyS1 2>&1

read -r up idle </proc/uptime
echo "KTEST-BOOTED $up"

ip link set lo up
hostname guest
while read -r module; do
	insmod "/modules/$module" || echo "cannot load $module"
done </modules/order

# run NAME COMMAND
run() {
	read -r up idle </proc/uptime
	echo "<4>KTEST-BEGIN $1" >/dev/kmsg
	echo "KTEST-BEGIN $1 $up"
	/usr/bin/timeout -k 5 "$test_timeout" /usr/bin/sh -c "$2"
	rc=$?
	read -r up idle </proc/uptime
	# The output may have ended in the middle of a line.
	echo
	echo "KTEST $1 rc=$rc"
	echo "KTEST-DONE $1 $up"
}

cd /shunt
. /run-tests
echo KTEST-END
# Setting a terminal waits until its output has left.
stty -F /dev/ttyS1 clocal
poweroff -f
INIT
	chmod 755 "$TMP/root/init"
}

write_etc() {
	mkdir -p "$TMP/root/etc"
	say 'root:x:0:0:root:/root:/bin/sh' >"$TMP/root/etc/passwd"
	say 'nobody:x:65534:65534:nobody:/:/bin/false' >>"$TMP/root/etc/passwd"
	printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$TMP/root/etc/group"
	printf '%s\n' '127.0.0.1 localhost guest' '::1 localhost' >"$TMP/root/etc/hosts"
}

# Everything that is the same for all kernels.
make_root() {
	local name command directory

	mkdir -p "$TMP"/root/{usr/bin,usr/sbin,usr/lib,usr/lib64,busybox,shunt,var,run,mnt}
	ln -s usr/bin usr/sbin usr/lib usr/lib64 "$TMP/root/"
	ln -s ../run "$TMP/root/var/run"
	cp "$CACHE/busybox" "$TMP/root/busybox/busybox"
	add_binaries sh env timeout "${GUEST_BINARIES[@]}"
	add_project_files "${TEST_GLOBS[@]}" "${GUEST_FILES[@]}"
	# Not seen by ldd: libc loads it when a thread exits or is cancelled.
	for directory in /lib/x86_64-linux-gnu /usr/lib64; do
		if [[ -e $directory/libgcc_s.so.1 ]]; then
			add_library "$directory/libgcc_s.so.1"
		fi
	done
	write_etc
	write_init
	say "test_timeout=$TEST_TIMEOUT" >"$TMP/root/run-tests"
	while read -r name command; do
		say "run $name ${command@Q}"
	done <"$TMP/tests" >>"$TMP/root/run-tests"
}

# module_file KERNEL NAME: prints the path of a module's file; nothing when there is none. In a
# file's name, unlike in a module's, "-" and "_" are different.
module_file() {
	find "$1/modules/kernel" -name "${2//[-_]/[-_]}.ko" -o -name "${2//[-_]/[-_]}.ko.xz"
}

# add_module KERNEL NAME: what it depends on first. (The package has no modules.dep: that is made
# when it is installed. Each module says itself what it needs.)
add_module() {
	local kernel=$1 name=$2 file depends

	if grep -q "/${name//[-_]/[-_]}\.ko$" "$kernel/modules/modules.builtin" ||
		[[ -e $TMP/root/modules/$name.ko ]]; then
		return
	fi
	file=$(module_file "$kernel" "$name")
	case $file in
	*.ko) cp "$file" "$TMP/root/modules/$name.ko" ;;
	*.ko.xz) "$CACHE/busybox" xzcat "$file" >"$TMP/root/modules/$name.ko" ;;
	*) die "this kernel has no module $name" ;;
	esac
	depends=$(LC_ALL=C tr '\0' '\n' <"$TMP/root/modules/$name.ko" |
		LC_ALL=C sed -n 's/^depends=//p')
	for name in ${depends//,/ }; do
		add_module "$kernel" "$name"
	done
	say "$2.ko" >>"$TMP/root/modules/order"
}

# make_initramfs KERNEL
make_initramfs() {
	local name

	rm -rf "$TMP/root/modules"
	mkdir "$TMP/root/modules"
	: >"$TMP/root/modules/order"
	for name in "${GUEST_MODULES[@]}"; do
		add_module "$1" "$name"
	done
	(cd "$TMP/root" && find . | "$CACHE/busybox" cpio -o -H newc -R 0:0) \
		>"$TMP/initramfs" 2>"$TMP/cpio.log"
}

# --- running and judging -----------------------------------------------------------------------

# boot KERNEL: returns when the guest has switched itself off, or its time is up.
boot() {
	local append=(
		console=ttyS0
		loglevel=5		# warnings and worse: quiet, yet nothing we judge is lost
		printk.devkmsg=on	# do not drop our markers
		oops=panic panic=-1	# reboot at once, which ends qemu (-no-reboot)
		watchdog_thresh=60	# a slow emulation is not a soft lockup
	)

	# Without cx16: in qemu 7.2 (Debian 12), now and then the flags are garbage after a
	# cmpxchg16b. 6.12's slab allocator lives on that instruction, and a third of its boots and
	# more ended in an oops. Without it, none of 40 did.
	#
	# In the background, so that a signal to this script is handled now and not after the run.
	timeout --foreground -k 5 "$TIMEOUT" qemu-system-x86_64 \
		-nodefaults -no-user-config -display none -no-reboot \
		-accel tcg -cpu max,-cx16 -m 1024 -smp 2 \
		-kernel "$1/vmlinuz" -initrd "$TMP/initramfs" -append "${append[*]}" \
		-serial "file:$1/console.log" -serial "file:$1/tests.log" \
		</dev/null >"$1/qemu.log" 2>&1 9>&- &
	QEMU=$!
	wait "$QEMU" || true
	QEMU=
}

# verdict KERNEL_VERSION TEST_NAME ok|REASON [SECONDS]
verdict() {
	if [[ $3 == ok ]]; then
		PASSED=$((PASSED + 1))
		say "ok    $1 $2${4:+ ($4 s)}"
	else
		FAILED=$((FAILED + 1))
		say "FAIL  $1 $2: $3${4:+ ($4 s)}"
	fi
}

# output_of TESTS_LOG NAME: what that test has printed.
output_of() {
	awk -v name="$2" '
		$1 == "KTEST" && $2 == name { exit }
		inside { print }
		$1 == "KTEST-BEGIN" && $2 == name { inside = 1 }' "$1"
}

# seconds_of TESTS_LOG NAME
seconds_of() {
	awk -v name="$2" '
		$1 == "KTEST-BEGIN" && $2 == name { begin = $3 }
		$1 == "KTEST-DONE" && $2 == name { printf "%.1f", $3 - begin }' "$1"
}

# judge_command VERSION NAME ok|REASON SECONDS, with its output on stdin: counts the tests that the
# output names, or else the command itself as one. Those of a script have lines of their own, those
# of a cmocka program are summed up.
judge_command() {
	local reason=$3 output passed failed

	output=$(cat)
	passed=$(grep -cE '^\[       OK \]|^ok ' <<<"$output" || true)
	failed=$(sed -n 's/^\[  FAILED  \] \([a-z_0-9]*\)$/\1/p; s/^FAIL \([^ :]*\).*/\1/p' \
		<<<"$output" | sort -u | wc -l)
	sed -n "s/^ok /ok    $1 /p; s/^FAIL /FAIL  $1 /p" <<<"$output"
	if [[ $reason == ok && $failed -gt 0 ]]; then
		reason="exit status 0 in spite of failed tests"
	fi
	if [[ $reason == ok && $passed -eq 0 ]]; then
		verdict "$1" "$2" ok "$4"
	elif [[ $reason == ok ]]; then
		PASSED=$((PASSED + passed))
		say "ok    $1 $2: $passed tests ($4 s)"
	else
		PASSED=$((PASSED + passed))
		FAILED=$((FAILED + (failed > 1 ? failed - 1 : 0)))	# verdict counts one
		verdict "$1" "$2" "$reason, $passed passed, $failed failed" "$4"
	fi
	if [[ $reason != ok || -n ${V:-} ]]; then
		tail -n 200 <<<"$output" | indent
	fi
}

# judge_tests VERSION TESTS_LOG
judge_tests() {
	local name result reason

	while read -r name _; do
		result=$(sed -n "s/^KTEST $name rc=//p" "$2")
		case $result in
		0) reason=ok ;;
		'') reason='no result' ;;
		124 | 137) reason="rc=$result (limit: $TEST_TIMEOUT s)" ;;
		*) reason="rc=$result" ;;
		esac
		judge_command "$1" "$name" "$reason" "$(seconds_of "$2" "$name")" \
			< <(output_of "$2" "$name")
	done <"$TMP/tests"
}

# kernel_messages CONSOLE_LOG PATTERN: those that match, behind the test that was running.
kernel_messages() {
	awk -v pattern="$2" '
		/KTEST-BEGIN / { test = $NF; next }
		$0 ~ pattern { print (test ? test : "boot") ": " $0 }' "$1"
}

# judge_console VERSION CONSOLE_LOG
judge_console() {
	local bad notes

	bad=$(kernel_messages "$2" "$KERNEL_FAILURES" | grep -vE "$KERNEL_KNOWN" || true)
	notes=$(kernel_messages "$2" "$KERNEL_NOTES|$KERNEL_KNOWN")
	if [[ -z $bad ]]; then
		verdict "$1" kernel_did_not_complain ok
	else
		verdict "$1" kernel_did_not_complain "see $2"
		say "$bad" | indent
		say "the first one:" | indent
		grep -E -m 1 -A 40 "$KERNEL_FAILURES" "$2" | indent
	fi
	if [[ -n $notes ]]; then
		say "note  $1 kernel messages worth a look:"
		say "$notes" | indent
	fi
}

# judge_end VERSION TESTS_LOG CONSOLE_LOG SECONDS
judge_end() {
	if grep -q '^KTEST-END' "$2"; then
		verdict "$1" guest_reached_the_end ok
		return
	fi
	verdict "$1" guest_reached_the_end "it was over after $4 s (limit: $TIMEOUT s)"
	say "the last lines of the console:" | indent
	{ tail -n 40 "$3"; cat "$CACHE/$1/qemu.log"; } | indent
}

# check_kernel VERSION
check_kernel() {
	local kernel=$CACHE/$1 log seconds booted

	say "--    $1: Linux $(<"$kernel/release"), Debian's $(<"$kernel/version")"
	rm -f "$kernel"/*.log
	make_initramfs "$kernel"
	seconds=$SECONDS
	boot "$kernel"
	seconds=$((SECONDS - seconds))
	# A terminal's lines end in CR LF; no file at all means that qemu did not even start.
	for log in console tests; do
		touch "$kernel/$log.log"
		sed -i 's/\r*$//' "$kernel/$log.log"
	done
	booted=$(sed -n 's/^KTEST-BOOTED //p' "$kernel/tests.log")
	say "--    $1: ${booted:+up in $booted s, }switched off after $seconds s"
	judge_tests "$1" "$kernel/tests.log"
	judge_console "$1" "$kernel/console.log"
	judge_end "$1" "$kernel/tests.log" "$kernel/console.log" "$seconds"
}

main() {
	local version

	if [[ $# -eq 0 ]]; then
		set -- 6.1 6.12
	fi
	for version; do
		if [[ ! $version =~ ^[0-9]+\.[0-9]+$ ]]; then
			die "usage: scripts/kernels.sh [6.1] [6.12]"
		fi
	done
	cd "$ROOT"
	mkdir -p "$CACHE"
	CACHE=$(cd "$CACHE" && pwd)
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	exec 9>"$CACHE/lock"
	flock -n 9 || { say "waiting for another run of this script"; flock 9; }
	# In the cache, so that what is complete is moved into place within one file system. What is
	# there already, a killed run has left.
	rm -rf "$CACHE"/tmp.*
	TMP=$(mktemp -d "$CACHE/tmp.XXXXXX")

	need qemu-system-x86_64 apt-get dpkg-deb ldd awk
	fetch "$@"
	list_tests | grep -E "^[^ ]*(${SHUNT_KERNEL_ONLY:-})" >"$TMP/tests" ||
		die "nothing has a name that matches $SHUNT_KERNEL_ONLY"
	make_root
	for version; do
		check_kernel "$version"
	done
	say "$PASSED passed, $FAILED failed"
	[[ $FAILED -eq 0 ]]
}

main "$@"
