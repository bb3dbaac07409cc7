"""Clients of a control socket that are more than one request.

usage: clients.py calls SOCKET COUNT        so many calls of several kinds on a few connections
       clients.py idle SOCKET COUNT         so many connections that say nothing or half of something, and then a call
       clients.py events SOCKET FILE        what GET /events says goes to FILE until the stream ends
       clients.py pipeline SOCKET           pauses, reads the state and resumes, in one go
"""

import select
import socket
import sys

from requests import Client

PATCHES = ('{"state":"Paused"}', '{"state":"Resumed"}')


def calls(path, count):
    clients = [Client(path) for _ in range(4)]
    waits = "Not started" in clients[0].request("GET", "/", "")[2]
    data = [
        ("PUT", "/mmds", '{"a":{"b":[1,2,3]}}', 204),
        ("PATCH", "/mmds", '{"a":{"c":"d"}}', 204),
        ("GET", "/mmds", "", 200),
    ]
    states = [("PATCH", "/vm", PATCHES[0], 204), ("PATCH", "/vm", PATCHES[1], 204)]
    kinds = [
        ("GET", "/", "", 200),
        ("GET", "/vm/config", "", 200),
        ("GET", "/metrics", "", 200),
        ("PUT", "/boot-source", '{"kernel_image_path":', 400),
    ] + (data if waits else states)
    for i in range(count):
        method, where, body, want = kinds[i % len(kinds)]
        status, _, answer = clients[i % len(clients)].request(method, where, body)
        if status != want:
            sys.exit("call %d: %s %s: %d %s" % (i, method, where, status, answer))
        if i % 100 == 0:
            clients[i // 100 % len(clients)] = Client(path)


def idle(path, count):
    held = []
    for i in range(count):
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)  # waits where there is no room, as clients do
        if i % 2:
            one.sendall(b"PUT /machine-config HTTP/1.1\r\nContent-Le")
        held.append(one)
    status, _, answer = Client(path).request("GET", "/", "")
    if status != 200:
        sys.exit("a call beside %d connections: %d %s" % (count, status, answer))
    closed = sum(1 for one in held if select.select([one], [], [], 0)[0])
    print("%d of %d connections were closed to make room" % (closed, count))


def events(path, file):
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    one.sendall(b"GET /events HTTP/1.1\r\n\r\n")
    with open(file, "wb", buffering=0) as out:
        while True:
            more = one.recv(65536)
            if not more:
                break
            out.write(more)


def pipeline(path):
    client = Client(path)
    request = "PATCH /vm HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s"
    parts = [request % (len(PATCHES[0]), PATCHES[0]), "GET / HTTP/1.1\r\n\r\n", request % (len(PATCHES[1]), PATCHES[1])]
    client.socket.sendall(("".join(parts) + "GET / HTTP/1.1\r\n\r\n").encode())
    said = []
    for _ in range(4):
        status, headers = client.head()
        length = int(headers.get("content-length", 0))
        while len(client.buffer) < length:
            client.buffer += client.socket.recv(65536)
        said.append(status.split(" ")[1] + client.buffer[:length].decode())
        client.buffer = client.buffer[length:]
    if not (said[0] == said[2] == "204" and '"Paused"' in said[1] and '"Running"' in said[3]):
        sys.exit("said: %s" % said)


def main():
    what, path = sys.argv[1:3]
    if what == "calls":
        calls(path, int(sys.argv[3]))
    elif what == "idle":
        idle(path, int(sys.argv[3]))
    elif what == "events":
        events(path, sys.argv[3])
    else:
        pipeline(path)


if __name__ == "__main__":
    main()
