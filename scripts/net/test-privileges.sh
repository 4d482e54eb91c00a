#!/bin/bash
# test-privileges.sh - without what the kernel path needs (root's capabilities, a BPF file system, a place for pins): userspace moves
# the bytes, and says why; or, with `splice require`, there is no start.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
net_begin "$@"

NOBODY="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"

# relays: random sessions are right.
relays()
{
	spawn_server serve serve --listen 127.0.0.1:9001
	client drive 60 drive --connect 127.0.0.1:8080 --sessions 300 --max-bytes 256k --delays 0 --seed "$RANDOM"
	stop_server serve
	expect_eq "errors at the servers" "$(field errors "$T/serve.out")" 0
}

# expect_userspace REASON: and that this was said, once, and counted for each session.
expect_userspace()
{
	expect_eq KernelPath "$(info KernelPath)" no
	expect_match KernelPathReason "$(info KernelPathReason)" "$1"
	expect_match "the warning" "$(grep -F '[WARNING]' "$T/shunt.err")" "userspace moves all bytes: .*$1"
	expect_eq BytesInKernel "$(info BytesInKernel)" 0
	expect_gt BytesInUser "$(info BytesInUser)" 0
	expect_eq SessionsJoined "$(info SessionsJoined)" 0
	expect_gt Fallback_unavailable "$(info Fallback_unavailable)" 0
}

nobody_relays_in_userspace()
{
	chmod 777 "$T"
	config "maxconn 200" | RUN_AS=$NOBODY start_shunt
	relays
	expect_userspace "Operation not permitted"
}

nobody_cannot_start_when_the_kernel_path_is_required()
{
	chmod 777 "$T"
	config "maxconn 200;splice require" | RUN_AS=$NOBODY refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "splice require: the kernel path is not available: .*Operation not permitted"
}

nobody_cannot_have_a_low_port()
{
	chmod 777 "$T"
	{ echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start; } 2> /dev/null || :
	config "maxconn 200" | sed 's/:8080/:80/' | RUN_AS=$NOBODY refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "cannot listen on 127.0.0.1:80 for 'l': Permission denied"
}

a_missing_bpf_file_system_is_mounted()
{
	cat > "$T/without-bpffs" <<-'END'
		#!/bin/sh
		while umount /sys/fs/bpf 2> /dev/null; do :; done
		exec "$@"
	END
	chmod +x "$T/without-bpffs"
	config "splice require" "$KERNEL" | RUN_AS="unshare --mount $T/without-bpffs" start_shunt
	relays
	expect_eq KernelPath "$(info KernelPath)" yes
	expect_gt BytesInKernel "$(info BytesInKernel)" 0
}

a_bpf_file_system_that_cannot_be_mounted_means_userspace()
{
	cat > "$T/without-bpffs" <<-'END'
		#!/bin/sh
		while umount /sys/fs/bpf 2> /dev/null; do :; done
		mount -t tmpfs -o ro tmpfs /sys/fs || exit 99
		exec "$@"
	END
	chmod +x "$T/without-bpffs"
	config "maxconn 200" | RUN_AS="unshare --mount $T/without-bpffs" start_shunt
	relays
	expect_userspace "/sys/fs/bpf"
}

no_pins_on_request()
{
	config "splice require;bpf-pin-path none" "$KERNEL" | start_shunt
	[ ! -e "$PINS" ] || fail "expected no pins, got $(ls "$PINS")"
	relays
	expect_gt BytesInKernel "$(info BytesInKernel)" 0
}

pins_where_they_are_wanted()
{
	config "splice require;bpf-pin-path /sys/fs/bpf/elsewhere" "$KERNEL" | start_shunt
	[ -e /sys/fs/bpf/elsewhere/sockets ] || fail "expected the pin /sys/fs/bpf/elsewhere/sockets, got none"
	[ ! -e "$PINS" ] || fail "expected no pins at the standard place, got $(ls "$PINS")"
	expect_eq "the flows' maximum" "$(bpftool -j map show pinned /sys/fs/bpf/elsewhere/flows | grep -o '"max_entries":[0-9]*')" \
		"\"max_entries\":$((2 * $(info Maxconn)))"
	relays
}

a_pin_path_elsewhere_than_in_a_bpf_file_system_means_userspace()
{
	config "maxconn 200;bpf-pin-path $T/pins" | start_shunt
	relays
	expect_userspace "is not in a BPF file system"
}

a_pin_path_without_parent_means_userspace()
{
	config "maxconn 200;bpf-pin-path /sys/fs/bpf/no/such/folder" | start_shunt
	relays
	expect_userspace "No such file or directory"
}

a_bad_pin_path_is_fatal_when_the_kernel_path_is_required()
{
	config "splice require;bpf-pin-path $T/pins" | refuse_start 1
	expect_match "the reason" "$(cat "$T/refused.err")" "splice require: the kernel path is not available: .*not in a BPF file system"
}

switched_off_means_userspace_without_a_warning()
{
	config "maxconn 200;nosplice" | start_shunt
	relays
	expect_eq KernelPath "$(info KernelPath)" no
	expect_eq warnings "$(grep -cF '[WARNING]' "$T/shunt.err" || :)" 0
	[ ! -e "$PINS" ] || fail "expected no pins, got $(ls "$PINS")"
	config "nosplice;splice require" | sed 's/:8080/:8081/; s/stats[.]sock/second.sock/' | refuse_start 1
}

run nobody_relays_in_userspace
run nobody_cannot_start_when_the_kernel_path_is_required
run nobody_cannot_have_a_low_port
run a_missing_bpf_file_system_is_mounted
run a_bpf_file_system_that_cannot_be_mounted_means_userspace
run no_pins_on_request
run pins_where_they_are_wanted
run a_pin_path_elsewhere_than_in_a_bpf_file_system_means_userspace
run a_pin_path_without_parent_means_userspace
run a_bad_pin_path_is_fatal_when_the_kernel_path_is_required
run switched_off_means_userspace_without_a_warning
net_end
