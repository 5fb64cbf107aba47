"""What the comparisons with plain scripts share: a job's files, a worker driven over its protocol, a script run beside it; both
in fresh processes, with the same threads, on the same processors."""

import json
import os
import random
import statistics
import struct
import subprocess
import tomllib
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent.parent / "bench-configs" / "models"
# As crates/runner/src/worker/mod.rs sets them.
THREAD_VARIABLES = [
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "PJRT_NPROC",
]
ALLOCATOR_VARIABLES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def save_safetensors(path, tensors):
    """`tensors`: name -> (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def floats(count, bound):
    return struct.pack(f"<{count}f", *(random.uniform(-bound, bound) for _ in range(count)))


def write_job(folder, name, batch_size, examples):
    """Parameters, a synthetic data set and the schedule of one epoch, as the worker protocol has them."""
    model = tomllib.loads((MODELS / f"{name}.toml").read_text())
    params = {}
    for i, layer in enumerate(model["layers"]):
        if layer["kind"] == "linear":
            shape = [layer["out_features"], layer["in_features"]]
        elif layer["kind"] == "conv2d":
            shape = [layer["out_channels"], layer["in_channels"], layer["kernel_size"], layer["kernel_size"]]
        else:
            continue
        fan_in = 1
        for size in shape[1:]:
            fan_in *= size
        params[f"{i}.weight"] = ("F32", shape, floats(shape[0] * fan_in, fan_in**-0.5))
        params[f"{i}.bias"] = ("F32", shape[:1], floats(shape[0], fan_in**-0.5))
        classes = shape[0]
    shape = model["input"]["image"] if "image" in model["input"] else [model["input"]["features"]]
    count = examples
    for size in shape:
        count *= size
    targets = struct.pack(f"<{examples}i", *(random.randrange(classes) for _ in range(examples)))
    data = {"inputs": ("F32", [examples, *shape], floats(count, 1.0)), "targets": ("I32", [examples], targets)}
    steps = examples // batch_size
    slots = steps * batch_size
    schedule = {
        "indices": ("I32", [steps, batch_size], struct.pack(f"<{slots}i", *range(slots))),
        "mask": ("BOOL", [steps, batch_size], b"\1" * slots),
    }
    for file, tensors in (("params", params), ("dataset", data), ("schedule", schedule)):
        save_safetensors(folder / f"{file}.safetensors", tensors)
    return model


def environment(args):
    """Of every process: how many threads to use, and that freed memory is kept."""
    return dict(os.environ) | ALLOCATOR_VARIABLES | {variable: str(args.threads) for variable in THREAD_VARIABLES}


def pinned(args):
    """What a child process does first: it keeps to as many processors as it has threads."""
    processors = sorted(os.sched_getaffinity(0))[: args.threads]
    return lambda: os.sched_setaffinity(0, processors)


def run_worker(args, command, variant, model, folder, batch_size):
    """Seconds per example of one process of a worker, over the worker protocol: the median of `args.epochs` epochs after
    one to warm up."""
    read_end, write_end = os.pipe()
    worker = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment(args) | {"DPSGD_REPLY_FD": str(write_end)},
        pass_fds=[write_end],
        preexec_fn=pinned(args),
    )
    os.close(write_end)
    with os.fdopen(read_end) as replies, worker.stdin as requests:

        def ask(request):
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
            line = replies.readline()
            reply = json.loads(line) if line else {"reply": "nothing: the worker has died"}
            if reply["reply"] == "error" or not line:
                raise SystemExit(f"{command}: {reply}")
            return reply

        ask({"request": "hello", "version": 3})
        dp = dict(
            mode="private", clip_norm=1.0, noise_multiplier=1.0, learning_rate=0.01, expected_batch_size=batch_size
        )
        settings = dict(variant=variant, device="cpu", threads=args.threads, noise_seed=None)
        files = {file: str(folder / f"{file}.safetensors") for file in ("params", "dataset")}
        ask({"request": "load", "model": model, **files, "dp": dp, "settings": settings})
        epoch = {"request": "epoch", "schedule": str(folder / "schedule.safetensors"), "repeat": 1}
        ask(epoch)
        times = [ask(epoch) for _ in range(args.epochs)]
        ask({"request": "bye"})
    worker.wait()
    return statistics.median(reply["epochs_s"][0] / reply["examples"] for reply in times)


def run_script(args, python, script, model, batch_size, more=()):
    """Seconds per example of one process of a plain script, by its own clock, in the same way."""
    command = [python, script, "--model", model["name"], "--batch-size", str(batch_size)]
    command += ["--threads", str(args.threads), "--examples", str(args.examples), "--epochs", str(args.epochs), *more]
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        check=True,
        env=environment(args),
        preexec_fn=pinned(args),
    )
    return json.loads(result.stdout)["seconds_per_example"]
