"""The worker's side of the protocol: one line of JSON in, one out.

Requests come on stdin; replies go to the descriptor that `DPSGD_REPLY_FD` names, because libraries print on stdout. An
unknown message, field or version is an error.
"""

import json
import os
import queue
import sys
import threading
import time
from dataclasses import asdict, dataclass

import numpy as np

from . import checksum, tensors
from .job import Dp, Job, Kernels, Malformed, Settings, Unsupported, exactly, load_dataset, load_params
from .model import read_model

VERSION = 3

# How large the files of schedules may be whose batches stay placed.
KEPT_BYTES = 4 << 20

# The fields of each request.
FIELDS = {
    "hello": {"version"},
    "load": {"model", "params", "dataset", "dp", "settings"},
    "set": {"params", "dp"},
    "step": {"indices", "mask"},
    "epoch": {"schedule", "repeat"},
    "params": {"path"},
    "bye": set(),
}


def serve(strategy):
    """The whole main of a worker: answers requests until `bye`."""
    descriptor = os.environ.get("DPSGD_REPLY_FD")
    if descriptor is None:
        print(f"{strategy.name}: a worker of dpsgd-bench, started by its runner: no DPSGD_REPLY_FD", file=sys.stderr)
        raise SystemExit(2)
    worker = Worker(strategy)
    with os.fdopen(int(descriptor), "w") as replies:
        for line in lines_until_closed():
            reply = worker.answer(line)
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
            if reply["reply"] == "bye":
                break
    strategy.close()
    # Not by the interpreter's own way out: frameworks leave threads behind whose end may hang.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def lines_until_closed():
    """Lines of stdin, read by a thread of its own. When stdin closes during a request, the process ends: its runner is
    gone."""
    lines = queue.SimpleQueue()

    def read():
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()


class Worker:
    """Carries out requests on one strategy."""

    def __init__(self, strategy):
        self.strategy = strategy
        self.greeted = False
        self.loaded = None

    def answer(self, line):
        """The reply to one request; whatever goes wrong is a reply too."""
        try:
            return self.carry_out(json.loads(line))
        except (Malformed, json.JSONDecodeError) as error:
            kind, text = "protocol", f"{error} in request {line.strip()}"
        except Unsupported as error:
            kind, text = "unsupported", f"unsupported: {error}"
        except Exception as error:
            kind = "out_of_memory" if self.strategy.is_out_of_memory(error) else "failed"
            text = f"{type(error).__name__}: {error}"
            # All of it is in the log.
            sys.excepthook(type(error), error, error.__traceback__)
        text = " ".join(text.split())
        return {"reply": "error", "kind": kind, "message": text if len(text) < 600 else text[:600] + "..."}

    def carry_out(self, request):
        """The reply to a request that goes well."""
        name = request.get("request") if isinstance(request, dict) else None
        if name not in FIELDS:
            raise Malformed(f"unknown request {name!r}: must be one of {', '.join(FIELDS)}")
        fields = {key: value for key, value in request.items() if key != "request"}
        if set(fields) != FIELDS[name]:
            raise Malformed(f"fields {sorted(fields)} of {name}: must be {sorted(FIELDS[name])}")
        if not self.greeted and name != "hello":
            raise Malformed("the first request must be hello")
        if self.loaded is None and name in ("set", "step", "epoch", "params"):
            raise Malformed("nothing is loaded yet: send load first")
        return {"reply": REPLIES[name]} | getattr(self, name)(**fields)

    def hello(self, version):
        if version != VERSION:
            raise Malformed(f"protocol version {version}: this worker speaks {VERSION}; update the older")
        self.greeted = True
        return {"version": version, "name": self.strategy.name, "variants": list(self.strategy.variants)}

    def load(self, model, params, dataset, dp, settings):
        begin = time.monotonic()
        settings = exactly(Settings, settings, "settings")
        variants = self.strategy.variants
        if settings.variant is not None and settings.variant not in variants:
            raise Unsupported(f"variant `{settings.variant}`: {self.strategy.name} has {list(variants)}")
        model = read_model(model)
        params = load_params(params, model)
        inputs, targets = load_dataset(dataset)
        # Not a part of loading: neither is its time.
        aside = time.monotonic()
        data_sha256 = checksum.of_dataset(inputs, targets)
        begin += time.monotonic() - aside
        # What was loaded before must not stay in memory beside it.
        self.loaded = None
        job = Job(model, params, inputs, targets, exactly(Dp, dp, "dp"), settings)
        self.loaded = Loaded(self.strategy(job), model, len(inputs))
        self.loaded.strategy.synchronize()
        variant = settings.variant or (variants[0] if variants else None)
        description = {"name": self.strategy.name, "variant": variant} | self.loaded.strategy.describe()
        loaded = {"load_s": time.monotonic() - begin, "data_sha256": data_sha256, "description": description}
        kernels = self.loaded.strategy.kernels()
        return loaded if kernels is None else loaded | {"kernels": asdict(exactly(Kernels, kernels, "kernels"))}

    def set(self, params, dp):
        if params is not None:
            self.loaded.strategy.set_params(load_params(params, self.loaded.model))
        if dp is not None:
            # Batches may have been placed to suit the hyperparameters.
            self.loaded.kept.clear()
            self.loaded.strategy.set_dp(exactly(Dp, dp, "dp"))
        return {}

    def step(self, indices, mask):
        indices, mask = np.array(indices, np.int32), np.array(mask, bool)
        if len(indices) == 0 or len(indices) != len(mask):
            raise ValueError(f"a batch of {len(indices)} indices with a mask of {len(mask)}: must be equal, above 0")
        self.loaded.check(indices)
        return self.loaded.step(indices, mask)

    def epoch(self, schedule, repeat):
        if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
            raise Malformed(f"repeat = {repeat!r} in epoch: must be a whole number, at least 1")
        return self.loaded.epochs(self.loaded.schedule(schedule), repeat)

    def params(self, path):
        self.loaded.strategy.synchronize()
        tensors.save(path, {name: np.asarray(value) for name, value in self.loaded.strategy.params().items()})
        return {"path": path}

    def bye(self):
        return {}


REPLIES = {name: {"load": "loaded", "step": "stepped"}.get(name, name) for name in FIELDS}


class Loaded:
    """A strategy at work, and the clock."""

    def __init__(self, strategy, model, examples):
        self.strategy = strategy
        self.model = model
        self.examples = examples
        self.first_step_taken = False
        # Schedules by path, the one run last at the end.
        self.kept = {}

    def check(self, indices):
        """Refuses rows that the data set does not have."""
        outside = indices[(indices < 0) | (indices >= self.examples)]
        if outside.size:
            raise ValueError(f"index {outside[0]} in a batch: the data set has {self.examples}")

    def step(self, indices, mask):
        """One step, timed until its parameters are ready."""
        batch = self.strategy.place_batch(indices, mask)
        self.strategy.synchronize()
        begin = time.monotonic()
        self.strategy.step(*batch)
        self.strategy.synchronize()
        step_s = time.monotonic() - begin
        self.first_step_taken = True
        return {"step_s": step_s, "non_finite_examples": self.strategy.non_finite_examples()}

    def schedule(self, path):
        """The batches of a file, placed. Kept ones are used again as long as the file has the same bytes: a runner asks for
        the same few epochs over and over, one about every 30 ms."""
        with open(path, "rb") as file:
            data = file.read()
        known = self.kept.pop(path, None)
        if known is None or known.data != data:
            known = self.place(path, data)
        self.kept[path] = known
        # The oldest go first; the one to run stays, however large.
        while len(self.kept) > 1 and sum(len(each.data) for each in self.kept.values()) > KEPT_BYTES:
            del self.kept[next(iter(self.kept))]
        return known

    def place(self, path, data):
        """The batches in the bytes of a file."""
        found = tensors.parse(path, data)
        indices, mask = found["indices"], found["mask"]
        if indices.ndim != 2 or indices.shape != mask.shape or indices.shape[1] == 0:
            raise ValueError(f"{path}: indices {indices.shape} and mask {mask.shape}: must be [steps, width]")
        self.check(indices)
        size = len(mask), int(mask.sum()), checksum.of_batches(zip(indices, mask))
        whole = self.strategy.place_epoch(indices, mask)
        if whole is not None:
            return Placed(data, None, whole, *size)
        # A batch that comes again, as where an epoch is repeated for a meter, is placed once.
        placed, batches = {}, []
        for batch in zip(indices, mask):
            key = batch[0].tobytes(), batch[1].tobytes()
            if key not in placed:
                placed[key] = self.strategy.place_batch(*batch)
            batches.append(placed[key])
        return Placed(data, batches, None, *size)

    def epochs(self, placed, repeat):
        """All batches, `repeat` times, each timed from before its first step until the parameters are ready after its
        last."""
        strategy, first_step_s, epochs_s = self.strategy, None, []
        strategy.synchronize()
        begin = time.monotonic()
        for _ in range(repeat):
            if placed.whole is not None:
                strategy.run_epoch(placed.whole)
                self.first_step_taken = True
            for batch in placed.batches or ():
                strategy.step(*batch)
                if not self.first_step_taken:
                    strategy.synchronize()
                    first_step_s = time.monotonic() - begin
                    self.first_step_taken = True
            strategy.synchronize()
            # One ends where the next begins: nothing between epochs is in no epoch.
            end = time.monotonic()
            epochs_s.append(end - begin)
            begin = end
        return {
            "epochs_s": epochs_s,
            "first_step_s": first_step_s,
            "steps": repeat * placed.steps,
            "examples": repeat * placed.examples,
            "batches_sha256": placed.sha256,
            "non_finite_examples": strategy.non_finite_examples(),
        }


@dataclass(frozen=True)
class Placed:
    """A schedule's batches as the strategy wants them, one by one or as a whole, and the bytes of the file that they were
    made from."""

    data: bytes
    batches: list | None
    whole: object | None
    steps: int
    examples: int
    sha256: str
