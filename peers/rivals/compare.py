"""Our Rust workers against their rivals in Python, on ffnn and mnist-cnn at batch sizes 64 and 256.

Every contender runs in fresh processes, interleaved in rounds, in reverse order every other round, with the same
threads pinned to the same processors. Prints seconds per example (the median over rounds of each process's median
epoch) and the ratio of each Rust worker to its rival, which must not be above 1.

    cargo build --release -p dpsgd-naive -p dpsgd-batched
    python peers/rivals/compare.py --workers target/release

The interpreter must have torch. Exit status 1 when a worker is slower than its rival.
"""

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "bench-configs" / "models"
WORKERS = [("naive", None), ("batched", "captured"), ("batched", "expanded")]
RIVALS = ["naive_loop", "torch_func_vmap"]


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


def run_worker(args, name, variant, model, folder, batch_size, processors):
    """Seconds per example of one process of a Rust worker, over the worker protocol."""
    read_end, write_end = os.pipe()
    environment = dict(os.environ, DPSGD_REPLY_FD=str(write_end), OMP_NUM_THREADS=str(args.threads))
    worker = subprocess.Popen(
        [args.workers / f"dpsgd-{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        pass_fds=[write_end],
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    os.close(write_end)
    with os.fdopen(read_end) as replies, worker.stdin as requests:

        def ask(request):
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
            line = replies.readline()
            reply = json.loads(line) if line else {"reply": "nothing: the worker has died"}
            if reply["reply"] == "error" or not line:
                raise SystemExit(f"{name}: {reply}")
            return reply

        ask({"request": "hello", "version": 2})
        dp = dict(
            mode="private", clip_norm=1.0, noise_multiplier=1.0, learning_rate=0.01, expected_batch_size=batch_size
        )
        settings = dict(variant=variant, device="cpu", threads=args.threads, noise_seed=None)
        files = {file: str(folder / f"{file}.safetensors") for file in ("params", "dataset")}
        ask({"request": "load", "model": model, **files, "dp": dp, "settings": settings})
        epoch = {"request": "epoch", "schedule": str(folder / "schedule.safetensors")}
        ask(epoch)
        times = [ask(epoch) for _ in range(args.epochs)]
        ask({"request": "bye"})
    worker.wait()
    return statistics.median(reply["epoch_s"] / reply["examples"] for reply in times)


def run_rival(args, script, model, batch_size, processors):
    """Seconds per example of one process of a Python rival."""
    command = [sys.executable, HERE / f"{script}.py", "--model", model["name"], "--batch-size", str(batch_size)]
    command += ["--threads", str(args.threads), "--examples", str(args.examples), "--epochs", str(args.epochs)]
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        check=True,
        env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)),
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    return json.loads(result.stdout)["seconds_per_example"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=Path, required=True, help="folder of dpsgd-naive and dpsgd-batched")
    parser.add_argument("--models", nargs="+", default=["ffnn", "mnist-cnn"], choices=["ffnn", "mnist-cnn"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="per process, after one to warm up")
    parser.add_argument("--examples", type=int, default=2048, help="per epoch")
    args = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))[: args.threads]
    random.seed(1)
    slower = []
    for name in args.models:
        for batch_size in args.batch_sizes:
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                model = write_job(folder, name, batch_size, args.examples)
                contenders = [(script, None) for script in RIVALS] + WORKERS
                times = {contender: [] for contender in contenders}
                for round_ in range(args.rounds):
                    for contender in contenders if round_ % 2 == 0 else contenders[::-1]:
                        who, variant = contender
                        if who in RIVALS:
                            seconds = run_rival(args, who, model, batch_size, processors)
                        else:
                            seconds = run_worker(args, who, variant, model, folder, batch_size, processors)
                        times[contender].append(seconds)
            median = {contender: statistics.median(values) for contender, values in times.items()}
            better = min([("batched", "captured"), ("batched", "expanded")], key=median.get)
            pairs = {"naive": (("naive", None), ("naive_loop", None)), "batched": (better, ("torch_func_vmap", None))}
            result = {"model": name, "batch_size": batch_size, "threads": args.threads}
            result["us_per_example"] = {" ".join(filter(None, c)): round(s * 1e6, 2) for c, s in median.items()}
            for worker, (ours, rival) in pairs.items():
                ratio = statistics.median(a / b for a, b in zip(times[ours], times[rival]))
                result[f"{worker} / {rival[0]}"] = round(ratio, 3)
                if ratio > 1:
                    slower.append(f"{worker} on {name} at batch size {batch_size}: {ratio:.2f} times its rival's time")
            print(json.dumps(result), flush=True)
    if slower:
        raise SystemExit("\n".join(slower))


if __name__ == "__main__":
    main()
