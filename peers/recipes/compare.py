"""Every peer against its own best known recipe: a plain script, written from the framework's documentation, that uses nothing
of the benchmark. A worker that is slower than that would make its framework look slower than it is.

Worker and recipe run in fresh processes in turn, in reverse order every other round, with the same threads pinned to the
same processors, on the talk's two networks. Prints seconds per example (the median over rounds of each process's median
epoch) and their ratio, worker over recipe, with the least and the largest ratio of a round. Exit status 1 when a worker's
median ratio is above 1.10 in all rounds but one: more than 10% slower, and not for noise.

    python3 peers/recipes/compare.py                        # all, with the environments of .envs
    python3 peers/recipes/compare.py --peers jax,opacus:ghost --models ffnn --rounds 7

Needs a machine with nothing else to do, and `runner setup` first. Uses only Python's own library here.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent
sys.path.insert(0, str(PEERS / "rivals"))

from harness import run_script, run_worker, write_job

# How much slower than its recipe a worker may be.
ALLOWED = 1.10

# Peer: environment, worker, its variant, recipe, the recipe's variant. The two of ../rivals are recipes too.
CONTENDERS = {
    "jax:jit+vmap": ("jax", "jax_worker", "jit+vmap", HERE / "jax_vmap.py", None),
    "jax-privacy": ("jax", "jax_privacy_worker", None, HERE / "jax_privacy_clipped_grad.py", None),
    "opacus:hooks": ("torch", "opacus_worker", "hooks", HERE / "opacus_make_private.py", "hooks"),
    "opacus:ghost": ("torch", "opacus_worker", "ghost", HERE / "opacus_make_private.py", "ghost"),
    "torch-func:eager": ("torch", "torch_func_worker", "eager", PEERS / "rivals" / "torch_func_vmap.py", None),
    "backpack": ("torch", "backpack_worker", None, HERE / "backpack_batch_grad.py", None),
    "opake": ("torch", "opake_worker", None, HERE / "opake_clipped_grad.py", None),
    "pytorch": ("torch", "pytorch_worker", None, PEERS / "rivals" / "naive_loop.py", None),
    "tensorflow:xla+vmap": ("tf", "tensorflow_worker", "xla+vmap", HERE / "tensorflow_vectorized_map.py", "xla+vmap"),
    "tensorflow:vmap": ("tf", "tensorflow_worker", "vmap", HERE / "tensorflow_vectorized_map.py", "vmap"),
    "tf-privacy:xla": ("tf", "tf_privacy_worker", "xla", HERE / "tf_privacy_vectorized.py", "xla"),
    "tf-privacy:graph": ("tf", "tf_privacy_worker", "graph", HERE / "tf_privacy_vectorized.py", "graph"),
}


def compare(args, peer, model, folder):
    """One line's figures: seconds per example of both, and the ratio of each round."""
    environment, worker, variant, recipe, recipe_variant = CONTENDERS[peer]
    python = args.envs / environment / "bin" / "python"
    more = [] if recipe_variant is None else ["--variant", recipe_variant]
    sides = {
        "worker": lambda: run_worker(args, [python, PEERS / f"{worker}.py"], variant, model, folder, args.batch_size),
        "recipe": lambda: run_script(args, python, recipe, model, args.batch_size, more),
    }
    times = {side: [] for side in sides}
    for round_ in range(args.rounds):
        for side in list(sides) if round_ % 2 == 0 else list(sides)[::-1]:
            times[side].append(sides[side]())
    ratios = sorted(w / r for w, r in zip(times["worker"], times["recipe"]))
    micros = {f"{side}_us_per_example": round(statistics.median(t) * 1e6, 2) for side, t in times.items()}
    spread = [round(ratios[0], 3), round(ratios[-1], 3)]
    # One round may be off, by whatever the machine did then.
    slower = statistics.median(ratios) > ALLOWED and sum(ratio > ALLOWED for ratio in ratios) >= args.rounds - 1
    return micros | {"ratio": round(statistics.median(ratios), 3), "least_and_largest": spread, "slower": slower}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", help=f"of {', '.join(CONTENDERS)}; all unless given; a strategy is all its variants")
    parser.add_argument("--models", default="ffnn,mnist-cnn")
    parser.add_argument("--envs", type=Path, default=PEERS.parent / ".envs", help="where the environments are")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="per process, after one to warm up")
    parser.add_argument("--examples", type=int, default=2048, help="per epoch")
    args = parser.parse_args()
    wanted = args.peers.split(",") if args.peers else list(CONTENDERS)
    unknown = [name for name in wanted if not any(name in (peer, peer.split(":")[0]) for peer in CONTENDERS)]
    if unknown:
        parser.error(f"no peer {', '.join(unknown)}: must be of {', '.join(CONTENDERS)}")
    slower = []
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            random.seed(1)
            model = write_job(Path(folder), name, args.batch_size, args.examples)
            for peer in CONTENDERS:
                if peer in wanted or peer.split(":")[0] in wanted:
                    result = compare(args, peer, model, Path(folder))
                    print(json.dumps({"peer": peer, "model": name, "batch_size": args.batch_size} | result), flush=True)
                    if result["slower"]:
                        slower.append(f"{peer} on {name}: {result['ratio']} times its recipe's time")
    if slower:
        raise SystemExit("\n".join(slower))


if __name__ == "__main__":
    main()
