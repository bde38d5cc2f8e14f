"""What every number is: METRICS are logged while a stage trains, RESULTS are told at its end, per stage or model."""

from __future__ import annotations

from typing import Final, Literal

_METRICS: Final[dict[str, str]] = {
    # supervised stages
    "train/loss_nats": "Mean cross-entropy per supervised token of the training rows since the last line, in nats.",
    "train/learning_rate": "Learning rate of this step.",
    "train/grad_norm": "Length of the gradient before clipping.",
    "train/tokens_per_second": "Tokens trained on per second, padding aside.",
    "train/padding_share": "Share of padding in the batches since the last line: computed, and nothing learnt from it.",
    "holdout/loss_nats": "Mean cross-entropy per supervised token of held-out rows, in nats.",
    "holdout/bits_per_byte": "Bits needed per byte of held-out text; comparable between tokenizers.",
    # reward
    "reward/loss_nats": "-log sigmoid(chosen - rejected), plus nll_coef x the chosen answer's nats; mean over pairs.",
    "reward/accuracy_share": "Share of training pairs whose chosen answer scores higher.",
    "reward/margin_mean": "Mean of chosen score minus rejected score over training pairs.",
    "holdout/accuracy_share": "Share of held-out pairs whose chosen answer scores higher; ties count half.",
    "holdout/margin_mean": "Mean of chosen score minus rejected score over held-out pairs.",
    # ppo
    "ppo/reward_mean": "Mean reward per response after all penalties, KL included: what PPO maximises.",
    "ppo/proxy_reward": "Mean score of the learned reward on this step's responses, normalised, no penalties.",
    "ppo/gold_reward": "Mean true reward of this step's responses; measured only, not trained on.",
    "ppo/holdout_proxy_reward": "Mean score of the learned reward on responses to held-out prompts, normalised.",
    "ppo/holdout_gold_reward": "Mean true reward of responses to held-out prompts; measured only.",
    "ppo/score_mean": "Mean score per response with the missing-end penalty, before KL.",
    "ppo/policy_loss": "Clipped policy loss, mean per response token.",
    "ppo/value_loss": "Clipped value loss, mean per response token.",
    "ppo/clip_share": "Share of response tokens whose ratio was clipped.",
    "ppo/value_clip_share": "Share of response tokens whose value change was clipped.",
    "ppo/kl_old_nats": "KL of the rollout policy to the updated one per token, in nats: how far one step went.",
    "ppo/entropy_nats": "Entropy of the policy per response token, in nats.",
    "ppo/explained_variance": "Share of the returns' variance that the values explain; 1 is perfect, 0 useless.",
    "ppo/ratio_first_error": "Largest |ratio - 1| in the first minibatch; anything but rounding is a bug.",
    "ppo/grad_norm": "Length of the policy gradient before clipping.",
    "ppo/learning_rate": "Learning rate of this step.",
    "ppo/guard_warnings": "Guards (ppo.guards) that warned in this step.",
    "ppo/ptx_nats": "Mean cross-entropy per token of the text that is learnt beside the reward (ptx), in nats.",
    "ppo/optimiser_steps": "Optimiser steps of the update; ppo.target_kl ends it early.",
    "ppo/kl_coef": "Reward lost per nat of KL to the reference.",
    "ppo/response_tokens": "Mean length of this step's responses in tokens.",
    "ppo/finished_share": "Share of this step's responses that end by themselves.",
    "ppo/distinct_share": "Different texts over all responses of the step.",
    "ppo/repetition_share": "Share of a response's 4-token runs that occurred before in it, mean over the step.",
    "ppo/holdout_response_tokens": "Mean length of a response to a held-out prompt in tokens.",
    "ppo/holdout_finished_share": "Share of responses to held-out prompts that end by themselves.",
    "ppo/holdout_distinct_share": "Different texts over all responses to the held-out prompts.",
    "ppo/holdout_repetition_share": "Share of a response's 4-token runs that occurred before in it, held-out prompts.",
    "ppo/tokens_per_second": "Response tokens sampled and trained on per second.",
    "kl/ref_nats_per_response": "KL of the policy to the reference model on this step's responses, in nats each.",
    "kl/holdout_ref_nats_per_response": "The same on responses to held-out prompts.",
    # dpo
    "dpo/loss": "Mean loss of the training pairs since the last line, nll_coef x the chosen answers' nats included.",
    "dpo/accuracy_share": "Share of training pairs whose chosen answer gained more on the start model.",
    "dpo/margin_mean": "Mean implicit reward of the chosen answer minus the rejected one's, over training pairs.",
    "dpo/chosen_reward_mean": "Mean of beta x log(policy / start model) of chosen answers; may fall as margins grow.",
    "kto/loss": "Mean loss of the answers of training pairs since the last line.",
    "kto/accuracy_share": "Share of training pairs whose chosen answer gained more on the start model.",
    "kto/margin_mean": "Mean implicit reward of the chosen answer minus the rejected one's, over training pairs.",
    "kto/chosen_reward_mean": "Mean of beta x log(policy / start model) of chosen answers.",
    "kto/kl_nats": "Mean log(policy / start model) of answers to other prompts, at least 0, in nats.",
    # rejection
    "rejection/loss_nats": "Mean cross-entropy per token of the best responses, which are learnt, in nats.",
    # selfinstruct
    "selfinstruct/tasks": "New instructions with solved instances, so far.",
    "selfinstruct/round_kept_share": "Share of a round's written instructions that were kept.",
}

_OF_GROUPS: Final = {
    "flat_groups_share": "Share of prompts whose responses all scored the same: no response leads there.",
    "best_score_mean": "Mean over prompts of the best response's score, missing-end penalty included.",
}
WATCHED: Final = ("dpo", "kto")  # stages that answer held-out prompts as PPO does
REWARDED: Final = (
    "grpo",
    "rloo",
    "rejection",
)  # stages that sample and are rewarded as PPO's policy, and have no critic
METRICS: Final[dict[str, str]] = (
    _METRICS
    | {
        f"{area}/{key.removeprefix('ppo/')}": meaning
        for areas, prefix in ((WATCHED, "ppo/holdout_"), (REWARDED, "ppo/"))
        for area in areas
        for key, meaning in _METRICS.items()
        if key.startswith(prefix) and "value" not in key and "explained" not in key
    }
    | {f"{area}/{name}": meaning for area in REWARDED for name, meaning in _OF_GROUPS.items()}
)

RESULTS: Final[dict[str, str]] = {  # the report shows them in this order, FIRST before the others
    "exact_match_share": "Share of questions answered with exactly a right answer.",
    "answer_nats": "-log probability that the answer is, word for word, an accepted one, in nats, mean over the rows.",
    "few_shot_exact_match_share": "Exact match with the best few-shot prompt: what is known before tuning.",
    "gold_reward": "Mean true reward of sampled responses.",
    "best_step": "Step after which the policy was the one that is kept (ppo.keep_best).",
    "gold_reward_greedy": "Mean true reward of the most likely responses.",
    "gold_gain": "Gold reward minus the reference model's on the same prompts, with its 95 % interval.",
    "chosen_gold_reward": "Mean true reward of the response that the learned reward likes best of n.",
    "chosen_proxy_reward": "Mean learned reward of the best of n responses.",
    "chosen_kl_nats": "KL of best-of-n to the model it chooses from, log n - (n - 1) / n, in nats per response.",
    "gap_closed_share": "Share of the way from the reference to its own best-of-n by gold reward.",
    "proxy_reward": "Mean score of the learned reward on sampled responses, normalised.",
    "proxy_gain": "Learned reward minus the reference model's on the same prompts, with its 95 % interval.",
    "bits_per_byte": "Bits needed per byte of held-out text, or of all texts that were measured.",
    "text_bits_per_byte": "Bits per byte of one text: this share of the texts needs fewer.",
    "rows_measured": "Rows whose bits per byte were measured.",
    "texts_measured": "Different texts of those rows.",
    "accuracy_share": "Share of held-out pairs whose better answer scores higher; ties count half.",
    "likelihood_accuracy_share": "The same, judged by the model's own log-probability of the answers.",
    "own_samples_accuracy_share": "The reward model's accuracy on pairs of the reference's own samples.",
    "own_samples_likelihood_share": "The reference's own log-probability as the judge of those pairs.",
    "own_samples_gain_share": "The reward model's accuracy there minus the log-probability's.",
    "calibration_error_share": "Mean gap between the predicted and the real share of wins.",
    "kl_nats_per_response": "KL to the reference model, in nats per response.",
    "response_tokens": "Mean length of a response in tokens.",
    "finished_share": "Share of responses that end by themselves.",
    "repetition_share": "Share of a response's 4-token runs that occurred before in it.",
    "distinct_share": "Different texts over all responses.",
    "unknown_share": 'Share of answerable prompts answered with "I do not know".',
    "refusal_share": "Share of answerable prompts that are refused.",
    "abstained_answerable_share": "Unknown and refusal together: answerable prompts left without an answer.",
    "reward_mean": "Mean raw reward on the normalisation prompts.",
    "reward_std": "Standard deviation of the raw reward on the normalisation prompts.",
    "holdout_loss_nats": "Mean cross-entropy per supervised token of held-out rows, in nats.",
    "base_holdout_loss_nats": "The same loss of the model that training started from.",
    "parameters": "Weights of the model.",
    "tokens": "Tokens trained on.",
    "padding_share": "Share of padding in the training batches.",
    "curriculum_blocks": "Blocks that came once, in the first part of the training alone.",
    "curriculum_left_out_blocks": "Blocks of the curriculum that found no slot there.",
    "pairs": "Pairs measured.",
    "rows": "Rows written: solved instances of new instructions.",
    "classifications": "New instructions that the model takes for classifications.",
    "instructions_read": "Instructions that the model wrote, dropped ones and unreadable lists included.",
    "instances_read": "Instances that the model wrote.",
    "instructions_dropped": "Instructions that were dropped, by reason.",
    "instances_dropped": "Instances that were dropped, by reason.",
}

# What a user of RLHF looks for, in this order: tables show it first, the rest of RESULTS behind it.
FIRST: Final = (
    "exact_match_share",
    "accuracy_share",
    "own_samples_accuracy_share",
    "gold_reward",
    "gold_gain",
    "gap_closed_share",
    "proxy_reward",
    "proxy_gain",
    "kl_nats_per_response",
    "abstained_answerable_share",
    "gold_reward_greedy",
    "response_tokens",
    "bits_per_byte",
)

BETTER: Final[dict[str, Literal["higher", "lower"]]] = {
    "loss_nats": "lower",
    "bits_per_byte": "lower",
    "calibration_error_share": "lower",
    "padding_share": "lower",
    "repetition_share": "lower",
    "unknown_share": "lower",
    "refusal_share": "lower",
    "abstained_answerable_share": "lower",
    "exact_match_share": "higher",
    "answer_nats": "lower",
    "few_shot_exact_match_share": "higher",
    "accuracy_share": "higher",
    "gold_reward": "higher",
    "gold_reward_greedy": "higher",
    "gold_gain": "higher",
    "proxy_gain": "higher",
    "likelihood_accuracy_share": "higher",
    "own_samples_accuracy_share": "higher",
    "own_samples_gain_share": "higher",
    "chosen_gold_reward": "higher",
    "chosen_proxy_reward": "higher",
    "gap_closed_share": "higher",
    "proxy_reward": "higher",
    "holdout_proxy_reward": "higher",
    "holdout_gold_reward": "higher",
    "holdout_finished_share": "higher",
    "holdout_distinct_share": "higher",
    "holdout_repetition_share": "lower",
    "finished_share": "higher",
    "distinct_share": "higher",
}
