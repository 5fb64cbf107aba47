"""What the recipes share: the command line, synthetic data as NumPy arrays, and the clock. A recipe's model and step are its
own, as its framework's documentation writes such things; nothing of the benchmark is used."""

import argparse
import json
import statistics
import time

import numpy as np

CLIP_NORM = 1.0
NOISE_MULTIPLIER = 1.0
LEARNING_RATE = 0.01


def main(prepare):
    """Times a recipe and prints one line of JSON. `prepare(args, inputs, targets, batches)` is given images in NCHW or rows
    of features, classes, and rows of indices; it answers with a function that runs an epoch and waits until its parameters
    are ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, choices=["ffnn", "mnist-cnn"])
    parser.add_argument("--variant", default="")
    parser.add_argument("--batch-size", required=True, type=int)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--examples", type=int, default=2048, help="per epoch")
    parser.add_argument("--epochs", type=int, default=5, help="timed; one more warms up")
    args = parser.parse_args()
    shape, classes = {"ffnn": ((104,), 2), "mnist-cnn": ((1, 28, 28), 10)}[args.model]
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (args.examples, *shape)).astype(np.float32)
    targets = random.integers(0, classes, args.examples, dtype=np.int32)
    batches = np.arange(args.examples // args.batch_size * args.batch_size, dtype=np.int32).reshape(-1, args.batch_size)
    epoch = prepare(args, inputs, targets, batches)

    def seconds():
        begin = time.perf_counter()
        epoch()
        return (time.perf_counter() - begin) / batches.size

    seconds()
    times = [seconds() for _ in range(args.epochs)]
    print(json.dumps({"seconds_per_example": statistics.median(times), "epochs": times}))
