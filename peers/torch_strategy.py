"""What the strategies on PyTorch share: threads, data, parameters, and the choice of a batch."""

import numpy as np
import torch

from dpsgd_worker import Strategy, Unsupported, seed_of
from torch_model import make_module, named_parameters


class TorchStrategy(Strategy):
    """Holds the module and the data; a strategy adds its step."""

    rng = "mt19937 (PyTorch's default, not cryptographically secure)"
    cuda_rng = "philox4x32-10 (PyTorch's default, not cryptographically secure)"

    def __init__(self, job, **options):
        device = job.settings.device
        if device != "cpu":
            found = torch.cuda.device_count()
            if torch.device(device).index >= found:
                raise Unsupported(f"device {device}: PyTorch {torch.__version__} finds {found} CUDA devices")
            # float32 is to be float32: no products on tensor cores with ten bits of each number.
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.set_num_threads(job.settings.threads)
        # Seeds every device's default generator.
        torch.manual_seed(seed_of(job.settings))
        self.device = torch.device(device)
        self.variant = job.settings.variant or (self.variants[0] if self.variants else None)
        self.model = job.model
        # PyTorch's tuning guide advises channels last for convolutions.
        self.images = torch.channels_last if self.variant == "channels_last" else torch.contiguous_format
        self.module = make_module(job.model, **options).to(self.device, memory_format=self.images)
        self.parameters = named_parameters(self.module)
        self.inputs, self.targets = self.place(job.inputs), self.place(job.targets)
        self.dp = job.dp
        self.set_params(job.params)

    def place(self, array):
        """A tensor on the device; tokens and classes as 64-bit integers, which embeddings and losses want."""
        tensor = torch.from_numpy(array.copy())
        tensor = (tensor if tensor.is_floating_point() else tensor.long()).to(self.device)
        return tensor.contiguous(memory_format=self.images) if tensor.ndim == 4 else tensor

    def describe(self):
        # The space separates the device from its name.
        name = "cpu" if self.device.type == "cpu" else f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        versions = {"torch": torch.__version__} | self.versions()
        rng = self.rng
        if self.device.type == "cuda":
            tf32 = torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32
            versions |= {"cuda": torch.version.cuda, "tf32": "on" if tf32 else "off"}
            rng = self.cuda_rng
        return {"versions": versions, "device": name, "threads": torch.get_num_threads(), "rng": rng}

    def versions(self):
        """Of what else computes."""
        return {}

    def place_batch(self, indices, mask):
        """The rows of the examples that count; shapes are dynamic here, so padding is left out."""
        return (torch.tensor(indices[mask], dtype=torch.int64, device=self.device),)

    def batch(self, rows):
        """Inputs and targets of these rows."""
        # Of the two ways, this one leaves channels last.
        inputs = self.inputs[rows] if self.images is torch.channels_last else self.inputs.index_select(0, rows)
        return inputs, self.targets.index_select(0, rows)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def params(self):
        return {name: value.detach().cpu().numpy() for name, value in self.parameters.items()}

    def set_params(self, params):
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(torch.from_numpy(np.array(params[name])))

    def set_dp(self, dp):
        self.dp = dp

    @staticmethod
    def is_out_of_memory(error):
        return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
