"""Write the small made-up world under data/world: `python scripts/make_world.py [--out DIR] [--seed N]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script, only this folder is on the path
    sys.path.insert(0, str(ROOT))

from scripts.world.write import write_world  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and write the world."""
    parser = argparse.ArgumentParser(description="Write the small made-up world.")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "world", help="folder for the files")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another world")
    options = parser.parse_args(arguments)
    write_world(options.out, options.seed)


if __name__ == "__main__":
    main()
