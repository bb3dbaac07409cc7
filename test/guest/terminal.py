"""volt-vmm on a terminal: raw while it runs, as it was after every end, Ctrl-A for its own commands. Says TAP lines.

usage: terminal.py VOLT-VMM GUEST
"""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
import traceback

LIMIT = 20  # seconds, for anything that is waited for


class Machine:
    """A tiny guest that echoes, on a pseudo-terminal."""

    def __init__(self, vmm, guest, cmdline):
        # volt-vmm takes a terminal only in whose foreground it is.
        os.setsid()
        self.near, self.far = pty.openpty()
        fcntl.ioctl(self.far, termios.TIOCSCTTY, 0)
        self.before = termios.tcgetattr(self.far)
        self.said = b""
        self.process = subprocess.Popen([vmm, "--kernel", guest, "--cmdline", cmdline, "--memory", "16M"],
                                        stdin=self.far, stdout=self.far, stderr=self.far)
        self.expect(b"hello from a guest")

    def expect(self, text):
        deadline = time.monotonic() + LIMIT
        while text not in self.said:
            if not select.select([self.near], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {text!r}, only {self.said!r}")
            self.said += os.read(self.near, 4096)

    def type(self, data):
        os.write(self.near, data)

    def end(self, status):
        found = self.process.wait(LIMIT)
        assert found == status, f"status {found}, not {status}"
        assert termios.tcgetattr(self.far) == self.before, "the terminal was not restored"


def every_key_reaches_the_guest(machine):
    assert not termios.tcgetattr(machine.far)[3] & (termios.ICANON | termios.ECHO | termios.ISIG), "not raw"
    machine.type(b"a\x03\x1a\x1c\r")
    machine.expect(b"<61><3><1a><1c><d>")
    machine.type(b"q")
    machine.end(0)


def ctrl_a_twice_is_one(machine):
    machine.type(b"\x01\x01b")
    machine.expect(b"<1><62>")
    machine.type(b"q")
    machine.end(0)


def ctrl_a_h_helps(machine):
    machine.type(b"\x01h")
    machine.expect(b"Ctrl-A x")
    machine.type(b"q")
    machine.end(0)


def ctrl_a_x_ends(machine):
    machine.type(b"\x01x")
    machine.end(0)


def ctrl_a_x_ends_a_deaf_guest(machine):
    machine.type(b"deaf" * 1000)  # more than anybody keeps
    machine.type(b"\x01x")
    machine.end(0)


def ended_by(number):
    def test(machine):
        machine.process.send_signal(number)
        machine.end(128 + number)

    return test


TESTS = {
    "every key reaches the guest, Ctrl-C too": every_key_reaches_the_guest,
    "Ctrl-A Ctrl-A types one": ctrl_a_twice_is_one,
    "Ctrl-A h helps": ctrl_a_h_helps,
    "Ctrl-A x ends, and the terminal is as it was": ctrl_a_x_ends,
    "Ctrl-A x ends a guest that does not listen": ctrl_a_x_ends_a_deaf_guest,
    "SIGTERM ends, and the terminal is as it was": ended_by(signal.SIGTERM),
    "SIGHUP ends, and the terminal is as it was": ended_by(signal.SIGHUP),
}


def run(test):
    """In a process of its own, since a process leads one session only. Whether it passed, and the words."""
    words_out, words_in = os.pipe()
    child = os.fork()
    if child == 0:
        machine = None
        try:
            machine = Machine(sys.argv[1], sys.argv[2], "deaf=1" if "deaf" in test.__name__ else "echo=1")
            test(machine)
            os._exit(0)
        except Exception:
            os.write(words_in, traceback.format_exc(limit=-1).encode())
            if machine:
                machine.process.kill()
            os._exit(1)
    os.close(words_in)
    with os.fdopen(words_out, errors="replace") as words:
        text = words.read()
    return os.waitpid(child, 0)[1] == 0, text


def main():
    failed = False
    for number, (name, test) in enumerate(TESTS.items(), 1):
        passed, text = run(test)
        failed = failed or not passed
        print(f"{'ok' if passed else 'not ok'} {number} - {name}", flush=True)
        for line in text.splitlines():
            print(f"# {line}", flush=True)
    print(f"1..{len(TESTS)}")
    sys.exit(failed)


main()
