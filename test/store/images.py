"""Images for test-store-imports.sh: tars by Python's tarfile, OCI layouts and docker archives around them.

images.py KIND FOLDER makes one; the kinds are the functions below.
"""
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

KINDS = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE}


def tar(entries):
    """Entries are (name, kind, data or target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, *rest in entries:
            info = tarfile.TarInfo(name)
            info.type = KINDS[kind]
            info.mtime = 1600000000
            info.mode = 0o755 if kind == "d" else 0o644
            data = rest[0].encode() if rest and kind == "f" else b""
            info.size = len(data)
            if kind in "lh":
                info.linkname = rest[0]
            archive.addfile(info, io.BytesIO(data) if kind == "f" else None)
    return out.getvalue()


def blob(folder, data):
    digest = hashlib.sha256(data).hexdigest()
    os.makedirs(f"{folder}/blobs/sha256", exist_ok=True)
    with open(f"{folder}/blobs/sha256/{digest}", "wb") as file:
        file.write(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def manifest(folder, layers, machine="amd64", **more):
    """A manifest of the layers, as an index's entry."""
    blobs = [blob(folder, gzip.compress(tar(layer), mtime=0)) for layer in layers]
    config = blob(folder, json.dumps({"architecture": machine, "os": "linux"}).encode())
    entry = blob(folder, json.dumps({"schemaVersion": 2, "config": config, "layers": blobs}).encode())
    entry["platform"] = {"architecture": machine, "os": "linux"}
    entry.update(more)
    return entry


def layout(folder, *entries):
    with open(f"{folder}/index.json", "w") as file:
        json.dump({"schemaVersion": 2, "manifests": entries}, file)
    with open(f"{folder}/oci-layout", "w") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)


def names(folder):
    """Names that a listing would quote, of this and of no alphabet, and whiteouts of them."""
    odd = ["system-systemd\\x2dcrypt.slice", "tab\there", "line\nfeed", " spaces ", "-dash", "*", "Főtanúsítvány.crt", "a" * 255]
    lower = [("u", "d")] + [(f"u/{name}", "f", "old") for name in odd]
    lower += [(f"kept/{name}", "f", "old") for name in odd] + [("u/o\\x2d", "d"), ("u/o\\x2d/old", "f")]
    upper = [(f"u/.wh.{name}", "f") for name in odd if len(name) < 250] + [("u/o\\x2d", "d"), ("u/o\\x2d/.wh..wh..opq", "f")]
    layout(folder, manifest(folder, [lower, upper + [("u/o\\x2d/new", "f")]]))


BEFORE = {"nothing": [], "file": [("x", "f", "old")], "folder": [("x", "d"), ("x/old", "f", "old")],
          "link": [("y", "d"), ("y/old", "f", "old"), ("x", "l", "y")]}
AFTER = {"file": [("x", "f", "new")], "folder": [("x", "d")], "below": [("x/new", "f", "new")], "link": [("x", "l", "z")],
         "hard": [("n", "f", "new"), ("x", "h", "n")], "whiteout": [(".wh.x", "f")]}


def combinations(folder):
    """Each of what was there with each of what comes, in folders BEFORE-AFTER of one image of two layers."""
    lower, upper = [], []
    for was, below in BEFORE.items():
        for comes, above in AFTER.items():
            place = f"{was}-{comes}"
            lower.append((place, "d"))
            lower += [(f"{place}/{name}", *rest) for name, *rest in below]
            for name, kind, *rest in above:
                upper.append((f"{place}/{name}", kind, *([f"{place}/{rest[0]}"] if kind == "h" else rest)))
    layout(folder, manifest(folder, [lower, upper]))


def several(folder):
    key = "org.opencontainers.image.ref.name"
    layout(folder, manifest(folder, [[("one", "f")]], annotations={key: "one"}),
           manifest(folder, [[("two", "f")]], annotations={key: "two"}),
           manifest(folder, [[("arm", "f")]], machine="arm64", annotations={key: "arm"}))


def foreign(folder):
    layout(folder, manifest(folder, [[("arm", "f")]], machine="arm64"))


def docker(folder):
    """As docker save wrote it before version 25: a layer that is there twice is a link."""
    os.makedirs(f"{folder}/a")
    os.makedirs(f"{folder}/b")
    with open(f"{folder}/a/layer.tar", "wb") as file:
        file.write(tar([("from-docker", "f", "yes")]))
    os.symlink("../a/layer.tar", f"{folder}/b/layer.tar")
    with open(f"{folder}/config.json", "w") as file:
        json.dump({"architecture": "amd64", "os": "linux"}, file)
    with open(f"{folder}/manifest.json", "w") as file:
        json.dump([{"Config": "config.json", "RepoTags": ["it:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}], file)


def escapes(folder):
    """A layer's link leads to / and the next writes through it: inside of the image."""
    layout(folder, manifest(folder, [[("tmp", "d"), ("out", "l", "/tmp")], [("out/from-the-image", "f", "x")]]))


if __name__ == "__main__":
    os.makedirs(sys.argv[2])
    globals()[sys.argv[1]](sys.argv[2])
