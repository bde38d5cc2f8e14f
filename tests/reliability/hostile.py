"""Files of people who mean harm, built here: each would make the canary file if what it holds were run."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from aligner.models.sources import WEIGHTS_INDEX

CANARY = "canary"  # in the working directory of the test
CODE = f"open({CANARY!r}, 'w').close()\n"
TOUCH = f"touch {CANARY}"
Build = Callable[[Path], None]


class Evil:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (TOUCH,)


def pickled(protocol: int) -> bytes:
    return pickle.dumps(Evil(), protocol=protocol)


def torch_file() -> bytes:
    """As torch.save writes it: a zip with a pickle in it."""
    file = io.BytesIO()
    torch.save({"weight": Evil()}, file)
    return file.getvalue()


def instead(name: str, content: Callable[[], bytes]) -> Build:
    """Weights that are a pickle, and no others."""

    def build(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content())

    return build


def beside(files: dict[str, bytes]) -> Build:
    """Files that nobody has asked for, beside good weights."""

    def build(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return build


def settings(name: str, **changes: object) -> Build:
    """Keys in one of the model's settings, and the code they name."""

    def build(folder: Path) -> None:
        (folder / "evil.py").write_text(CODE)
        known = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(known | changes))

    return build


def raw(name: str, content: str) -> Build:
    def build(folder: Path) -> None:
        (folder / name).write_text(content)

    return build


def sharded(*names: str) -> Build:
    """Weights in shards that an index names."""

    def build(folder: Path) -> None:
        keys = [f"model.layers.{number}.weight" for number in range(len(names))]
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        weight_map = dict(zip(keys, names, strict=True))
        (folder / WEIGHTS_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        for name in names:
            (folder / name).resolve().write_bytes(torch_file())

    return build


def polyglot(first: bytes, *, before: bool) -> Build:
    """Good weights with a pickle or an archive before or behind them."""

    def build(folder: Path) -> None:
        good = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(first + good if before else good + first)

    return build


def named_weights(name: str) -> Build:
    """A file of weights that the settings name, beside good ones."""

    def build(folder: Path) -> None:
        (folder / name).write_bytes(torch_file())
        settings("config.json", transformers_weights=name)(folder)

    return build


def template(source: str) -> Build:
    return raw("chat_template.jinja", source)


def deep_json(levels: int) -> str:
    return '{"a": ' * levels + "1" + "}" * levels


BUILTINS = "{{ cycler.__init__.__globals__.os.system('" + TOUCH + "') }}"
SUBCLASSES = "{{ ''.__class__.__mro__[1].__subclasses__()[0]('" + TOUCH + "') }}"
LOOPS = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set a = 'x' %}" + "{% set a = a ~ a %}" * 60

REFUSED_MODELS: dict[str, Build] = {
    **{f"pickle as {name}": instead(name, lambda: pickled(2)) for name in (
        "pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "adapter_model.bin", "model.npy",
        "consolidated.00.pth", "tf_model.h5", "model.onnx", "diffusion_pytorch_model.bin",
    )},
    "pickle as model.safetensors": instead("model.safetensors", lambda: pickled(2)),
    "pickle 5 as model.safetensors": instead("model.safetensors", lambda: pickled(5)),
    "torch's file as model.safetensors": instead("model.safetensors", torch_file),
    "torch's file as pytorch_model.bin": instead("pytorch_model.bin", torch_file),
    "pickle before weights": polyglot(pickled(2), before=True),
    "pickle behind weights": polyglot(pickled(2), before=False),
    "zip behind weights": polyglot(torch_file(), before=False),
    "header longer than the file": instead("model.safetensors", lambda: (2**62).to_bytes(8, "little") + b"{}"),
    "settings name pickled weights": named_weights("weights.bin"),
    "settings name weights elsewhere": settings("config.json", transformers_weights="../../weights.bin"),
    "index names pickled shards": sharded("one.bin", "two.bin"),
    "index names shards elsewhere": sharded("../one.safetensors", "../two.safetensors"),
    "index without a map": raw(WEIGHTS_INDEX, '{"weight_map": "x"}'),
    "auto_map of a family that is not known": settings("config.json", model_type="evil", auto_map={
        "AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}),
    "auto_map within": settings("config.json", text_config={"auto_map": {"AutoModel": "evil.Model"}}),
    "attention from the Hub": settings("config.json", _attn_implementation_internal="evil/kernel"),
    "attention from the Hub, in a list": settings("config.json", parts=[{"attn_implementation": "evil/kernel"}]),
    "experts from the Hub": settings("config.json", experts_implementation="evil/kernel"),
    "trust_remote_code": settings("config.json", trust_remote_code=True),
    "settings that are a list": raw("config.json", "[]"),
    "settings that are a pickle": raw("config.json", f"cposix\nsystem\n(S'{TOUCH}'\ntR."),
    "settings without end": raw("config.json", deep_json(100_000)),
    "template that is a large constant": template("{{ 'A' * 200000000 }}"),
    "template of loops": template(LOOPS),
    "template that doubles": template(DOUBLED),
    "template that calls itself": template("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}"),
    "template that looks for modules": template(BUILTINS),
    "template that looks for classes": template(SUBCLASSES),
    "template of two megabytes": template("x" * 2_000_000),
}  # fmt: skip
OF_WEIGHTS = (
    "pickle as model.safetensors", "pickle 5 as model.safetensors", "torch's file as model.safetensors",
    "pickle before weights", "pickle behind weights", "zip behind weights", "header longer than the file",
)  # fmt: skip
# Good weights: they load, and nothing else is looked at.
HARMLESS_MODELS: dict[str, Build] = {
    "pickles beside good weights": beside({
        "training_args.bin": pickled(2), "optimizer.pt": torch_file(), "rng_state.pth": torch_file(),
        "scheduler.pt": torch_file(), "pytorch_model.bin": torch_file(), "trainer_state.pkl": pickled(4),
    }),
    "code beside good weights": beside({name: CODE.encode() for name in (
        "modeling_llama.py", "configuration_llama.py", "tokenization_llama.py", "__init__.py", "setup.py",
        "sitecustomize.py", "conftest.py", "torch.py", "custom_generate/generate.py", "handler.py",
    )}),
    "auto_map of a family that is known": settings("config.json", auto_map={"AutoModelForCausalLM": "evil.Model"}),
    "code of a tokenizer": settings("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Slow", "evil.Fast"]}),
}  # fmt: skip

REFUSED_ADAPTERS: dict[str, Build] = {
    "pickled adapter": beside({"adapter_model.bin": torch_file()}),
    "adapter over a module": settings("adapter_config.json", megatron_config={"a": 1}, megatron_core="evil"),
    "adapter of a class": settings("adapter_config.json", auto_mapping={
        "base_model_class": "system", "parent_library": "os"}),
    "adapter over nothing": settings("adapter_config.json", base_model_name_or_path="/etc"),
    "adapter over a file": settings("adapter_config.json", base_model_name_or_path="/etc/passwd"),
    "adapter of settings that are a list": raw("adapter_config.json", "[1]"),
}  # fmt: skip

GOOD_RECIPE = "stage: sft\noutput: runs/x\nmodel: {base: you/base}\ntrain: {steps: 1}\ndata: {train: [{path: rows.jsonl}]}\n"
REFUSED_RECIPES: dict[str, str] = {
    "YAML that calls": f"stage: !!python/object/apply:os.system ['{TOUCH}']\n",
    "YAML that makes": "stage: !!python/object/new:os.system [x]\n",
    "YAML that imports": f"stage: !!python/name:os.system\nx: {TOUCH}\n",
    "a tag of its own": "stage: !evil x\n",
    "a bomb of aliases": "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nstage: sft\n",
    "an anchor in itself": "stage: &a [*a]\n",
    "a merge": "stage: sft\n<<: {output: x}\n",
    "a key that is given twice": "output: safe\n" + GOOD_RECIPE,
    "brackets without end": "stage: " + "[" * 5000 + "]" * 5000 + "\n",
    "two documents": GOOD_RECIPE + "---\n" + GOOD_RECIPE,
    "more than a megabyte": GOOD_RECIPE + "# " + "x" * 1_100_000 + "\n",
    "control characters": GOOD_RECIPE + "seed: \x1b[2J\x00\n",
    "no text": pickled(2).decode("latin-1"),
}


def archive_with(write: Callable[[io.BytesIO], None]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def zip_out(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"../../{CANARY}", "x")
        archive.writestr(CANARY, "x")


def tar_out(file: io.BytesIO) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        link = tarfile.TarInfo("rows.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(f"../../{CANARY}"))


def bomb() -> bytes:
    """Half a gigabyte without a line end in half a megabyte."""
    return gzip.compress(bytes(1 << 26)) * 8


REFUSED_DATA: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zip with a way out": ("rows.zip", lambda: archive_with(zip_out)),
    "zip as rows": ("rows.jsonl", lambda: archive_with(zip_out)),
    "tar with links": ("rows.tar", lambda: archive_with(tar_out)),
    "tar as rows": ("rows.jsonl", lambda: archive_with(tar_out)),
    "packed tar": ("rows.jsonl.gz", lambda: gzip.compress(archive_with(tar_out))),
    "gzip bomb": ("rows.jsonl.gz", bomb),
    "gzip bomb as one object": ("rows.json.gz", bomb),
    "gzip bomb as a table": ("rows.csv.gz", bomb),
    "half a gzip": ("rows.jsonl.gz", lambda: gzip.compress(b"{}\n" * 9999)[:-20]),
    "pickle as rows": ("rows.jsonl", lambda: pickled(2)),
    "pickle as Parquet": ("rows.parquet", lambda: pickled(4)),
    "torch's file as Parquet": ("rows.parquet", torch_file),
    "a list without end": ("rows.json", lambda: b"[" * 100_000),
    "a row without end": ("rows.jsonl", lambda: deep_json(100_000).encode()),
}
REFUSED_TASKS: dict[str, str] = {
    "rows elsewhere": "rows: /etc/passwd\n",
    "rows above": "rows: ../../../rows.jsonl\n",
    "rows by a link": "rows: link.jsonl\n",
    "promptsource that is none": "rows: rows.jsonl\npromptsource: /etc/hostname\n",
    "YAML that calls": f"rows: !!python/object/apply:os.system ['{TOUCH}']\n",
    "template that looks for modules": f'rows: rows.jsonl\ntemplates: [{{name: a, input: "{BUILTINS}", target: x}}]\n',
    "template of loops": f'rows: rows.jsonl\ntemplates: [{{name: a, input: "{LOOPS}", target: x}}]\n',
}
PROMPTS = (
    "<script>document.title='owned'</script>",
    "</pre></td></span></body><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'"',
    "<svg/onload=alert(1)><a href='javascript:alert(1)'>x</a>",
    "{{ 7 * 7 }}{% raw %}</script>{% endraw %}",
    "<!-- --><style>*{display:none}</style><base href=//evil>",
    "&lt;script&gt;alert(1)&lt;/script&gt;&#60;script&#62;",
    "\x1b]0;owned\x07\u202e\x00<iframe srcdoc='<script>1</script>'>",
)
