"""The shared module by itself: the clock, the protocol's refusals, threads, files. Needs NumPy.

    python -m unittest discover peers/tests
"""

import contextlib
import io
import json
import shutil
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dpsgd_worker import Dp, Strategy, Unsupported, checksum, tensors, threads_named
from dpsgd_worker.protocol import KEPT_BYTES, VERSION, Worker

STEP_S = 0.05


class Asynchronous(Strategy):
    """A step returns at once and is done `STEP_S` later, as on a GPU. It moves the parameter by one."""

    name = "asynchronous"

    def __init__(self, job):
        if job.model.name == "refused":
            raise Unsupported("this model, on purpose")
        self.done = []
        self.set_params(job.params)

    def describe(self):
        return {"versions": {}, "device": "cpu", "threads": 1, "rng": "none"}

    def step(self, indices, mask):
        def compute():
            time.sleep(STEP_S)
            self.value["0.bias"] += 1

        thread = threading.Thread(target=compute)
        thread.start()
        self.done.append(thread)

    def synchronize(self):
        for thread in self.done:
            thread.join()
        self.done = []

    def params(self):
        return self.value

    def set_params(self, params):
        self.value = {name: np.array(value) for name, value in params.items()}

    def set_dp(self, dp):
        pass


class Impatient(Asynchronous):
    """Waits for something else than its parameters: the mistake of the 2020 comparison."""

    def synchronize(self):
        pass


class Greedy(Asynchronous):
    """Runs out of memory at its first step."""

    def step(self, indices, mask):
        raise MemoryError("64 GiB")


class Compiling(Asynchronous):
    """Makes kernels of its own while it loads."""

    def kernels(self):
        return {"compile_s": 3.25, "cached_s": None}


class Placing(Asynchronous):
    """Takes long to place a batch."""

    def place_batch(self, indices, mask):
        time.sleep(STEP_S)
        return (indices[mask],)

    def step(self, rows):
        self.value["0.bias"] += len(rows)


class WorkerTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        zeros = {"0.weight": np.zeros((1, 2), np.float32), "0.bias": np.zeros(1, np.float32)}
        tensors.save(self.file("params"), zeros)
        data = {"inputs": np.ones((6, 2), np.float32), "targets": np.zeros(6, np.float32)}
        tensors.save(self.file("data"), data)
        batches = {"indices": np.array([[0, 1], [2, 3], [4, 5]], np.int32), "mask": np.array([[1, 1], [1, 0], [1, 1]], bool)}
        tensors.save(self.file("schedule"), batches)

    def file(self, name):
        return str(Path(self.folder.name) / name)

    def load_request(self, model="tiny", **changes):
        layers = [{"kind": "linear", "in_features": 2, "out_features": 1}]
        spec = {"name": model, "input": {"features": 2}, "loss": "bce_with_logits", "layers": layers}
        dp = dict(mode="private", clip_norm=1.0, noise_multiplier=1.0, learning_rate=0.1, expected_batch_size=2.0)
        settings = dict(variant=None, device="cpu", threads=1, noise_seed=None)
        files = {"params": self.file("params"), "dataset": self.file("data")}
        return {"request": "load", "model": spec, **files, "dp": dp, "settings": settings} | changes

    def epoch_request(self, repeat=1):
        return {"request": "epoch", "schedule": self.file("schedule"), "repeat": repeat}

    def ask(self, worker, request):
        return worker.answer(json.dumps(request))

    def loaded(self, strategy):
        worker = Worker(strategy)
        self.ask(worker, {"request": "hello", "version": VERSION})
        self.assertEqual(self.ask(worker, self.load_request())["reply"], "loaded")
        return worker

    def test_the_clock_of_an_epoch_stops_when_the_updated_parameters_are_ready(self):
        epoch = self.epoch_request()
        honest = self.ask(self.loaded(Asynchronous), epoch)
        self.assertGreaterEqual(honest["first_step_s"], STEP_S)
        self.assertGreaterEqual(honest["epochs_s"][0], honest["first_step_s"])
        self.assertEqual((honest["steps"], honest["examples"]), (3, 5))
        hasty = self.ask(self.loaded(Impatient), epoch)
        self.assertLess(hasty["epochs_s"][0], STEP_S, "without the wait the same work seems to take no time")

    def test_batches_are_placed_before_the_clock_starts_and_steps_are_given_what_was_placed(self):
        worker = self.loaded(Placing)
        timed = self.ask(worker, self.epoch_request())
        self.assertLess(timed["epochs_s"][0], STEP_S)
        stepped = self.ask(worker, {"request": "step", "indices": [0, 1], "mask": [True, False]})
        self.assertLess(stepped["step_s"], STEP_S)
        self.ask(worker, {"request": "params", "path": self.file("after")})
        self.assertEqual(tensors.load(self.file("after"))["0.bias"], [6.0])

    def test_an_epoch_that_is_repeated_has_a_time_each_and_counts_all_its_steps(self):
        worker = self.loaded(Asynchronous)
        once, more = self.ask(worker, self.epoch_request()), self.ask(worker, self.epoch_request(repeat=3))
        self.assertEqual((len(once["epochs_s"]), len(more["epochs_s"])), (1, 3))
        # Steps of `Asynchronous` run at the same time, so an epoch takes as long as one.
        self.assertTrue(all(STEP_S <= epoch_s < 3 * STEP_S for epoch_s in more["epochs_s"]), more["epochs_s"])
        self.assertEqual((more["steps"], more["examples"], more["first_step_s"]), (9, 15, None))
        self.assertEqual(more["batches_sha256"], once["batches_sha256"])
        self.ask(worker, {"request": "params", "path": self.file("after")})
        self.assertEqual(tensors.load(self.file("after"))["0.bias"], [12.0])

    def test_batches_stay_placed_until_the_file_changes_or_there_are_too_many(self):
        worker = self.loaded(Placing)
        strategy, placed = worker.loaded.strategy, []
        strategy.place_batch = lambda indices, mask: (placed.append(len(indices)) or indices[mask],)
        for _ in range(3):
            self.ask(worker, self.epoch_request(repeat=2))
        self.assertEqual(placed, [2, 2, 2], "three batches, once")
        other = {"indices": np.array([[5, 4, 3]], np.int32), "mask": np.array([[1, 0, 1]], bool)}
        tensors.save(self.file("schedule"), other)
        ran = self.ask(worker, self.epoch_request())
        self.assertEqual((placed[3:], ran["steps"], ran["examples"]), ([3], 1, 2))
        self.assertEqual(ran["batches_sha256"], checksum.of_batches(zip(other["indices"], other["mask"])))
        # A file of another name, the same bytes; then hyperparameters that the placing may depend on.
        self.ask(worker, self.epoch_request() | {"schedule": shutil.copy(self.file("schedule"), self.file("again"))})
        self.assertEqual(placed[4:], [3])
        self.ask(worker, {"request": "set", "params": None, "dp": self.load_request()["dp"]})
        self.ask(worker, self.epoch_request())
        self.assertEqual(placed[5:], [3])
        large = {"indices": np.zeros((1, KEPT_BYTES // 5), np.int32), "mask": np.ones((1, KEPT_BYTES // 5), bool)}
        tensors.save(self.file("large"), large)
        self.ask(worker, self.epoch_request() | {"schedule": self.file("large")})
        self.assertEqual(list(worker.loaded.kept), [self.file("large")])

    def test_the_clock_of_a_step_waits_too_and_parameters_are_read_after_it(self):
        worker = self.loaded(Asynchronous)
        self.assertGreaterEqual(self.ask(worker, {"request": "step", "indices": [0, 1], "mask": [True, True]})["step_s"], STEP_S)
        self.ask(worker, {"request": "params", "path": self.file("answer")})
        self.assertEqual(tensors.load(self.file("answer"))["0.bias"][0], 1.0)

    def test_what_is_unknown_missing_or_out_of_order_is_a_protocol_error(self):
        fresh = Worker(Asynchronous)
        self.assertEqual(self.ask(fresh, {"request": "bye"})["kind"], "protocol")
        self.assertEqual(self.ask(fresh, {"request": "hello", "version": VERSION + 1})["kind"], "protocol")
        worker = self.loaded(Asynchronous)
        dp = self.load_request()["dp"]
        for wrong in [
            {"request": "fly"},
            {"request": "step", "indices": [0]},
            {"request": "epoch", "schedule": self.file("schedule")},
            self.epoch_request(repeat=0),
            self.epoch_request(repeat=1.5),
            self.epoch_request(repeat=True),
            {"request": "step", "indices": [0], "mask": [True], "more": 1},
            {"request": "set", "params": None, "dp": dp | {"momentum": 0.9}},
            {"request": "set", "params": None, "dp": dp | {"clip_norm": 0.0}},
            {"request": "set", "params": None, "dp": dp | {"mode": "public"}},
            [],
        ]:
            self.assertEqual(self.ask(worker, wrong)["kind"], "protocol", wrong)
        self.assertEqual(worker.answer("not json")["kind"], "protocol")

    def test_a_strategy_s_error_keeps_its_kind_and_the_worker_goes_on(self):
        worker = self.loaded(Greedy)
        step = {"request": "step", "indices": [0, 1], "mask": [True, True]}
        with contextlib.redirect_stderr(io.StringIO()) as said:
            self.assertEqual(self.ask(worker, step)["kind"], "out_of_memory")
        self.assertIn("64 GiB", said.getvalue(), "the whole error is in the log")
        refused = self.ask(worker, self.load_request("refused"))
        self.assertEqual((refused["kind"], refused["message"]), ("unsupported", "unsupported: this model, on purpose"))
        self.assertEqual(self.ask(worker, self.load_request())["reply"], "loaded")

    def test_rows_and_masks_that_cannot_be_are_refused(self):
        worker = self.loaded(Asynchronous)
        with contextlib.redirect_stderr(io.StringIO()):
            for indices, mask in [([6], [True]), ([-1], [True]), ([], []), ([0], [True, True])]:
                reply = self.ask(worker, {"request": "step", "indices": indices, "mask": mask})
                self.assertEqual((reply["reply"], reply["kind"]), ("error", "failed"), (indices, mask))

    def test_checksums_are_those_of_the_rust_workers(self):
        # As in crates/protocol/src/checksum.rs, which has the same batches and the same data.
        batches = [(np.array(i, np.int32), np.array(m)) for i, m in [([0, 70000], [True, False]), ([2, 1], [True, True])]]
        sha256 = "4152a8cd9bd7c515b59f952844d79ce2704efe65047fc304a438985dfb24ef73"
        self.assertEqual(checksum.of_batches(batches), sha256)
        self.assertNotEqual(checksum.of_batches(batches[::-1]), sha256)
        data = np.array([[0.5, -1.0], [2.0, 0.0]], np.float32), np.array([1, 0], np.int32)
        self.assertEqual(checksum.of_dataset(*data), "349f25c195b19ce0205fcf3a6b13c6ea225316ce4530038461b5cf67ed63edce")

    def test_what_was_received_is_reported_the_data_at_load_and_the_batches_after_an_epoch(self):
        worker = Worker(Asynchronous)
        self.ask(worker, {"request": "hello", "version": VERSION})
        data, batches = tensors.load(self.file("data")), tensors.load(self.file("schedule"))
        loaded = self.ask(worker, self.load_request())
        self.assertEqual(loaded["data_sha256"], checksum.of_dataset(data["inputs"], data["targets"]))
        ran = self.ask(worker, self.epoch_request())
        self.assertEqual(ran["batches_sha256"], checksum.of_batches(zip(batches["indices"], batches["mask"])))

    def test_kernels_are_in_the_reply_to_load_if_there_are_any(self):
        for strategy, kernels in [(Compiling, {"compile_s": 3.25, "cached_s": None}), (Asynchronous, None)]:
            worker = Worker(strategy)
            self.ask(worker, {"request": "hello", "version": VERSION})
            # As it is on the line.
            reply = json.loads(json.dumps(self.ask(worker, self.load_request())))
            self.assertEqual((reply["reply"], reply.get("kernels")), ("loaded", kernels))
            self.assertEqual("kernels" in reply, kernels is not None, "a runner of before knows no such field")

    def test_threads_are_counted_as_the_kernel_has_them(self):
        if threads_named("x") is None:
            self.skipTest("no /proc here")
        self.assertEqual(threads_named("a name that no thread has"), 0)
        own = Path("/proc/self/comm").read_text().strip()
        self.assertGreaterEqual(threads_named(own), 1)

    def test_hyperparameters_out_of_range_are_named(self):
        with self.assertRaisesRegex(Exception, "learning_rate = nan"):
            Dp("private", 1.0, 1.0, float("nan"), 8.0)
        self.assertTrue(Dp("private", 1.0, 0.0, 0.1, 8.0).is_private)


if __name__ == "__main__":
    unittest.main()
