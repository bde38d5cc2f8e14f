"""What happens beside the steps of a Trainer's stage: metrics, looks at the hold-out, checkpoints, and the stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligner.run.checkpoint import save_checkpoint
from aligner.run.folder import RunFolder
from aligner.run.progress import Bar
from aligner.stages.resume import state_of
from aligner.stages.spikes import Spikes
from aligner.stages.stop import Stop

if TYPE_CHECKING:
    from aligner.stages.loop import StageTrainer

Look = Callable[[], Mapping[str, float]]


class RunCallback(TrainerCallback):
    """Metrics to the run folder, the bar, a look at the hold-out every so often, and the stop after Ctrl-C.

    A loss that spikes is told.
    """

    def __init__(
        self,
        run: RunFolder,
        trainer: StageTrainer,
        bar: Bar,
        stop: Stop,
        *,
        look: Look | None,
        every: int | None,
        from_start: bool,
    ) -> None:
        self.run, self.trainer, self.bar, self.stop = run, trainer, bar, stop
        self.look = look if run.leads else None  # the other processes wait
        self.every, self.from_start, self.stopped = every, from_start, False
        self.since = time.perf_counter()
        self.spikes = Spikes(run, self._rows_of, {trainer.loss_metric: trainer.plan.spikes})

    def _rows_of(self, step: int) -> list[str]:
        return [self.trainer.row_name(row) for row in self.trainer.rows_of(step)]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A look at the start model, if it is asked for; the clock of tokens per second starts."""
        if self.look and self.from_start and state.global_step == 0:
            self.run.metrics.log(0, self.look())
        self.since = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """A word on the loss where it spikes, a look at the hold-out where it is due, the stop that was asked for."""
        self.bar.advance(1)
        plan = self.trainer.plan
        self.spikes.see(state.global_step, {self.trainer.loss_metric: plan.loss})
        plan.loss = 0.0
        if (
            self.look
            and self.every
            and state.global_step % self.every == 0
            and state.global_step < state.max_steps
        ):
            began = time.perf_counter()
            self.run.metrics.log(state.global_step, self.look())
            self.since += time.perf_counter() - began
        if state.global_step == state.max_steps:
            control.should_log = True  # a training shorter than `log_every` has a loss, too
        if self.trainer.ranks.any(self.stop.asked):
            self.stopped = True
            control.should_save = control.should_training_stop = True
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A checkpoint, where one is due or the run is to stop; every process has a part in it."""
        parts = state_of(self.trainer, self.run)
        self.trainer.ranks.first(lambda: save_checkpoint(self.run.checkpoints, state.global_step, *parts))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        """What happened since the last line, to metrics.jsonl and the bar."""
        if "loss" not in logs:  # the summary at the end of train()
            return
        now = time.perf_counter()
        (tokens,) = self.trainer.totals([self.trainer.plan.sums["tokens"]])
        values = {
            self.trainer.loss_metric: logs["loss"],
            "train/learning_rate": logs["learning_rate"],
            "train/grad_norm": float(logs["grad_norm"]),
            "train/tokens_per_second": tokens / max(now - self.since, 1e-9),
            **self.trainer.more_metrics(),
        }
        self.trainer.plan.sums.clear()
        self.since = now
        self.run.metrics.log(state.global_step, values)
        self.bar.advance(0, loss=logs["loss"])
