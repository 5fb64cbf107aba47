"""Safetensors files, with nothing but NumPy: an 8-byte length, a JSON header, the bytes."""

import json
import struct

import numpy as np

DTYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4"), "BOOL": np.dtype("?")}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def load(path):
    """Tensors by name."""
    with open(path, "rb") as file:
        return parse(path, file.read())


def parse(path, file):
    """Tensors by name from the bytes of a file; they are views of it. Errors name `path`."""
    (length,) = struct.unpack_from("<Q", file)
    header, data = json.loads(file[8 : 8 + length]), memoryview(file)[8 + length :]
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor `{name}` is {entry['dtype']}: must be one of {', '.join(DTYPES)}")
        begin, end = entry["data_offsets"]
        found[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def save(path, tensors):
    """Writes `tensors`, name to array."""
    header, parts, offset = {}, [], 0
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor).tobytes()
        shape, dtype = list(tensor.shape), NAMES[np.asarray(tensor).dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(parts)
