"""Runs Bochs with a Haswell CPU (VMX, EPT) from a CD until it prints the lab's end mark, and copies its serial line out.

usage: bochs.py ISO MEMORY_MIB SECONDS

The serial line and the screen are pseudo-terminals: to a file Bochs would write the line in blocks, and the part that is
still in its buffer when it is killed would be lost; its screen library wants a terminal of at least 80x25.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty

CONFIGURATION = """
config_interface: textconfig
display_library: term
cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory}, host={memory}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={iso}, status=inserted
boot: cdrom
com1: enabled=1, mode=term, dev={line}
clock: sync=none, time0=local
log: {directory}/log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
speaker: enabled=0
"""


def main():
    iso, memory, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    line, line_far = pty.openpty()
    tty.setraw(line_far)
    screen, screen_far = pty.openpty()
    fcntl.ioctl(screen_far, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))

    def interrupted(*_):
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, interrupted)
    with tempfile.TemporaryDirectory() as directory:
        with open(directory + "/bochsrc", "w") as f:
            f.write(CONFIGURATION.format(memory=memory, iso=iso, line=os.ttyname(line_far), directory=directory))
        with open(directory + "/start", "w") as f:
            f.write("c\n")  # its debugger's "continue"
        bochs = subprocess.Popen(
            ["bochs-bin", "-q", "-f", directory + "/bochsrc", "-rc", directory + "/start"],
            stdin=screen_far, stdout=screen_far, stderr=screen_far,
            env=dict(os.environ, TERM="xterm"), start_new_session=True)
        try:
            copy_until_end(bochs, line, screen, time.monotonic() + seconds)
        finally:
            bochs.kill()  # it ignores SIGTERM
            bochs.wait()


def copy_until_end(bochs, line, screen, deadline):
    tail = b""
    while bochs.poll() is None and time.monotonic() < deadline:
        for ready in select.select([line, screen], [], [], 0.2)[0]:
            data = os.read(ready, 4096)
            if ready != line:
                continue  # the screen is read only so that Bochs does not stop at a full one
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            tail = (tail + data)[-200:]
            mark = tail.find(b"\nLAB-END ")
            if mark >= 0 and b"\n" in tail[mark + 1:]:
                return


main()
