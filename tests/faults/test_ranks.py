"""A rank of a distributed run that is killed: the job ends with a sentence, and the same command completes it."""

import json
import signal

import pytest
import torch
from moments import happened

from conftest import sentence
from deqir.images import write_image
from deqir.manifest import read_records
from processes import command, finish, held_command, ranks, wait_for

KILLED = [(shard, victim) for shard in ("files", "timesteps") for victim in (0, 1)]
PHOTOS = 6


def results(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize(("shard", "victim"), KILLED)
def test_a_rank_that_is_killed(prior_folder, tmp_path, capfd, shard, victim):
    photos, out, whole = tmp_path / "in", tmp_path / "out", tmp_path / "whole"
    photos.mkdir()
    for number in range(PHOTOS):
        image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(number))
        write_image(photos / f"{number}.png", image)
    options = ("--solver", "picard", "--tolerance", "0", "--steps", "25", "--together", "1", "--shard", shard)

    def arguments(folder):
        given = ("--task", "sr", "--scale", "2", "--prior", prior_folder, "--out", folder)
        return ("restore", photos, *given, *options)

    share, killed = PHOTOS // 2 if shard == "files" else PHOTOS, tmp_path / "killed"
    both = ranks(held_command, share, killed, *arguments(out))
    wait_for(lambda: results(out))
    both[victim].kill()
    both[victim].join()
    killed.touch()
    codes = finish(*both)
    assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 1)
    happened("rank", shard, victim)
    said = capfd.readouterr().err.replace("deqir: interrupted", "")
    assert f"process {1 - victim} lost another one" in sentence(said)
    assert "start the same command again" in said
    for path in out.glob("manifest*.jsonl"):
        assert all(json.loads(line)["status"] == "converged" for line in path.read_text().splitlines()[:-1])
    before = results(out)
    assert 0 < len(before) < PHOTOS
    assert before.keys() <= read_records(out).keys()
    assert finish(*ranks(command, *arguments(out))) == [0, 0]
    assert f"{PHOTOS - len(before)} of {PHOTOS} restored, 0 failed" in capfd.readouterr().err
    assert finish(*ranks(command, *arguments(whole))) == [0, 0]
    assert results(out) == results(whole)
    assert len(results(out)) == PHOTOS
    assert before.items() <= results(out).items()
