"""Hub ids: a cache as the hub's client lays it out, and no network."""

import shutil

import pytest
import torch
from formats import DDPM, ddpm, random_state

from conftest import tiny_unet
from deqir.errors import DownloadError, UnsupportedCheckpointError
from deqir.priors import hub, load_prior
from deqir.priors.catalogue import listed_priors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached_repository(cache, hub_id):
    """An empty snapshot of ``hub_id`` in the layout of the hub client's cache."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub client offline, with a cache of its own."""
    from huggingface_hub import constants, file_download

    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(folder), raising=False)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("google/ddpm-celebahq-256", True),
        ("deepinv/diffunet/diffusion_ffhq_10m.pt", True),
        ("owner/name/folder/file.safetensors", True),
        ("owner/name/folder", False),
        ("models/mine.pt", False),
        ("builtin", False),
        ("/absolute/path", False),
        ("../up", False),
        ("~/home", False),
        ("a/b c", False),
        ("file.pt", False),
    ],
)
def test_what_reads_as_a_hub_id(text, expected):
    assert hub.is_hub_id(text) == expected


def test_a_cached_model_loads_offline(cache, prior_folder):
    shutil.copytree(prior_folder, cached_repository(cache, "someone/tiny-model"), dirs_exist_ok=True)
    cached_repository(cache, "someone/half-a-model").joinpath("config.json").write_text("{}")
    prior = load_prior("someone/tiny-model")
    assert (prior.name, prior.channels) == ("someone/tiny-model", 3)
    assert [prior.source for prior, state in listed_priors() if state == "here"] == ["builtin", "someone/tiny-model"]
    with pytest.raises(UnsupportedCheckpointError, match="has no"):
        load_prior("someone/half-a-model")


def flipped(data):
    """``data`` with the bits of its first bytes, the length of a safetensors header, changed."""
    return bytes(byte ^ 0xFF for byte in data[:8]) + data[8:]


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda data: data[: len(data) // 2], lambda data: data[:20], lambda data: b""],
    ids=["flipped", "half", "header cut off", "empty"],
)
@pytest.mark.parametrize("linked", [False, True])
def test_a_damaged_cache_entry_is_one_sentence(cache, prior_folder, damage, linked):
    snapshot = cached_repository(cache, "someone/damaged")
    shutil.copytree(prior_folder, snapshot, dirs_exist_ok=True)
    weights = snapshot / "diffusion_pytorch_model.safetensors"
    data = damage(weights.read_bytes())
    if linked:  # as the hub's client does: the file lies among the blobs
        weights.unlink()
        blob = snapshot.parents[1] / "blobs" / COMMIT
        blob.parent.mkdir()
        weights.symlink_to(blob)
        weights = blob
    weights.write_bytes(data)
    with pytest.raises(UnsupportedCheckpointError, match="safetensors") as caught:
        load_prior("someone/damaged")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hub_id", ["google/ddpm-cifar10-32", "deepinv/diffunet/diffusion_ffhq_10m.pt"])
def test_offline_without_a_cache_is_one_sentence(cache, hub_id):
    with pytest.raises(DownloadError, match=f"prior {hub_id} is no file or folder here") as caught:
        load_prior(hub_id)
    assert "not in the cache and the hub cannot be reached: go online (unset HF_HUB_OFFLINE)" in str(caught.value)
    assert "\n" not in str(caught.value)


def answers(folder):
    """A hub client that finds everything in ``folder`` and notes what it was asked for."""
    asked = []

    def snapshot_download(hub_id, allow_patterns):
        asked.append(allow_patterns[-2])
        return str(folder)

    return asked, snapshot_download


def test_safetensors_are_asked_for_before_pickles(tmp_path, prior_folder, monkeypatch):
    import huggingface_hub

    asked, download = answers(prior_folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_prior("someone/model").name == "someone/model"
    assert asked == ["diffusion_pytorch_model.safetensors"]
    tiny_unet().save_pretrained(tmp_path / "old")
    shutil.copy(prior_folder / "scheduler_config.json", tmp_path / "old")
    (tmp_path / "old" / "diffusion_pytorch_model.safetensors").unlink()
    asked, download = answers(tmp_path / "old")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UnsupportedCheckpointError, match="has no weights"):
        load_prior("someone/old")
    assert asked == ["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"]


def test_a_checkpoint_file_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    torch.save(dict(random_state(ddpm, DDPM())), tmp_path / "model.ckpt")
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *path: asked.append(path) or str(tmp_path / "model.ckpt")
    )
    assert load_prior("someone/model/weights/model.ckpt").channels == 3
    assert asked == [("someone/model", "weights/model.ckpt")]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("RepositoryNotFoundError", "no such repository"),
        ("GatedRepoError", "accept its terms"),
        ("EntryNotFoundError", "no such file"),
    ],
)
def test_refusals_of_the_hub_are_one_sentence(monkeypatch, name, sentence):
    import huggingface_hub
    from huggingface_hub import errors

    refusal = getattr(errors, name).__new__(getattr(errors, name))

    def refuse(*arguments, **options):
        raise refusal

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(DownloadError, match=sentence):
        load_prior("someone/model")


def test_a_lost_connection_is_one_sentence(monkeypatch):
    import huggingface_hub

    def lose(*arguments, **options):
        raise ConnectionError("the line\nwent dead")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lose)
    with pytest.raises(DownloadError, match=r"could not be fetched; the line$"):
        load_prior("someone/model")


def test_the_catalogue_names_what_load_prior_takes(cache):
    listed = dict(listed_priors())
    assert {prior.source for prior, state in listed.items() if state == "here"} == {"builtin"}
    on_hub = [prior.source for prior in listed if prior.origin.startswith("huggingface.co")]
    assert len(on_hub) > 10
    assert all(hub.is_hub_id(source) for source in on_hub)
    builtin = next(prior for prior in listed if prior.source == "builtin")
    loaded = load_prior()
    assert builtin.parameters == sum(weight.numel() for weight in loaded.model.parameters())
    assert (builtin.image_size, builtin.file_size) == (loaded.image_size, pytest.approx(12.9e6, rel=0.01))
