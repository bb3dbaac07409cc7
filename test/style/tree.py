#!/usr/bin/python3
"""Rules of the tree that no other tool knows. Each prints what breaks it and ends with status 1 then.

  tree.py comments FILE...   comments as clang-format's reflowing leaves them, lines over 110 columns
  tree.py functions FILE...  functions of more than 60 lines
  tree.py arrows FILE...     includes that point up, and includes of another folder's private header
  tree.py circles BUILD      files of one folder that need each other, by the symbols of their objects
"""
import os
import re
import subprocess
import sys

COLUMNS = 110
FUNCTION_LINES = 60

# Which folders each folder may include. Nothing may include a folder that is not in its row.
ARROWS = {
    "src/base": [],
    "src/agent": ["src/base"],
    "src/loop": ["src/base"],
    "src/store": ["src/base"],
    "src/store/cmd": ["src/base", "src/store"],
    "src/vcpu": ["src/base"],
    "src/boot": ["src/base", "src/vcpu"],
    "src/net": ["src/base", "src/loop"],
    "src/dev": ["src/base", "src/loop", "src/net", "src/store", "src/vcpu"],
    "src/sec": ["src/base"],
    "src/sec/generate": ["src/sec"],
    "src": ["src/base", "src/boot", "src/dev", "src/loop", "src/net", "src/sec", "src/store", "src/vcpu"],
    "src/main.c": ["src", "src/base", "src/ctl", "src/loop"],
    "src/ctl": ["src", "src/base", "src/boot", "src/dev", "src/loop", "src/net", "src/sec", "src/store", "src/vcpu"],
    "src/ctl/voltctl": ["src", "src/agent", "src/base", "src/ctl", "src/store"],
    "guest/init": ["src/agent", "src/base"],
    "guest/kernel": ["src/base", "src/boot", "src/store"],
}

# Headers that only their own folder may include, and what lies in it.
PRIVATE = re.compile(r"(^|/)(private|[a-z_]*_internal|virtio_core)\.h$")


def lines_of(name):
    with open(name, encoding="utf-8", errors="replace") as file:
        return file.read().split("\n")


def comments(names):
    for name in names:
        lines = lines_of(name)
        for number, line in enumerate(lines, 1):
            where = "%s:%d" % (name, number)
            if len(line) > COLUMNS:
                yield "%s: %d columns" % (where, len(line))
            code, mark, text = line.partition("/*")
            if not mark or "*/" in text or '"' in code or "//" in code:
                continue
            if code.strip():
                yield "%s: a comment behind code goes on in the next line: put it above" % where
            elif text.strip("* ") and number < len(lines) and lines[number].strip() == "*/":
                yield "%s: the end of this comment stands alone: make it fit one line, or two of text" % where


def functions(names):
    for name in names:
        start = None
        for number, line in enumerate(lines_of(name), 1):
            if line == "{":
                start = number
            elif line.startswith("}") and start:
                if number - start - 1 > FUNCTION_LINES:
                    yield "%s:%d: a function of %d lines" % (name, start, number - start - 1)
                start = None


def included_folder(folder, header):
    """The folder that `#include "header"` means in a file of `folder`."""
    beside = os.path.join(folder, header)
    path = beside if os.path.exists(beside) else os.path.join("src", header)
    return os.path.dirname(path)


def arrows(names):
    for name in names:
        folder = os.path.dirname(name)
        row = name if name in ARROWS else folder  # a program's main() stands above its folder
        if folder not in ARROWS:
            yield "%s: %s has no row in the table of test/style/tree.py" % (name, folder)
            continue
        for number, line in enumerate(lines_of(name), 1):
            found = re.match(r'#include "(.*)"', line)
            if not found:
                continue
            target = included_folder(folder, found[1])
            if target == folder:
                continue
            if target not in ARROWS[row]:
                yield "%s:%d: %s must not need %s" % (name, number, folder, target)
            if PRIVATE.search(found[1]) and not folder.startswith(target + "/"):
                yield "%s:%d: %s is private to %s" % (name, number, found[1], target)


def symbols(path):
    """What an object defines and what it needs."""
    defined, needed = set(), set()
    for line in subprocess.run(["nm", "-g", path], capture_output=True, text=True, check=True).stdout.splitlines():
        kind, symbol = line.split()[-2:]
        (needed if kind == "U" else defined).add(symbol)
    return defined, needed


def circle_through(needs, start):
    """A shortest way from `start` back to itself, or None."""
    ways = [[start]]
    seen = set()
    for way in ways:
        for other in sorted(needs[way[-1]]):
            if other == start:
                return way + [start]
            if other not in seen:
                seen.add(other)
                ways.append(way + [other])
    return None


def circles(arguments):
    build = arguments[0]
    for folder in sorted(ARROWS):
        place = os.path.join(build, folder)
        if not os.path.isdir(place):
            continue
        sources = [name[:-2] for name in os.listdir(place) if name.endswith(".o") and os.path.exists(os.path.join(folder, name[:-2] + ".c"))]
        table = {name: symbols(os.path.join(place, name + ".o")) for name in sources}
        needs = {a: {b for b in table if b != a and table[a][1] & table[b][0]} for a in table}
        told = set()
        for name in sorted(needs):
            circle = circle_through(needs, name)
            if circle and not told & set(circle):
                told |= set(circle)
                why = sorted(table[circle[-2]][1] & table[circle[-1]][0])
                yield "%s: %s (the last by %s)" % (folder, " -> ".join(circle), ", ".join(why))


def main():
    checks = {"comments": comments, "functions": functions, "arrows": arrows, "circles": circles}
    found = list(checks[sys.argv[1]](sys.argv[2:]))
    print("\n".join(found))
    sys.exit(1 if found else 0)


main()
