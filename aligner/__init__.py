"""aligner: raw text to an aligned model, one recipe a stage."""

import logging
import os
import warnings

__version__ = "0.1.0"

# No library phones home on our behalf; set before any of them is imported, and left alone where the user chose.
for _variable in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# oneDNN keeps a compiled kernel for each shape of a matrix product, 1024 of them if let: batches of many lengths filled
# .5 GiB with them (the quickstart's reward stage: 1.85 -> 1.40 GiB). One batch, all its layers, needs fewer than 32.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
# Two notices about other libraries' internals that nobody here can act on.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
