"""The small made-up world that the quickstart trains on, written by `scripts/make_world.py`."""
