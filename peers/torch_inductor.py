"""torch.compile with cold starts that are cold. Import this before torch."""

import os
import tempfile

# Nothing that an earlier process compiled is found.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="dpsgd-inductor-")
# It asks for the user's name, which a worker's environment does not have, and a container's user may have none at all.
os.environ.setdefault("USER", "dpsgd-bench")

import shutil

import torch


def compiled(function):
    """`function`, compiled anew for every shape that it is given."""
    # Imported here, as it takes a second that who compiles nothing need not spend.
    import torch._dynamo

    # The gate loads and asks for shapes more often than training would; past the limit, steps would silently run eagerly.
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 10_000
    return torch.compile(function, dynamic=False)


def remove_folder():
    """Removes the folder that compilers wrote to."""
    shutil.rmtree(os.environ["TORCHINDUCTOR_CACHE_DIR"], ignore_errors=True)
