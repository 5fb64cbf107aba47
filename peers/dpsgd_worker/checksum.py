"""Checksums by which the runner knows that every contender was given the same data and ran the same batches: the Python
face of `crates/protocol/src/checksum.rs`, which says what they are of."""

import hashlib
import struct

import numpy as np


def of_dataset(inputs, targets):
    """SHA-256 of the data as it was received."""
    found = hashlib.sha256()
    for tensor in (inputs, targets):
        found.update(np.ascontiguousarray(tensor))
    return found.hexdigest()


def of_batches(batches):
    """SHA-256 of batches, pairs of indices (int32) and mask (bool), in order."""
    found = hashlib.sha256()
    for indices, mask in batches:
        found.update(struct.pack("<I", len(indices)))
        found.update(np.ascontiguousarray(indices))
        found.update(np.ascontiguousarray(mask))
    return found.hexdigest()
