# shellcheck shell=bash disable=SC2034,SC2153 # bench.sh uses what is set here, and sets what is used
# contenders.sh - how each contender is configured, started and stopped. To be sourced by bench.sh.
#
# Each listens on ports 9001 and 9002 of the balancer and has one server for each, the same port of 10.0.2.2. None writes a log
# for each connection; each may have MAXCONN of them: 20,000, or what the limit of descriptors allows.

CONTENDERS_ALL=(direct haproxy nginx shunt shunt-kernel shunt-relay)
STATS=/run/bench-shunt.sock
MAIN=9001 BULK=9002

config_haproxy()
{
	cat <<-END
		global
		    maxconn $MAXCONN
		    nbthread 2
		    maxpipes 256
		defaults
		    mode tcp
		    option splice-auto
		    timeout connect 5s
		    timeout client 5m
		    timeout server 5m
		    maxconn $MAXCONN
		listen main
		    bind :$MAIN backlog 65535
		    server s 10.0.2.2:$MAIN
		listen bulk
		    bind :$BULK backlog 65535
		    server s 10.0.2.2:$BULK
	END
}

config_nginx()
{
	local module=/usr/lib/nginx/modules/ngx_stream_module.so

	[ ! -e "$module" ] || echo "load_module $module;"
	cat <<-END
		daemon off;
		user root;
		worker_processes 2;
		worker_rlimit_nofile 65536;
		pid $T/nginx.pid;
		error_log $T/nginx.err crit;
		events { worker_connections 45000; }
		stream {
			access_log off;
			proxy_half_close on;
			proxy_connect_timeout 5s;
			proxy_timeout 5m;
			server { listen $MAIN backlog=65535; proxy_pass 10.0.2.2:$MAIN; }
			server { listen $BULK backlog=65535; proxy_pass 10.0.2.2:$BULK; }
		}
	END
}

# config_shunt LINE: with this option in the defaults.
config_shunt()
{
	cat <<-END
		global
		    maxconn $MAXCONN
		    nbthread 2
		    stats socket $STATS level admin
		defaults
		    mode tcp
		    $1
		    timeout connect 5s
		    timeout client 5m
		    timeout server 5m
		    maxconn $MAXCONN
		    backlog 65535
		listen main
		    bind :$MAIN
		    server s 10.0.2.2:$MAIN
		listen bulk
		    bind :$BULK
		    server s 10.0.2.2:$BULK
	END
}

write_configs()
{
	local files

	files=$(ulimit -n)
	MAXCONN=20000
	[ "$files" -ge 50000 ] || MAXCONN=$(((files - 1000) / 2)) # two for each connection
	config_haproxy > "$T/haproxy.cfg"
	config_nginx > "$T/nginx.conf"
	config_shunt "option splice-auto" > "$T/shunt.cfg"
	config_shunt "option splice-request
		    option splice-response" | sed 's/^\t*//' > "$T/shunt-kernel.cfg"
	config_shunt "no option splice-auto" > "$T/shunt-relay.cfg"
}

command_of()
{
	case $1 in
	haproxy) echo haproxy -db -f "$T/haproxy.cfg" ;;
	nginx) echo nginx -e "$T/nginx.err" -p "$T" -c "$T/nginx.conf" ;;
	shunt*) echo "$T/balancer" -f "$T/$1.cfg" ;;
	esac
}

is_listening()
{
	local ports

	ports=$(on "$1" ss -Hltn "( sport = :$MAIN or sport = :$BULK )" | wc -l)
	[ "$ports" -ge 2 ]
}

is_gone()
{
	local state

	! read -r _ _ state _ 2> /dev/null < "/proc/$1/stat" || [ "$state" = Z ]
}

# Of the daemon, and whoever works for it.
children_of()
{
	cat "/proc/$1/task/$1/children" 2> /dev/null
}

has_workers()
{
	[ "$(children_of "$DAEMON" | wc -w)" -ge 2 ]
}

is_up_or_gone()
{
	is_gone "$DAEMON" || { is_listening "$BALANCER" && has_all "$1"; }
}

# has_all NAME: are all processes there that will do its work?
has_all()
{
	case $1 in
	nginx) has_workers ;;
	shunt*) grep -q ' : ready: ' "$T/daemon.out" ;;
	esac
}

# contender_start NAME: sets DAEMON, WATCHED (processes, with commas) and TARGET (its address).
contender_start()
{
	DAEMON='' WATCHED='' TARGET=$FRONT
	if [ "$1" = direct ]; then
		TARGET=$BACK
		return 0
	fi
	# shellcheck disable=SC2046 # words
	nsenter "--net=/run/netns/$BALANCER" $(command_of "$1") > "$T/daemon.out" 2>&1 &
	DAEMON=$!
	wait_for 15 is_up_or_gone "$1" || { WHY="$1 does not listen"; return 1; }
	! is_gone "$DAEMON" || { WHY="$1 did not start: $(grep -v '^$' "$T/daemon.out" | tail -n 1)"; return 1; }
	WATCHED=$DAEMON
	for pid in $(children_of "$DAEMON"); do
		WATCHED+=,$pid
	done
}

contender_stop()
{
	local pid

	[ -n "$DAEMON" ] || return 0
	{
		for pid in ${WATCHED//,/ } "$DAEMON"; do
			kill -KILL "$pid"
		done
		wait "$DAEMON"
	} 2> /dev/null
	wait_for 10 is_closed "$BALANCER" || :
	rm -rf /sys/fs/bpf/shunt "$STATS"
	DAEMON=''
}

is_closed()
{
	! on "$1" ss -Hltn "( sport = :$MAIN or sport = :$BULK )" | grep -q .
}

servers_start()
{
	nsenter "--net=/run/netns/$SERVER" "$LOAD" server --listen 0.0.0.0:$MAIN > "$T/server1.out" 2>&1 &
	SERVERS=($!)
	nsenter "--net=/run/netns/$SERVER" "$LOAD" server --listen 0.0.0.0:$BULK > "$T/server2.out" 2>&1 &
	SERVERS+=($!)
	wait_for 10 is_listening "$SERVER" || { WHY="the servers do not listen"; return 1; }
}

servers_stop()
{
	{ kill -KILL "${SERVERS[@]}"; wait "${SERVERS[@]}"; } 2> /dev/null
	wait_for 10 is_closed "$SERVER" || :
}

# The bytes of all sessions, by who moved them. Sessions that live count as well.
kernel_share()
{
	case $1 in
	shunt*) ;;
	*) return 0 ;;
	esac
	echo "show info" | socat -t 5 - "UNIX-CONNECT:$STATS" 2> /dev/null | awk -F ': ' '
		/^Bytes(In|Out)Kernel/ { kernel += $2 }
		/^Bytes(In|Out)User/ { user += $2 }
		/^(Pauses|Resumes|SessionsJoined):/ { printf " %s=%s", tolower($1), $2 }
		END { printf " kernel_bytes=%.0f user_bytes=%.0f", kernel, user }'
}
