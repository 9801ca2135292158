"""Thirty and more ways in which a model's folder or GGUF file is damaged."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

Q = "model.layers.1.self_attn.q_proj.weight"
INDEX = "model.safetensors.index.json"


def _file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = _first(folder, name)
        path.write_bytes(change(path.read_bytes()))

    return damage


def _first(folder: Path, name: str) -> Path:
    return folder if folder.is_file() else sorted(folder.glob(name))[0]


def _tensors(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for path in folder.glob("*.safetensors"):
            tensors = load_file(path)
            if Q in tensors:
                change(tensors)
                save_file(tensors, path)

    return damage


def _json(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return damage


def _header(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes a safetensors header and its length, the data as they were."""

    def changed(raw: bytes) -> bytes:
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + raw[8 + length :]

    return _file("*.safetensors", changed)


def _tensor_of(header: dict) -> dict:
    return next(value for name, value in header.items() if name != "__metadata__")


def _places(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return _json(INDEX, lambda index: change(index["weight_map"]))


def _two_of_one(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    save_file(load_file(first) | load_file(second), second)


def _outside(folder: Path) -> None:
    """Names a file that lies beside the folder, and is there."""
    name = sorted(folder.glob("*.safetensors"))[0].name
    shutil.move(folder / name, folder.parent / name)
    _places(lambda p: p.update({k: f"../{name}" for k in p if p[k] == name}))(folder)


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda raw: raw[: int(share * len(raw))]


def _spliced(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + value + raw[at + len(value) :]


def _float_nan(raw: bytes) -> bytes:
    return raw.replace(b'"data_offsets":[', b'"data_offsets":[NaN,', 1)


SAFETENSORS: dict[str, Callable[[Path], None]] = {
    "a file is empty": _file("*.safetensors", lambda raw: b""),
    "a file ends in its header": _file("*.safetensors", _cut(0.01)),
    "a file ends in its data": _file("*.safetensors", _cut(0.9)),
    "a file lacks its last byte": _file("*.safetensors", lambda raw: raw[:-1]),
    "a file is noise": _file("*.safetensors", lambda raw: os.urandom(len(raw))),
    "a header of 2^63 bytes": _file(
        "*.safetensors", _spliced(0, struct.pack("<Q", 2**63))
    ),
    "a header longer than the file": _file(
        "*.safetensors", _spliced(0, struct.pack("<Q", 10**7))
    ),
    "a header that ends early": _file(
        "*.safetensors", _spliced(0, struct.pack("<Q", 12))
    ),
    "offsets that are NaN": _file("*.safetensors", _float_nan),
    "offsets below 0": _header(
        lambda h: _tensor_of(h).update({"data_offsets": [-8, 0]})
    ),
    "offsets beyond the file": _header(
        lambda h: _tensor_of(h).update({"data_offsets": [0, 2**62]})
    ),
    "a shape whose product overflows": _header(
        lambda h: _tensor_of(h).update({"shape": [2**33, 2**33]})
    ),
    "a dtype that there is not": _header(lambda h: _tensor_of(h).update(dtype="F33")),
    "another dtype of the same size": _header(
        lambda h: [v.update(dtype="I32") for k, v in h.items() if k[0] != "_"]
    ),
    "a tensor is missing": _tensors(lambda t: t.pop(Q)),
    "a tensor of another shape": _tensors(lambda t: t.update({Q: t[Q][:-1]})),
    "a tensor of whole numbers": _tensors(lambda t: t.update({Q: t[Q].astype(int)})),
    "a tensor too many": _tensors(lambda t: t.update({f"{Q}.lora": np.ones(3)})),
    "a tensor in two files": _two_of_one,
    "the index lacks an entry": _places(lambda p: p.pop(Q)),
    "the index names a tensor too many": _places(
        lambda p: p.update({"extra": next(iter(p.values()))})
    ),
    "the index names a file that is gone": _places(lambda p: p.update({Q: "gone"})),
    "the index leads out of the folder": _outside,
    "the index leads to the root": _places(lambda p: p.update({Q: "/etc/passwd"})),
    "the index names the folder": _places(lambda p: p.update({Q: "."})),
    "the index is a list": _file(INDEX, lambda raw: b"[1]"),
    "the index is cut": _file(INDEX, _cut(0.5)),
    "the index is nested without end": _file(INDEX, lambda raw: b"[" * 200_000),
    "the config is empty": _file("config.json", lambda raw: b""),
    "the config is no UTF-8": _file("config.json", lambda raw: b"\xff\xfe" + raw),
    "the config is nested without end": _file(
        "config.json", lambda raw: b'{"a":' * 200_000
    ),
    "an attribute is unknown": _json("config.json", lambda c: c.update(moe=4)),
    "a size is absurd": _json("config.json", lambda c: c.update(vocab_size=2**31 - 1)),
    "a count is absurd": _json(
        "config.json", lambda c: c.update(num_hidden_layers=2**31 - 1)
    ),
    "the tokenizer is cut": _file("tokenizer.json", _cut(0.5)),
    "the tokenizer is gone": lambda folder: [
        path.unlink() for path in folder.glob("tokenizer*")
    ],
    "the generation config is a list": lambda folder: (
        folder / "generation_config.json"
    ).write_text("[1]"),
    "the weights are pickles": lambda folder: [
        path.rename(path.with_suffix(".bin")) for path in folder.glob("*.safetensors")
    ],
}

ORBAX: dict[str, Callable[[Path], None]] = {
    "the metadata are gone": lambda f: (f / "orbax/_METADATA").unlink(),
    "the metadata are cut": _file("orbax/_METADATA", _cut(0.5)),
    "the manifest is noise": _file(
        "orbax/manifest.ocdbt", lambda raw: os.urandom(len(raw))
    ),
    "the data are gone": lambda folder: [
        shutil.rmtree(path) for path in folder.glob("orbax/ocdbt.*")
    ],
    "the folder is empty": lambda folder: [
        shutil.rmtree(folder / "orbax"),
        (folder / "orbax").mkdir(),
    ],
}

GGUF: dict[str, Callable[[Path], None]] = {
    "the file is empty": _file("", lambda raw: b""),
    "the file is another's": _file("", _spliced(0, b"GGML")),
    "the version is 99": _file("", _spliced(4, struct.pack("<I", 99))),
    "2^62 tensors": _file("", _spliced(8, struct.pack("<Q", 2**62))),
    "2^62 pairs": _file("", _spliced(16, struct.pack("<Q", 2**62))),
    "a key of 2^63 bytes": _file("", _spliced(24, struct.pack("<Q", 2**63))),
    "one tensor less is counted": _file(
        "", lambda raw: _spliced(8, struct.pack("<Q", raw[8] - 1))(raw)
    ),
    "the file ends in its metadata": _file("", _cut(0.05)),
    "the file ends in its data": _file("", _cut(0.9)),
    "the file is noise": _file("", lambda raw: os.urandom(len(raw))),
    "another architecture": _file("", lambda raw: raw.replace(b"llama", b"lemma")),
    "a tensor of another name": _file(
        "", lambda raw: raw.replace(b"blk.0.ffn_up", b"blk.0.ffn_xx")
    ),
}
