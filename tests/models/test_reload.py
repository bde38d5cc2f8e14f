"""What a fresh process with plain transformers and PEFT makes of our folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from aligner.models.load import load_model, load_trained, save_model
from aligner.recipe.model import ModelSpec
from tests.models.runs import LORA, SEQUENCES, Runs, logits, save_reward, write_adapter, write_base
from tests.models.test_adapters import IDS, stirred

FRESH = """
import json, sys, torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig
from pathlib import Path
work, found = json.loads(sys.stdin.read()), {}
for name, (folder, kind) in work["cases"].items():
    auto, extra = (AutoModelForCausalLM, {}) if kind == "lm" else (AutoModelForSequenceClassification, {"num_labels": 1})
    if (Path(folder) / "adapter_config.json").exists():
        base = PeftConfig.from_pretrained(folder).base_model_name_or_path
        assert Path(base).is_absolute()
        model = PeftModel.from_pretrained(auto.from_pretrained(base, **extra), folder).eval()
    else:
        model = auto.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template and tokenizer.pad_token_id == 0, name
    with torch.no_grad():
        if kind == "lm":
            assert GenerationConfig.from_pretrained(folder).eos_token_id == tokenizer.eos_token_id
            found[name] = model(torch.tensor(work["ids"])).logits[:, -1, :5].tolist()
        else:
            found[name] = [model(torch.tensor([ids])).logits[0, 0].item() for ids in work["sequences"]]
print(json.dumps(found))
"""


def in_fresh_process(request: dict[str, object]) -> dict[str, list[float]]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_saved_models_give_the_same_numbers_in_a_fresh_process_with_plain_libraries(tmp_path: Path):
    base = write_base(tmp_path / "base")
    runs = Runs(tmp_path, base, write_adapter(tmp_path / "sft", base))
    cases, spec = {}, ModelSpec(base=str(runs.sft), merge=True, lora=LORA)
    merged = load_model(spec)
    stirred(merged.model, seed=2)
    save_model(merged, tmp_path / "merged" / "model", base_folder=tmp_path / "merged" / "base")
    neox = write_adapter(
        tmp_path / "neox", write_base(tmp_path / "neox_base", "gpt_neox", tie_embeddings=False)
    )
    for name, folder in {
        "base": runs.base,
        "sft": runs.sft,
        "merged": tmp_path / "merged",
        "neox": neox,
    }.items():
        cases[name] = (folder, "lm", logits(load_trained(folder))[:, -1, :5].tolist())
    bases = {"head": runs.base, "lora": runs.base, "goes_on": runs.sft, "merge": runs.sft}
    for name, base in bases.items():
        lora = LORA if name in ("lora", "merge") else None
        scores = save_reward(tmp_path / name, ModelSpec(base=str(base), lora=lora, merge=name == "merge"))
        cases[name] = (tmp_path / name, "score", scores.tolist())
    request = {name: [str(folder / "model"), kind] for name, (folder, kind, _) in cases.items()}
    found = in_fresh_process({"cases": request, "ids": IDS.tolist(), "sequences": SEQUENCES})
    for name, (_, _, want) in cases.items():
        torch.testing.assert_close(
            torch.tensor(found[name]), torch.tensor(want), atol=1e-5, rtol=1e-5, msg=name
        )
