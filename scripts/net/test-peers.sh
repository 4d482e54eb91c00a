#!/bin/bash
# test-peers.sh - programs that others wrote, at both ends: nginx with curl and wrk, redis, iperf3, PostgreSQL. They do what ours do
# not: keep connections open, pipeline, speak first, ask for ranges.

# shellcheck disable=SC2119,SC2317 # functions are called by run, and without arguments that they could take
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
needs nginx curl wrk redis-server redis-cli redis-benchmark iperf3 sha256sum
net_begin "$@"

# expect_kernel: it did take part; its share is noted.
expect_kernel()
{
	local kernel user

	kernel=$(($(info BytesInKernel) + $(info BytesOutKernel))) user=$(($(info BytesInUser) + $(info BytesOutUser)))
	expect_gt "bytes moved by the kernel" "$kernel" 0
	note "$((kernel * 100 / (kernel + user))) % of the bytes by the kernel"
}

# start_nginx: serves $T/www at 127.0.0.1:9001.
start_nginx()
{
	mkdir -p "$T/www" "$T/tmp"
	cat > "$T/nginx.conf" <<-END
		daemon off;
		user root;
		worker_processes 1;
		pid $T/nginx.pid;
		error_log $T/nginx.log error;
		events { worker_connections 4096; }
		http {
			access_log off;
			sendfile on;
			keepalive_requests 1000000;
			client_body_temp_path $T/tmp; proxy_temp_path $T/tmp; fastcgi_temp_path $T/tmp;
			uwsgi_temp_path $T/tmp; scgi_temp_path $T/tmp;
			server { listen 127.0.0.1:9001 backlog=4096; root $T/www; }
		}
	END
	spawn nginx nginx -e "$T/nginx.log" -c "$T/nginx.conf"
	wait_until "nginx to answer" 10 curl -s -o "$T/ignored" http://127.0.0.1:9001/
}

hash_of()
{
	"$@" | sha256sum | cut -d ' ' -f 1
}

a_large_file_from_nginx_to_curl()
{
	local url=http://127.0.0.1:8080/large size from to

	size=$(full $((256 << 20)) $((512 << 20)))
	config "splice require" "$KERNEL" | start_shunt
	start_nginx
	head -c "$size" /dev/urandom > "$T/www/large"
	expect_eq "sha256" "$(hash_of curl -sS "$url")" "$(hash_of cat "$T/www/large")"
	for from in 0 1 65535 1000000 $((size - 100001)); do
		to=$((from + 100000))
		expect_eq "sha256 of bytes $from to $to" "$(hash_of curl -sS -r "$from-$to" "$url")" \
			"$(hash_of dd if="$T/www/large" bs=1M iflag=skip_bytes,count_bytes skip="$from" count=100001 status=none)"
	done
	wait_until "CurrConns 0" 5 equals 0 info CurrConns
	expect_ge TotalBytesOut "$(info TotalBytesOut)" "$size"
	expect_kernel
}

fifty_files_at_once_from_nginx()
{
	local i args=() wanted

	config "splice require" "$KERNEL" | start_shunt
	start_nginx
	head -c 8m /dev/urandom > "$T/www/file"
	wanted=$(hash_of cat "$T/www/file")
	for ((i = 0; i < 50; i++)); do
		args+=(-o "$T/got$i" "http://127.0.0.1:8080/file")
	done
	curl -sS --no-keepalive --parallel --parallel-max 50 --parallel-immediate "${args[@]}" 2> "$T/curl.err"
	for ((i = 0; i < 50; i++)); do
		expect_eq "sha256 of download $i" "$(hash_of cat "$T/got$i")" "$wanted"
		rm "$T/got$i"
	done
	expect_kernel
}

a_large_file_from_socat_to_socat()
{
	local size

	size=$(full $((64 << 20)) $((256 << 20)))
	config "splice require" "$KERNEL" | start_shunt
	spawn receiver socat -u TCP-LISTEN:9001,reuseaddr "CREATE:$T/received"
	wait_until "the receiver to listen" 10 is_listening 9001
	head -c "$size" /dev/urandom > "$T/file"
	spawn sender socat -u "OPEN:$T/file" TCP:127.0.0.1:8080
	join sender 30
	join receiver 30
	cmp "$T/file" "$T/received" > "$T/cmp" || fail "expected the same file at both ends, got $(cat "$T/cmp")"
	expect_kernel
}

wrk_finds_no_errors()
{
	config "splice require" "$KERNEL" | start_shunt
	start_nginx
	head -c 1000 /dev/urandom > "$T/www/small"
	wrk -t 2 -c 64 --timeout 4s -d "$(full 2 4)" http://127.0.0.1:8080/small > "$T/wrk.out"
	! grep -E 'Socket errors|Non-2xx' "$T/wrk.out" > "$T/errors" || fail "expected no errors, got $(cat "$T/errors")"
	expect_ge "requests" "$(awk '/requests in/ { print $1 }' "$T/wrk.out")" 1000
	note "$(awk '/Requests.sec/ { print $2 }' "$T/wrk.out") requests/s"
	wrk -t 2 -c 64 --timeout 4s -d "$(full 2 4)" -H 'Connection: close' http://127.0.0.1:8080/small > "$T/wrk.out"
	! grep -E 'Socket errors|Non-2xx' "$T/wrk.out" > "$T/errors" || fail "expected no errors with a connection for each, got $(cat "$T/errors")"
	expect_ge "requests with a connection for each" "$(awk '/requests in/ { print $1 }' "$T/wrk.out")" 500
	note "$(awk '/Requests.sec/ { print $2 }' "$T/wrk.out") connections/s"
	wait_until "SlotsUsed 0" 10 equals 0 info SlotsUsed
}

redis_is_benchmarked()
{
	config "splice require" "$KERNEL" | start_shunt
	spawn redis redis-server --port 9001 --bind 127.0.0.1 --save '' --dir "$T"
	wait_until "redis to answer" 10 equals PONG redis-cli -p 9001 ping
	redis-benchmark -p 8080 -n "$(full 5000 30000)" -c 50 -t set,get,lrange_100 -q --csv > "$T/benchmark.out" 2> "$T/benchmark.err"
	expect_eq "complaints of redis-benchmark" "$(grep -ci error "$T/benchmark.out" "$T/benchmark.err" | awk -F : '{ s += $2 } END { print s }')" 0
	redis-benchmark -p 8080 -n "$(full 20000 100000)" -c 20 -P 32 -d 1000 -t set -q > "$T/pipelined.out" 2>&1
	expect_eq "complaints of redis-benchmark, pipelined" "$(grep -ci error "$T/pipelined.out" || :)" 0
	# A value of 32 MB there and back.
	head -c 32m /dev/urandom > "$T/value"
	expect_eq "the answer to SET" "$(redis-cli -p 8080 -x set large < "$T/value")" OK
	expect_eq "sha256 of the value" "$(hash_of redis-cli -p 8080 --raw get large)" "$(cat "$T/value" <(echo) | hash_of cat)"
	expect_kernel
}

iperf3_in_both_directions()
{
	local args

	config "splice require" "$KERNEL" | start_shunt
	for args in "" "-R" "-P 4" "-P 4 -R"; do
		# A server for each: after a test iperf3's own closes its socket and opens another, and resets who connects just then.
		spawn iperf3 iperf3 -s -1 -p 9001
		wait_until "iperf3 to listen" 10 is_listening 9001
		# shellcheck disable=SC2086 # words
		timeout 30 iperf3 -c 127.0.0.1 -p 8080 -t 2 $args > "$T/iperf3-client.out" 2>&1 ||
			fail "expected iperf3 $args to succeed, got $(tail -n 1 "$T/iperf3-client.out"); the server: $(tail -n 1 "$T/iperf3.out")"
		note "iperf3 $args: $(awk '/receiver/ { n = $0 } END { match(n, /[0-9.]+ [MGK]?bits.sec/); print substr(n, RSTART, RLENGTH) }' "$T/iperf3-client.out")"
		join iperf3 10
	done
	wait_until "SlotsUsed 0" 10 equals 0 info SlotsUsed
	expect_kernel
}

# postgres NAME: where Debian hides it.
postgres()
{
	local found

	found=$(type -P "$1" || find /usr/lib/postgresql/*/bin -name "$1" 2> /dev/null | sort -V | tail -n 1)
	[ -n "$found" ] || fail "expected PostgreSQL's $1 to be there, got none"
	echo "$found"
}

postgresql_is_benchmarked()
{
	local user="setpriv --reuid=65534 --regid=65534 --clear-groups" dir=$T/db

	config "splice require" "$KERNEL" | start_shunt
	mkdir "$dir"
	chown 65534:65534 "$dir"
	chmod 700 "$dir"
	# shellcheck disable=SC2086 # words
	$user "$(postgres initdb)" -D "$dir" -A trust -U test --no-sync > "$T/initdb.out" 2>&1
	# shellcheck disable=SC2086
	spawn postgres $user "$(postgres postgres)" -D "$dir" -p 9001 -h 127.0.0.1 -k "$dir" -c fsync=off -c shared_memory_type=mmap -c dynamic_shared_memory_type=mmap
	wait_until "PostgreSQL to answer" 20 "$(postgres pg_isready)" -q -h 127.0.0.1 -p 9001
	export PGUSER=test PGDATABASE=postgres PGHOST=127.0.0.1 PGPORT=8080
	"$(postgres pgbench)" -i -s 1 -q > "$T/pgbench.out" 2>&1
	"$(postgres pgbench)" -c 8 -j 2 -T "$(full 2 4)" -C > "$T/pgbench-c.out" 2>&1
	"$(postgres pgbench)" -c 8 -j 2 -T "$(full 2 4)" > "$T/pgbench.out" 2>&1
	expect_match "the report" "$(cat "$T/pgbench.out")" "number of failed transactions: 0 "
	expect_match "the report of short connections" "$(cat "$T/pgbench-c.out")" "number of failed transactions: 0 "
	expect_eq "a table, through the balancer and directly" \
		"$(hash_of "$(postgres psql)" -Atc 'select * from pgbench_accounts order by aid')" \
		"$(PGPORT=9001 hash_of "$(postgres psql)" -Atc 'select * from pgbench_accounts order by aid')"
	wait_until "SlotsUsed 0" 10 equals 0 info SlotsUsed
}

run a_large_file_from_nginx_to_curl
run fifty_files_at_once_from_nginx
run a_large_file_from_socat_to_socat
run wrk_finds_no_errors
run redis_is_benchmarked
run iperf3_in_both_directions
run postgresql_is_benchmarked
net_end
