"""Two or three real processes with gloo on the loopback device: shares of files, and of one image's timesteps."""

import signal

import pytest
import torch

from conftest import SmoothDenoiser, sentence
from deqir import Restorer, distributed, operators
from deqir.distributed import Rank, ShardedDenoiser, process_group
from deqir.errors import OptionError, RankError
from deqir.images import write_image
from processes import command, finish, held_command, ranks, start, wait_for

OBSERVATION = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def solved(prior, solver="preconditioned", steps=7, tile=None):
    operator = operators.SuperResolution(2)
    options = {"solver": solver, "tolerance": 0.0, "dtype": "float64", "tile": tile, "max_batch": 64}
    return Restorer(prior, operator, steps=steps, **options).restore(OBSERVATION, seed=5)


def solve_as_rank(folder):
    """What one of the processes does: solve with a shared network, count, and leave what it got."""
    rank, network, gathers = Rank.launched(), SmoothDenoiser(), []
    gather = distributed._all_gather
    distributed._all_gather = lambda *given, **named: gathers.append(1) or gather(*given, **named)
    found = {}
    with process_group(rank, "cpu"):
        for solver, tile in (("serial", None), ("preconditioned", None), ("anderson", None), ("picard", 8)):
            network.calls.clear()
            gathers.clear()
            result = solved(ShardedDenoiser(network), solver, tile=tile)
            counts = (sum(network.calls), len(gathers), result.stats.sweeps, result.stats.nfe)
            found[solver] = (result.image, counts)
    torch.save(found, folder / f"{rank.index}.pt")


@pytest.mark.parametrize("count", [2, 3])
def test_sharing_timesteps_gives_what_one_process_gives(tmp_path, count):
    assert finish(*ranks(solve_as_rank, tmp_path, count=count)) == [0] * count
    every = [torch.load(tmp_path / f"{rank}.pt") for rank in range(count)]
    for solver in ("serial", "preconditioned", "anderson", "picard"):
        tile = 8 if solver == "picard" else None
        alone = solved(SmoothDenoiser(), solver, tile=tile)
        image, (most, gathers, sweeps, nfe) = every[0][solver]
        torch.testing.assert_close(image, alone.image, rtol=0, atol=1e-12)
        assert all(torch.equal(image, found[solver][0]) for found in every)
        assert (sweeps, nfe) == (alone.stats.sweeps, alone.stats.nfe)
        calls, probes = (0, 0) if solver == "serial" else (4, 5)  # is the network deterministic?
        assert gathers == max(sweeps) + calls
        shares = [found[solver][1][0] for found in every]
        assert sum(shares) == sum(nfe) + probes
        assert most == max(shares) and most - min(shares) <= (count - 1) * gathers


def fail_as_rank(folder):
    """The second process's network fails; both say why they end."""

    class Broken(SmoothDenoiser):
        def __call__(self, x, timesteps):
            raise ZeroDivisionError("no such luck")

    rank = Rank.launched()
    with pytest.raises(RankError) as caught, process_group(rank, "cpu"):
        solved(ShardedDenoiser(Broken() if rank.index else SmoothDenoiser()))
    (folder / str(rank.index)).write_text(str(caught.value))


def test_a_failure_in_one_process_ends_all_with_a_sentence(tmp_path):
    assert finish(*ranks(fail_as_rank, tmp_path)) == [0, 0]
    assert (tmp_path / "0").read_text().startswith("process 0 lost another one")
    assert (tmp_path / "1").read_text().startswith("process 1 failed (no such luck); the job ends; start the same")


def test_gradients_are_refused(monkeypatch):
    x = torch.zeros(1, 3, 8, 8, requires_grad=True)
    with pytest.raises(OptionError, match="gradients do not pass"):
        ShardedDenoiser(SmoothDenoiser())(x, torch.zeros(1, dtype=torch.long))


def test_each_local_rank_gets_a_gpu_of_its_own(monkeypatch):
    rank = Rank(index=9, count=16, local=1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert (rank.device(None), rank.device("cuda"), rank.device("cpu")) == ("cuda:1", "cuda:1", "cpu")
    assert Rank().device(None) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert rank.device(None) is None


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        write_image(folder / f"{number}.png", torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(number)))
    (folder / "words.jpg").write_text("not a picture")
    return folder


def arguments(photos, prior_folder, out, *extra):
    steps = () if "--steps" in extra else ("--steps", "4")
    return ("restore", photos, "--task", "sr", "--scale", "2", "--prior", prior_folder, "--out", out, *steps, *extra)


def images(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("shard", ["files", "timesteps"])
def test_two_processes_restore_a_folder_like_one(photos, prior_folder, tmp_path, capfd, shard):
    chosen = ("--solver", "preconditioned", "--tolerance", "0", "--together", "1", "--shard", shard)
    assert finish(start(command, *arguments(photos, prior_folder, tmp_path / "one", *chosen))) == [1]
    capfd.readouterr()
    both = ranks(command, *arguments(photos, prior_folder, tmp_path / "two", *chosen))
    assert finish(*both) == [1, 1]
    captured = capfd.readouterr()
    assert captured.err.count("6 of 7 restored, 1 failed") == 1
    assert sorted(line.split("/")[-1].split(".png")[0] for line in captured.out.splitlines()) == list("012345")
    assert images(tmp_path / "two") == images(tmp_path / "one")
    manifests = {path.name for path in (tmp_path / "two").glob("manifest*")}
    assert manifests == {"manifest.jsonl"} | ({"manifest-1.jsonl"} if shard == "files" else set())
    finish(start(command, *arguments(photos, prior_folder, tmp_path / "two", *chosen)))
    assert "0 of 7 restored, 1 failed, 6 were done before" in capfd.readouterr().err


def test_a_process_that_dies_ends_the_job_which_goes_on_later(photos, prior_folder, tmp_path, capfd):
    out, killed = tmp_path / "out", tmp_path / "killed"
    chosen = ("--shard", "timesteps", "--solver", "picard", "--steps", "20", "--together", "1")
    first, second = ranks(held_command, 6, killed, *arguments(photos, prior_folder, out, *chosen))
    wait_for(lambda: images(out))
    second.kill()
    second.join()
    killed.touch()
    assert finish(first, second) == [1, -signal.SIGKILL]
    assert "process 0 lost another one" in sentence(capfd.readouterr().err.replace("deqir: interrupted", ""))
    before = images(out)
    assert 0 < len(before) < 6
    assert finish(*ranks(command, *arguments(photos, prior_folder, out, *chosen))) == [1, 1]
    assert before.items() <= images(out).items() and len(images(out)) == 6
    assert f"{6 - len(before)} of 7 restored, 1 failed, {len(before)} were done before" in capfd.readouterr().err


def test_options_of_distributed_runs_are_checked(deqir, photos, tmp_path, monkeypatch):
    code, _, err = deqir("restore", photos, "--task", "sr", "--out", tmp_path / "o", "--shard", "pixels")
    assert code == 2 and "shard is 'pixels'; choose one of files, timesteps" in sentence(err)
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = deqir("restore", photos, "--task", "sr", "--out", tmp_path / "o", "--sequence")
    assert code == 2 and "start it without torchrun" in sentence(err)


def test_a_missing_file_is_said_by_one_process_alone(deqir, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        missing = (tmp_path / "missing.png", "--task", "sr", "--dry-run", "--out", tmp_path / "o")
        code, _, err = deqir("restore", *missing)
        assert code == 1 and err.count("missing.png does not exist") == said
