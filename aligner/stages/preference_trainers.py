"""The trainers of DPO and KTO: a policy against the start model's log-likelihoods, which come with the rows.

B = pairs; a batch holds their chosen answers first. Every mean is over the whole optimiser step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from aligner.models.scoring import likelihood_scores
from aligner.recipe.preference import DpoSpec, KtoSpec
from aligner.stages.batches import Batch, PairCollator, PairColumns
from aligner.stages.loop import StageTrainer
from aligner.stages.preference_losses import kto_loss, preference_loss

OTHER = "other_"  # before the columns of answers under another pair's prompt


class ReferenceTrainer(StageTrainer):
    """What both losses are made of; `rows_read`: the training rows in the order they are read."""

    area = ""
    spec: DpoSpec | KtoSpec
    rows_read: list[int]

    def rows_of(self, step: int) -> list[int]:
        """Of `rows_read`: KTO has an entry in its data set for every reading."""
        per_step = len(self.rows_read) // self.args.max_steps
        return self.rows_read[(step - 1) * per_step : step * per_step]

    def log_ratios(self, model: nn.Module, batch: Batch, prefix: str = "") -> Tensor:
        """log(policy / reference) of each answer in nats: (2B,)."""
        model.eval()  # dropout would make the policy another one than the reference before the first step
        ids_BT, mask_BT = batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"]
        logprobs_B = likelihood_scores(model, ids_BT, mask_BT, batch[f"{prefix}prompt_lengths"])
        return logprobs_B - batch[f"{prefix}reference"]

    def note(self, ratios_B: Tensor) -> None:
        """Count the implicit rewards of these answers."""
        chosen_B, rejected_B = (self.spec.beta * ratios_B.detach()).chunk(2)
        gap_B = chosen_B - rejected_B
        sums = self.plan.sums
        sums["wins"] += float((gap_B > 0).sum() + 0.5 * (gap_B == 0).sum())
        sums["gaps"] += float(gap_B.sum())
        sums["chosen"] += float(chosen_B.sum())
        sums["pairs"] += len(gap_B)

    def more_metrics(self) -> dict[str, float]:
        """Implicit rewards of the training pairs since the last line of metrics."""
        sums = self.plan.sums
        wins, gaps, chosen, pairs = self.totals([sums[name] for name in ("wins", "gaps", "chosen", "pairs")])
        return {
            f"{self.area}/accuracy_share": wins / pairs,
            f"{self.area}/margin_mean": gaps / pairs,
            f"{self.area}/chosen_reward_mean": chosen / pairs,
        }


class DpoTrainer(ReferenceTrainer):
    """The loss of DPO or its kin, the mean taken over pairs."""

    area = "dpo"
    loss_metric = "dpo/loss"

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The recipe's loss, summed over the pairs; `nll_coef` as in the reward stage."""
        assert isinstance(self.spec, DpoSpec)
        ratios_B = self.log_ratios(model, batch)
        self.note(ratios_B)
        weight_B = batch.get("weight")
        loss = preference_loss(
            ratios_B,
            batch["attention_mask"].sum(dim=1) - batch["prompt_lengths"],
            loss=self.spec.loss,
            beta=self.spec.beta,
            margin_B=batch.get("margin"),
            weight_B=weight_B,
        )
        if not self.spec.nll_coef:
            return loss
        chosen_B = (ratios_B + batch["reference"]).chunk(2)[0]
        return loss - self.spec.nll_coef * (chosen_B if weight_B is None else weight_B * chosen_B).sum()

    def count(self, batch: Batch) -> Tensor:
        """Pairs; not their weights, whose mean is 1 over the training rows, not over each step."""
        return torch.tensor(len(batch["input_ids"]) // 2)


class KtoTrainer(ReferenceTrainer):
    """The loss of KTO, the mean taken over answers; what they are compared with is the mean over the step, too."""

    area = "kto"
    loss_metric = "kto/loss"
    _kl = 0.0  # of the step

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        """The recipe's loss, summed over the answers."""
        assert isinstance(self.spec, KtoSpec)
        ratios_B = self.log_ratios(model, batch)
        self.note(ratios_B)
        return kto_loss(
            ratios_B,
            self._kl,
            loss=self.spec.loss,
            beta=self.spec.beta,
            desirable_weight=self.spec.desirable_weight,
            undesirable_weight=self.spec.undesirable_weight,
            weight_B=batch.get("weight"),
        )

    def count(self, batch: Batch) -> Tensor:
        """Answers."""
        return torch.tensor(len(batch["input_ids"]))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """The micro-batches of a step; the mean gain of answers to other prompts is measured before any is learnt."""
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.spec.loss == "kto":
            self._kl = self._mean_gain(batches, count)
            self.plan.sums["kl"] += self._kl
            self.plan.sums["steps"] += 1
        return batches, count

    @torch.no_grad()
    def _mean_gain(self, batches: Sequence[Batch], count: Tensor) -> float:
        total = torch.zeros((), device=self.args.device)
        for batch in batches:
            moved = {key: value.to(self.args.device) for key, value in batch.items() if key.startswith(OTHER)}
            with self.compute_loss_context_manager():
                total += self.log_ratios(self.model, moved, OTHER).sum()
        return max(float(self.accelerator.gather(total).sum() / count), 0.0)

    def more_metrics(self) -> dict[str, float]:
        """Implicit rewards and the mean gain since the last line of metrics."""
        sums = self.plan.sums
        return super().more_metrics() | ({"kto/kl_nats": sums["kl"] / sums["steps"]} if sums["steps"] else {})


class KtoCollator(PairCollator):
    """Pairs as `PairCollator` has them, and again with `OTHER` before each name, where they have such columns."""

    def __call__(self, pairs: Sequence[PairColumns]) -> Batch:
        batch = super().__call__(pairs)
        if "other" not in pairs[0]:
            return batch
        others = super().__call__([pair["other"] for pair in pairs])
        return batch | {f"{OTHER}{key}": value for key, value in others.items()}
