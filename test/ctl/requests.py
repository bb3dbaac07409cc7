"""Requests to a control socket by a table, and what must come back. Says TAP lines, one for each part of the table.

usage: requests.py SOCKET TABLE
       requests.py --record SOCKET TABLE   prints the table with the answers that came

A part begins with "== NAME". A request is METHOD PATH BODY in a line; the next has the status, and what fault_message or
the body is, with "deprecated" between them for an answer with a Deprecation header.
"""

import socket
import sys

LIMIT = 20  # seconds, for any answer


class Client:
    """A connection that is kept, as client libraries keep it."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.buffer = b""

    def head(self):
        while b"\r\n\r\n" not in self.buffer:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError("the connection was closed")
            self.buffer += more
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        return lines[0], dict(line.lower().split(": ", 1) for line in lines[1:])

    def request(self, method, path, body):
        data = body.encode()
        length = "Content-Length: %d\r\n" % len(data) if body else ""
        self.socket.sendall(("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, path, length)).encode() + data)
        status, headers = self.head()
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            self.buffer += self.socket.recv(65536)
        answer, self.buffer = self.buffer[:length].decode(), self.buffer[length:]
        return int(status.split(" ")[1]), headers, answer


def plain(answer):
    """The words inside {"fault_message":"..."}; anything else as it is."""
    start = '{"fault_message":"'
    if not (answer.startswith(start) and answer.endswith('"}')):
        return answer
    words = answer[len(start) : -2]
    return words.replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")


def ask(client, line):
    method, path, body = (line.split(" ", 2) + [""])[:3]
    status, headers, answer = client.request(method, path, body)
    words = [str(status)]
    if "deprecation" in headers:
        words.append("deprecated")
    if answer:
        words.append(plain(answer).replace("\n", "\\n"))
    return " ".join(words)


def parts(path):
    name, lines = None, []
    for line in open(path, encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("== "):
            if name:
                yield name, lines
            name, lines = line[3:], []
        elif line and not line.startswith("#"):
            lines.append(line)
    yield name, lines


def main():
    arguments = sys.argv[1:]
    record = arguments[0] == "--record"
    if record:
        arguments.pop(0)
    client = Client(arguments[0])
    count = failed = 0
    for name, lines in parts(arguments[1]):
        wrong = []
        if record:
            print("== " + name)
            for line in lines:
                if line.split(" ")[0] in ("GET", "PUT", "PATCH", "DELETE"):
                    print(line + "\n" + ask(client, line))
            continue
        for line, want in zip(lines[::2], lines[1::2]):
            got = ask(client, line)
            if got != want:
                wrong.append("%s\n#   got  %s\n#   want %s" % (line, got, want))
        count += 1
        failed += bool(wrong)
        print("%sok %d - %s: %d requests" % ("not " if wrong else "", count, name, len(lines) // 2))
        for text in wrong:
            print("# " + text)
    if not record:
        print("1..%d" % count)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
