"""Sampling and log-probabilities against plain full forward passes, generate(), and the exact distribution."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from aligner.errors import ModelError
from aligner.models.adapters import attach_lora
from aligner.models.fast import hasten
from aligner.models.heads import ValueHead
from aligner.models.padding import left_padded
from aligner.models.sample import Responses, choose_tokens, response_logprobs, sample_responses
from aligner.recipe.model import LoraSpec
from tests.models.test_adapters import stirred
from tests.tiny import tiny_model

ARCHITECTURES = ("llama", "gpt_neox", "qwen3")
EOS, PAD = 2, 0


def make_prompts(count: int, *, seed: int = 0, shortest: int = 3, longest: int = 20) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest, (count,), generator=generator).tolist()
    return [torch.randint(6, 384, (length,), generator=generator).tolist() for length in lengths]


def sampled(model: nn.Module, prompts: list[list[int]], *, seed: int = 3, **changes: object) -> Responses:
    arguments = {
        "max_new_tokens": 12,
        "temperature": 0.7,
        "eos_id": EOS,
        "pad_id": PAD,
        "batch_size": 8,
    } | changes
    return sample_responses(model, prompts, generator=torch.Generator().manual_seed(seed), **arguments)


def ending_model(architecture: str = "llama") -> nn.Module:
    """A model that likes to end: its rows finish at different steps."""
    model = tiny_model(architecture=architecture, tie_embeddings=False)
    with torch.no_grad():
        weight = model.get_output_embeddings().weight
        weight[EOS] = (
            weight.std() * 8 * torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(5))
        )
    return model


@torch.no_grad()
def alone(model: nn.Module, prompt: list[int], answer: list[int], temperature: float) -> Tensor:
    """The oracle: one row, no padding, no cache."""
    logits = model(torch.tensor([[*prompt, *answer]])).logits[0].double() / temperature
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return rows[torch.arange(len(answer)), torch.tensor(answer)].float()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logprobs_are_those_of_a_full_forward_of_each_row_alone(architecture: str):
    model, prompts = ending_model(architecture), make_prompts(30)
    drawn = sampled(model, prompts)
    again = response_logprobs(model, prompts, drawn.ids_BR, drawn.mask_BR, temperature=0.7, pad_id=PAD)
    lengths = drawn.mask_BR.sum(1)
    assert lengths.min() < 4 and lengths.max() > 7  # rows left early, others stayed to the end
    for row, prompt in enumerate(prompts):
        answer = drawn.ids_BR[row, : lengths[row]].tolist()
        want = alone(model, prompt, answer, 0.7)
        torch.testing.assert_close(drawn.logprobs_BR[row, : lengths[row]], want, atol=1e-5, rtol=0)
        torch.testing.assert_close(again.logprobs_BR[row, : lengths[row]].detach(), want, atol=1e-5, rtol=0)
    assert (drawn.logprobs_BR[~drawn.mask_BR] == 0).all() and (again.logprobs_BR[~drawn.mask_BR] == 0).all()


def test_positions_count_from_each_rows_first_real_token():
    """Learnt absolute positions (GPT-2) show it; rotary ones would hide a row shifted as a whole."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 384,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "initializer_range": 0.2,
    }
    model, prompts = GPT2LMHeadModel(GPT2Config(**shape)).eval(), make_prompts(12)
    drawn = sampled(model, prompts, max_new_tokens=4)
    for row, prompt in enumerate(prompts):
        answer = drawn.ids_BR[row][drawn.mask_BR[row]].tolist()
        want = alone(model, prompt, answer, 0.7)
        torch.testing.assert_close(drawn.logprobs_BR[row, : len(answer)], want, atol=2e-5, rtol=0)


def test_a_rows_answer_does_not_depend_on_its_batch_or_on_who_left_it(monkeypatch: pytest.MonkeyPatch):
    model, prompts = ending_model(), make_prompts(30)
    one_batch, small_batches = sampled(model, prompts, batch_size=30), sampled(model, prompts, batch_size=4)
    monkeypatch.setattr("aligner.models.sample.LEAVE_SHARE", 1.0)  # nobody leaves before the last
    kept = sampled(model, prompts, batch_size=30)
    for other in (small_batches, kept):
        assert torch.equal(one_batch.ids_BR, other.ids_BR) and torch.equal(one_batch.mask_BR, other.mask_BR)
        torch.testing.assert_close(one_batch.logprobs_BR, other.logprobs_BR, atol=1e-5, rtol=0)


@pytest.mark.parametrize("autocast", [False, True])
def test_several_rows_of_a_prompt_are_sampled_as_if_each_had_read_it(autocast: bool):
    """The same noise: rows of their own batch, in which no prompt is shared, must answer alike."""
    model, prompts = (
        hasten(stirred(attach_lora(ending_model(), LoraSpec(rank=2), "CAUSAL_LM"))),
        make_prompts(4),
    )
    repeated = [prompt for prompt in prompts for _ in range(5)]
    shared = sampled(model, repeated, batch_size=20, autocast=autocast)
    single = sampled(model, repeated, batch_size=1, autocast=autocast)
    assert not torch.equal(shared.ids_BR[0], shared.ids_BR[1])
    if not autocast:
        assert torch.equal(shared.ids_BR, single.ids_BR) and torch.equal(shared.mask_BR, single.mask_BR)
        torch.testing.assert_close(shared.logprobs_BR, single.logprobs_BR, atol=1e-5, rtol=0)
    else:
        assert (shared.ids_BR[:, 0] == single.ids_BR[:, 0]).float().mean() > 0.8


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("lora", [True, False])
def test_a_fast_model_records_the_logprobs_of_a_full_forward(lora: bool, temperature: float):
    """The oracle is the plain model: PEFT's own layers, one row at a time."""
    plain = stirred(attach_lora(ending_model(), LoraSpec(rank=2), "CAUSAL_LM")) if lora else ending_model()
    plain, prompts = plain.eval(), make_prompts(12)
    fast = hasten(copy.deepcopy(plain))
    drawn = sampled(fast, prompts, temperature=temperature)
    again = response_logprobs(fast, prompts, drawn.ids_BR, drawn.mask_BR, temperature=temperature, pad_id=PAD)
    for row, prompt in enumerate(prompts):
        answer = drawn.ids_BR[row][drawn.mask_BR[row]].tolist()
        want = alone(plain, prompt, answer, temperature)
        for got in (drawn.logprobs_BR, again.logprobs_BR.detach()):
            torch.testing.assert_close(got[row, : len(answer)], want, atol=1e-5 / min(temperature, 1), rtol=0)


def test_values_read_the_hidden_state_of_a_full_forward():
    model, prompts = ending_model(), [*make_prompts(20), *make_prompts(5)]
    value_head = ValueHead(model.config.hidden_size)
    torch.nn.init.normal_(value_head.linear.weight, generator=torch.Generator().manual_seed(0))
    drawn = sampled(model, prompts, value_head=value_head)
    again = response_logprobs(
        model, prompts, drawn.ids_BR, drawn.mask_BR, temperature=0.7, pad_id=PAD, value_head=value_head
    )
    assert again.values_BR is not None
    want = again.values_BR.detach()
    assert want.abs().max() > 1
    torch.testing.assert_close(drawn.values_BR, want, atol=5e-5, rtol=0)
    assert sampled(model, prompts).values_BR is None


def test_padding_content_does_not_matter():
    model, prompts = ending_model(), make_prompts(12)
    with_pad, with_word = sampled(model, prompts), sampled(model, prompts, pad_id=77)
    assert torch.equal(with_pad.mask_BR, with_word.mask_BR)
    assert torch.equal(with_pad.ids_BR[with_pad.mask_BR], with_word.ids_BR[with_word.mask_BR])
    assert (with_word.ids_BR[~with_word.mask_BR] == 77).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_is_generate_without_sampling(architecture: str):
    model, prompts = ending_model(architecture), make_prompts(10)
    got = sampled(model, prompts, greedy=True)
    ids, mask = left_padded(prompts, pad_id=PAD, device=torch.device("cpu"))
    want = model.generate(
        input_ids=ids,
        attention_mask=mask.long(),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )[:, ids.shape[1] :]
    assert torch.equal(got.ids_BR, want)


def test_the_first_token_follows_the_softmax():
    model = tiny_model()
    prompt = make_prompts(1)[0]
    draws = 20_000
    with torch.no_grad():
        probabilities = (model(torch.tensor([prompt])).logits[0, -1].double() / 0.3).softmax(-1)
    logits = model(torch.tensor([prompt])).logits[0, -1].detach().expand(draws, -1)
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(1))
    ids, _ = choose_tokens(logits, uniform, temperature=0.3)
    counts = torch.bincount(ids, minlength=len(probabilities)).double()
    common = probabilities * draws >= 5
    expected = torch.cat([probabilities[common], probabilities[~common].sum()[None]]) * draws
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    freedom = len(expected) - 1
    assert freedom > 30
    assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_sampled_rows_of_one_prompt_differ_and_match_the_softmax_too():
    model, prompt = tiny_model(), make_prompts(1)[0]
    drawn = sampled(model, [prompt] * 512, max_new_tokens=1, temperature=0.2, batch_size=200)
    with torch.no_grad():
        probabilities = (model(torch.tensor([prompt])).logits[0, -1] / 0.2).softmax(-1)
    likeliest = probabilities.argmax()
    share, p = (drawn.ids_BR[:, 0] == likeliest).double().mean().item(), probabilities[likeliest].item()
    assert 0.02 < p < 0.98
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 512)


def test_choice_by_hand():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(4, 3)
    ids, logprobs = choose_tokens(logits, torch.tensor([0.0, 0.19, 0.65, 0.71]), temperature=1.0)
    assert ids.tolist() == [0, 0, 1, 2]
    torch.testing.assert_close(logprobs.exp(), torch.tensor([0.2, 0.2, 0.5, 0.3]))
    impossible = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    for uniform in (0.0, 1 - 2**-24):
        assert choose_tokens(impossible, torch.tensor([uniform]), temperature=1.0)[0].item() == 1


def test_rows_end_with_eos_or_at_the_limit():
    drawn = sampled(ending_model(), make_prompts(40), max_new_tokens=9)
    for ids, mask, finished in zip(drawn.ids_BR, drawn.mask_BR, drawn.finished_B, strict=True):
        answer = ids[mask].tolist()
        assert mask[: len(answer)].all() and (ids[~mask] == PAD).all()
        assert EOS not in answer[:-1]
        assert finished == (answer[-1] == EOS) and (finished or len(answer) == 9)
    assert drawn.finished_B.any() and not drawn.finished_B.all()


def test_finished_rows_leave_the_batch():
    model, sizes = ending_model(), []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    drawn = sampled(model, make_prompts(32), batch_size=32)
    handle.remove()
    assert sizes[0] == 32 and sizes == sorted(sizes, reverse=True)
    for step, size in enumerate(sizes):  # at most a quarter of a batch waits
        assert drawn.mask_BR[:, step].sum() > 0.75 * size - 1e-9 or step == 0


def test_the_models_generation_config_changes_nothing():
    model, prompts = ending_model(), make_prompts(8)
    before = sampled(model, prompts)
    model.generation_config.update(
        temperature=0.01, top_k=1, eos_token_id=9, repetition_penalty=9.0, max_new_tokens=1
    )
    after = sampled(model, prompts)
    assert torch.equal(before.ids_BR, after.ids_BR) and torch.equal(before.logprobs_BR, after.logprobs_BR)


def test_dropout_is_off_while_sampling_and_the_mode_comes_back():
    model = stirred(attach_lora(ending_model(), LoraSpec(rank=2, dropout=0.9), "CAUSAL_LM"))
    prompts = make_prompts(8)
    model.train()
    first, second = sampled(model, prompts), sampled(model, prompts)
    assert model.training and model.get_base_model().model.layers[0].training
    assert torch.equal(first.logprobs_BR, second.logprobs_BR)
    model.eval()
    again = response_logprobs(model, prompts, first.ids_BR, first.mask_BR, temperature=0.7, pad_id=PAD)
    torch.testing.assert_close(again.logprobs_BR.detach(), first.logprobs_BR, atol=1e-5, rtol=0)


def test_gradients_entropy_and_values_are_those_of_the_definition():
    model, prompts = ending_model(), make_prompts(5)
    value_head = ValueHead(model.config.hidden_size)
    torch.nn.init.normal_(value_head.linear.weight, generator=torch.Generator().manual_seed(0))
    drawn = sampled(model, prompts)
    got = response_logprobs(
        model, prompts, drawn.ids_BR, drawn.mask_BR, temperature=0.7, pad_id=PAD, value_head=value_head
    )
    assert got.values_BR is not None
    (got.logprobs_BR.sum() + got.values_BR.sum()).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for row, prompt in enumerate(prompts):
        answer = drawn.ids_BR[row][drawn.mask_BR[row]].tolist()
        output = model(torch.tensor([[*prompt, *answer]]), output_hidden_states=True)
        span = slice(len(prompt) - 1, len(prompt) - 1 + len(answer))
        rows = (output.logits[0, span] / 0.7).log_softmax(-1)
        values = value_head(output.hidden_states[-1][0, span])
        (rows[torch.arange(len(answer)), torch.tensor(answer)].sum() + values.sum()).backward()
        entropy = torch.distributions.Categorical(logits=rows).entropy()
        torch.testing.assert_close(got.entropy_BR[row, : len(answer)], entropy, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.values_BR[row, : len(answer)], values, atol=5e-5, rtol=0)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=2e-4, rtol=1e-4)
    assert (got.values_BR[~drawn.mask_BR] == 0).all()


def test_the_head_is_computed_at_response_positions_only():
    model, prompts, seen = ending_model(), make_prompts(6), []
    drawn = sampled(model, prompts)
    handle = model.get_output_embeddings().register_forward_hook(
        lambda _, __, out: seen.append(out.shape[:-1].numel())
    )
    response_logprobs(model, prompts, drawn.ids_BR, drawn.mask_BR, temperature=1.0, pad_id=PAD)
    handle.remove()
    assert seen == [int(drawn.mask_BR.sum())]


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_wide_vocabulary_is_read_in_parts(monkeypatch: pytest.MonkeyPatch, softcap: float | None):
    """The same numbers and gradients with few rows of logits at once; a model that caps its logits is read whole."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 384, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16,
        "num_key_value_heads": 1, "intermediate_size": 48, "max_position_embeddings": 64, "sliding_window": 64,
        "final_logit_softcapping": softcap, "initializer_range": 0.3,
    }  # fmt: skip
    model, prompts = Gemma2ForCausalLM(Gemma2Config(**shape)).eval(), make_prompts(6)
    answers = torch.randint(6, 384, (6, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(7) < torch.tensor([7, 3, 1, 6, 7, 2])[:, None]
    value_head, found, calls = ValueHead(32), [], []
    handle = model.lm_head.register_forward_hook(lambda _, __, out: calls.append(out.shape[:-1].numel()))
    for most in (1 << 28, 384 * 5):
        monkeypatch.setattr("aligner.models.logprobs.MOST_LOGITS", most)
        calls.clear()
        got = response_logprobs(
            model,
            prompts,
            answers,
            mask,
            temperature=0.7,
            pad_id=PAD,
            value_head=value_head,
            entropy_gradient=True,
        )
        (got.logprobs_BR.sum() + got.entropy_BR.sum()).backward()
        found.append((*got, *(weight.grad.clone() for weight in model.parameters())))
        model.zero_grad()
    handle.remove()
    assert max(calls) == (5 if softcap is None else 26)
    for want, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, want, atol=1e-4, rtol=1e-4)


def test_too_long_a_row_is_refused_with_what_would_fit():
    with pytest.raises(ModelError, match=r"exceed the model's context of 512\n.*use at most 12 new tokens"):
        sampled(tiny_model(), [[5] * 500], max_new_tokens=13)


def test_no_prompts_give_no_answers_and_bf16_stays_close():
    empty = sampled(tiny_model(), [])
    assert empty.ids_BR.shape == (0, 0) and empty.finished_B.shape == (0,)
    prompts = make_prompts(4)
    exact, rough = (
        sampled(tiny_model(), prompts, max_new_tokens=1),
        sampled(tiny_model(), prompts, max_new_tokens=1, autocast=True),
    )
    assert rough.logprobs_BR.dtype == torch.float32
    same = exact.ids_BR == rough.ids_BR
    assert (exact.logprobs_BR - rough.logprobs_BR)[same].abs().max() < 0.1
