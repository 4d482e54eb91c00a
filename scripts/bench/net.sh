# shellcheck shell=bash disable=SC2034 # bench.sh uses what is set here
# net.sh - the bench's three hosts: client - balancer - server. To be sourced by bench.sh, inside its own namespaces.
#
#	client 10.0.1.2 ── 10.0.1.1 balancer 10.0.2.1 ── 10.0.2.2 server
#	       10.0.3.2 ──── 50 ms ──── 10.0.3.1			the same server is 10.0.4.2 for who comes that way
#
# "direct" is the same way through the same balancer, which then only forwards packets.

TAG=$RANDOM
CLIENT=client-$TAG BALANCER=balancer-$TAG SERVER=server-$TAG WIRE=wire-$TAG

# on HOST COMMAND...: there, as this very process if called in a subshell or in the background.
on()
{
	local host=$1

	shift
	nsenter "--net=/run/netns/$host" "$@"
}

# wire HOST INTERFACE NETWORK: to the balancer; .2 there, .1 at the balancer.
wire()
{
	ip -n "$1" link add "$2" type veth peer name "to$3" netns "$BALANCER"
	ip -n "$1" addr add "10.0.$3.2/24" dev "$2"
	ip -n "$BALANCER" addr add "10.0.$3.1/24" dev "to$3"
	ip -n "$1" link set "$2" up
	ip -n "$BALANCER" link set "to$3" up
}

set_host()
{
	on "$1" bash -c '
		cd /proc/sys/net
		echo 1 > ipv6/conf/all/disable_ipv6
		echo "1024 65535" > ipv4/ip_local_port_range
		echo 2000 > ipv4/tcp_max_tw_buckets
		echo 65535 > core/somaxconn
		echo 65535 > ipv4/tcp_max_syn_backlog
	' 2> /dev/null || :
}

net_begin()
{
	local host

	mount -t tmpfs -o mode=755 tmpfs /run || fail "no mounts of our own"
	mount -t bpf -o mode=700 bpf /sys/fs/bpf || fail "this kernel has no BPF file system"
	mkdir /run/netns
	for host in "$CLIENT" "$BALANCER" "$SERVER"; do
		ip netns add "$host"
		ip -n "$host" link set lo up
		set_host "$host"
	done
	wire "$CLIENT" eth0 1
	wire "$SERVER" eth0 2
	ip -n "$SERVER" addr add 10.0.4.2/24 dev eth0
	ip -n "$BALANCER" route add 10.0.4.0/24 dev to2
	ip -n "$CLIENT" route add 10.0.2.0/24 via 10.0.1.1
	ip -n "$SERVER" route add 10.0.1.0/24 via 10.0.2.1
	on "$BALANCER" bash -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
}

has_netem()
{
	ip -n "$CLIENT" link add probe type dummy 2> /dev/null || return 1
	on "$CLIENT" tc qdisc add dev probe root netem delay 1ms 2> /dev/null
	local status=$?
	ip -n "$CLIENT" link delete probe
	return $status
}

# The long way: netem where there is one, else a host between the two that holds every frame for 25 ms.
wan_begin()
{
	if has_netem; then
		wire "$CLIENT" eth1 3
		on "$CLIENT" tc qdisc add dev eth1 root netem delay 25ms limit 1000000
		on "$BALANCER" tc qdisc add dev to3 root netem delay 25ms limit 1000000
		WAN="netem, 25 ms each way"
	else
		ip netns add "$WIRE"
		set_host "$WIRE"
		ip -n "$CLIENT" link add eth1 type veth peer name left netns "$WIRE"
		ip -n "$BALANCER" link add to3 type veth peer name right netns "$WIRE"
		ip -n "$CLIENT" addr add 10.0.3.2/24 dev eth1
		ip -n "$BALANCER" addr add 10.0.3.1/24 dev to3
		ip -n "$WIRE" link set left up
		ip -n "$WIRE" link set right up
		ip -n "$CLIENT" link set eth1 up
		ip -n "$BALANCER" link set to3 up
		nsenter "--net=/run/netns/$WIRE" "$LOAD" delay --interfaces left,right --delay-ms 25 > "$T/delay.out" 2>&1 &
		WAN="a delaying forwarder of ours, 25 ms each way"
	fi
	ip -n "$CLIENT" route add 10.0.4.0/24 via 10.0.3.1
	ip -n "$SERVER" route add 10.0.3.0/24 via 10.0.2.1
	wait_for 10 on "$CLIENT" ping -qc 1 -W 2 10.0.4.2 > /dev/null 2>&1 || return 1
	WAN_ROUTED=yes
}

# net_is tso|mtu|bbr|wan: what the rows that follow run over.
net_is()
{
	local host link offload=on gro=off congestion=cubic

	[ "$1" != wan ] || [ -n "${WAN_ROUTED:-}" ] || wan_begin || return 1
	[ "${NET_NOW:-}" != "$1" ] || return 0
	NET_NOW=
	case $1 in
	mtu) offload=off gro=on ;;
	bbr) congestion=bbr ;;
	esac
	for host in "$CLIENT:eth0" "$SERVER:eth0" "$BALANCER:to1" "$BALANCER:to2"; do
		link=${host#*:} host=${host%:*}
		on "$host" ethtool -K "$link" tso $offload gso $offload gro $gro > /dev/null 2>&1 || return 1
		on "$host" bash -c "echo $congestion > /proc/sys/net/ipv4/tcp_congestion_control" 2> /dev/null ||
			note_once "$congestion cannot be chosen here: measured with $(on "$host" cat /proc/sys/net/ipv4/tcp_congestion_control)"
	done
	if [ "$1" = wan ]; then FRONT=10.0.3.1 BACK=10.0.4.2; else FRONT=10.0.1.1 BACK=10.0.2.2; fi
	NET_NOW=$1
}
