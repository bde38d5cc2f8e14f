"""aligner: raw text to an aligned model, one recipe a stage."""

import logging
import os
import warnings

__version__ = "0.1.0"

# No library phones home on our behalf; set before any of them is imported, and left alone where the user chose.
for _variable in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two notices about other libraries' internals that nobody here can act on.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
