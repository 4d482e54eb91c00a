#!/usr/bin/env python3
# tiny_window.py - clients that no kernel would be: they tell a tiny window, read nothing, and send as much as they may; and a server that sends all the
# time and reads nothing. How much is taken from the clients?
#
#	tiny_window.py WINDOW CLIENTS MOST
#
# Makes a tun device "t0" with the balancer's address, 10.9.0.1 (port 8080); the clients are 10.9.0.2, made by hand. The server listens at
# 127.0.0.1:9001. Ends when nothing has been taken for two seconds, or MOST bytes of one client. Prints taken=BYTES, the most of any client.
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

WINDOW, CLIENTS, MOST = (int(argument) for argument in sys.argv[1:4])
SYN, RST, PSH, ACK = 2, 4, 8, 16
BALANCER, CLIENT = (socket.inet_aton(address) for address in ("10.9.0.1", "10.9.0.2"))
DATA = b"z" * 16000
QUIET = 2.0  # seconds


def open_tun():
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", b"t0", 0x1001))  # TUNSETIFF: IFF_TUN | IFF_NO_PI
    subprocess.check_call(["ip", "addr", "add", "10.9.0.1/24", "dev", "t0"])
    subprocess.check_call(["ip", "link", "set", "t0", "mtu", "60000", "up"])
    return tun


class Server:
    """Sends to everybody, reads nothing."""

    def __init__(self):
        self.sent, self.connections = 0, []
        self.listener = socket.create_server(("127.0.0.1", 9001), backlog=64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            self.connections.append(connection)
            threading.Thread(target=self.push, args=(connection,), daemon=True).start()

    def push(self, connection):
        try:
            while True:
                self.sent += connection.send(b"y" * 65536)
        except OSError:
            pass


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Client:
    def __init__(self, tun, port):
        self.tun, self.port = tun, port
        self.next = self.acked = 1000  # what we send
        self.expected = self.got = 0  # what we get
        self.window = self.scale = 0
        self.ready, self.heard = False, time.monotonic()
        self.send(SYN, options=struct.pack("!BBHBBBB", 2, 4, 1460, 1, 3, 3, 0))

    def send(self, flags, data=b"", options=b""):
        header = struct.pack("!HHIIBBHHH", self.port, 8080, self.next & 0xFFFFFFFF, self.expected & 0xFFFFFFFF, (5 + len(options) // 4) << 4,
                             flags, max(WINDOW - self.got, 0), 0, 0)
        segment = header + options + data
        total = checksum(CLIENT + BALANCER + struct.pack("!BBH", 0, 6, len(segment)) + segment)
        segment = segment[:16] + struct.pack("!H", total) + segment[18:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0, CLIENT, BALANCER)
        os.write(self.tun, ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + segment)

    def receive(self, segment):
        _, _, seq, ack, offset, flags, window = struct.unpack("!HHIIBBH", segment[:16])
        options, data = segment[20:(offset >> 4) * 4], segment[(offset >> 4) * 4:]
        if flags & RST:
            sys.exit("tiny_window: a client was reset")
        if flags & SYN:
            while options and options[0]:
                if options[0] == 3:
                    self.scale = options[2]
                options = options[1 if options[0] == 1 else options[1]:]
            self.expected, self.next, self.acked, self.ready = seq + 1, 1001, 1001, True
            self.send(ACK)
            return
        if 0 < (ack - self.acked) & 0xFFFFFFFF < 1 << 31:
            self.acked += (ack - self.acked) & 0xFFFFFFFF
            self.heard = time.monotonic()
        self.window = window << self.scale
        if data:
            if seq == self.expected & 0xFFFFFFFF and self.got < WINDOW:
                self.got += len(data)
                self.expected += len(data)
            self.send(ACK)

    def upload(self):
        if time.monotonic() - self.heard > 0.5:
            self.next = self.acked  # again
        for _ in range(8):
            if self.next + len(DATA) - self.acked > self.window:
                break
            self.send(PSH | ACK, DATA)
            self.next += len(DATA)


def pump(tun, clients):
    if not select.select([tun], [], [], 0.02)[0]:
        return
    try:
        for _ in range(200):
            packet = os.read(tun, 70000)
            if packet[0] >> 4 == 4 and packet[9] == 6:
                segment = packet[20:struct.unpack("!H", packet[2:4])[0]]
                client = clients.get(struct.unpack("!H", segment[2:4])[0])
                if client:
                    client.receive(segment)
    except BlockingIOError:
        pass


def until_quiet(progress, step):
    """Until what progress() says has not changed for a while."""
    last, since = progress(), time.monotonic()
    while time.monotonic() - since < QUIET:
        step()
        if progress() != last:
            last, since = progress(), time.monotonic()


def main():
    tun, server = open_tun(), Server()
    clients = {port: Client(tun, port) for port in range(20000, 20000 + CLIENTS)}
    until_quiet(lambda: (server.sent, sum(c.ready for c in clients.values())), lambda: pump(tun, clients))
    if not all(c.ready for c in clients.values()) or not server.sent:
        sys.exit("tiny_window: not all clients are served")

    def step():
        pump(tun, clients)
        for client in clients.values():
            if client.acked < MOST:
                client.upload()

    until_quiet(lambda: sum(c.acked for c in clients.values()), step)
    print("taken=%d" % (max(c.acked for c in clients.values()) - 1001))


main()
