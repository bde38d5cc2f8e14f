"""Several processes as one: each has all the weights, a share of the work, and afterwards what all of them found.

A rank samples and scores its share of a step's prompts; then every rank holds the whole scored batch, so rewards,
advantages, whitening, guards and figures are computed everywhere from the same numbers and nothing of them is reduced.
What is summed is the gradient of an optimiser step, once, every loss having been divided by the whole step's counts.
No data-parallel wrapper is put around the model: the sampler reads the same bare weights that are trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor, nn

from aligner.errors import AlignerError, ModelError, Problem, RunError
from aligner.rl.rollout import Rollout, passes
from aligner.run import launch

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=2)  # for the first rank, which evaluates and saves while the others wait
MOST_AT_ONCE = 1 << 26  # numbers of one message: 256 MiB, not a second copy of all gradients


class Pass(NamedTuple):
    """One forward pass of one rank."""

    episodes: Tensor  # their numbers
    weight: float  # 0 where the rank has nothing to do in it


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them. Alone, every method is what it would be without this class."""

    rank: int = 0
    count: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part, in a row; parts differ by one at most. By hand: 5 items, 2 ranks -> 3 and 2."""
        return items[self._start(len(items), self.rank) : self._start(len(items), self.rank + 1)]

    def before(self, count: int) -> int:
        """How many of `count` items the ranks before this one have."""
        return self._start(count, self.rank)

    def _start(self, count: int, rank: int) -> int:
        return rank * (count // self.count) + min(rank, count % self.count)

    def passes(self, rollout: Rollout, rows_per_device: int | None) -> Iterator[Pass]:
        """This rank's part of every forward pass over a rollout; those without a real token are left out.

        A pass is cut for all ranks together and then dealt out, so all of them make the same number of calls: under a
        wrapper whose forward or backward pass talks to the other ranks (DDP, FSDP) one call more on one of them would
        wait for ever. A rank whose part of a pass has no token reads an episode of another's, at weight 0.
        """
        for episodes in passes(rollout, rows_per_device, ranks=self.count):
            real = rollout.mask_BR[episodes].any(dim=1).cpu()
            if not bool(real.any()):
                continue
            own = slice(self.rank, None, self.count)
            if bool(real[own].any()):
                yield Pass(episodes[own], 1.0)
            else:
                yield Pass(episodes[real][:1], 0.0)

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gave on each rank, in their order; where it was an AlignerError on one, it is raised on all.

        Tensors in it have to be on the CPU: each rank has a device of its own.
        """
        if self.count == 1:
            return [work()]
        found, own = None, None
        try:
            found = work()
        except AlignerError as error:
            own = error
        with _peers_are_there():
            told = gather_object([(found, own and (type(own), own.problems))])
        for rank, (_, fault) in enumerate(told):
            if fault:
                raise own if own and rank == self.rank else fault[0](fault[1])
        values: list[T] = [value for value, _ in told]
        return values

    def agree(self, work: Callable[[], T]) -> T:
        """This rank's own result; where `work` was an AlignerError on one rank, it is raised on all."""
        found: list[T] = []
        self.together(lambda: found.append(work()))
        return found[0]

    def first(self, work: Callable[[], T]) -> T:
        """What the first rank's `work` gives; the others do none, and have it, too."""
        found: Any = self.together(lambda: work() if self.rank == 0 else None)[0]
        result: T = found
        return result

    def any(self, flag: bool) -> bool:
        """Whether it is so on some rank."""
        if self.count == 1:
            return flag
        return bool(self.total(torch.tensor(float(flag), device=PartialState().device)))

    def total(self, x: Tensor) -> Tensor:
        """The sum over ranks of tensors of one shape."""
        if self.count == 1:
            return x
        with _peers_are_there():
            summed: Tensor = reduce(x, "sum")
        return summed

    def add_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Each weight's gradient becomes the sum of all ranks', added in float32; None where no rank has one."""
        if self.count == 1:
            return
        held = list(weights)
        has_W = torch.tensor([float(weight.grad is not None) for weight in held], device=held[0].device)
        found = [weight for weight, ranks in zip(held, self.total(has_W).tolist(), strict=True) if ranks]
        for bucket in _buckets(found):
            grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in bucket]
            flat = self.total(torch.cat([grad.flatten().float() for grad in grads]))
            parts = torch.split(flat, [weight.numel() for weight in bucket])
            for weight, summed in zip(bucket, parts, strict=True):
                weight.grad = summed.view_as(weight).to(weight.dtype)

    def check_same(self, tensors: Iterable[Tensor], what: str) -> None:
        """ModelError where the ranks do not hold the same bits."""
        if self.count == 1:
            return
        digests = self.together(lambda: _sha256(tensors))
        if len(set(digests)) > 1:
            other = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
            fault = f"{what} of process {other} are not those of process 0"
            remedy = "start every process from the same files and versions; if they were, please report this"
            raise ModelError(Problem("processes", fault, remedy))

    def part(self) -> None:
        """Close the ways between the processes, when all of them have done their work."""
        if self.count > 1:
            PartialState().destroy_process_group()


ALONE = Ranks()


def ranks_of_launch() -> Ranks:
    """The processes that were launched together: one without a launcher. The first call opens the ways between them."""
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=LONGEST_WAIT)
    if state.num_processes != launch.processes():
        fault = f"{launch.processes()} processes by WORLD_SIZE, {state.num_processes} by accelerate"
        remedy = "start by torchrun or accelerate launch, which set RANK, LOCAL_RANK and WORLD_SIZE"
        raise RunError(Problem("processes", fault, remedy))
    return Ranks(state.process_index, state.num_processes)


@contextmanager
def telling_of_lost_peers() -> Iterator[None]:
    """Inside, libraries talk to the other processes by themselves (DDP): a way that breaks off is told as that.

    Such errors have no class of their own under gloo, whose sources they name instead.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error):
            raise _lost(error) from error
        raise


@contextmanager
def _peers_are_there() -> Iterator[None]:
    """Inside, the way to another process that has ended breaks off, which is told as that."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: RuntimeError) -> RunError:
    what = str(error).splitlines()[0]
    fault = f"another process of this launch has ended, or cannot be reached ({what})"
    return RunError(Problem("processes", fault, "its own message says why; then start all again"))


def _buckets(weights: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for weight in weights:
        if bucket and sum(one.numel() for one in bucket) + weight.numel() > MOST_AT_ONCE:
            yield bucket
            bucket = []
        bucket.append(weight)
    if bucket:
        yield bucket


def _sha256(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
