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
import random
import statistics
import sys
import tempfile
from pathlib import Path

from harness import run_script, run_worker, write_job

HERE = Path(__file__).resolve().parent
WORKERS = [("naive", None), ("batched", "captured"), ("batched", "expanded")]
RIVALS = ["naive_loop", "torch_func_vmap"]


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
                            seconds = run_script(args, sys.executable, HERE / f"{who}.py", model, batch_size)
                        else:
                            seconds = run_worker(args, [args.workers / f"dpsgd-{who}"], variant, model, folder, batch_size)
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
