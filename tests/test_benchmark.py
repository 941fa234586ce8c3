"""Benchmarks: what is run, what is counted, and that every figure in a table is one of the runs'."""

import csv
import json
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import sentence
from deqir.benchmark import (
    PRESETS,
    Benchmark,
    Dataset,
    Method,
    plan_from_settings,
    read_plan,
    summarise,
)
from deqir.benchmark.dataset import Preparation, read_list
from deqir.benchmark.journal import Journal
from deqir.benchmark.plans import parse_degradation
from deqir.benchmark.plots import draw_pareto, pareto_front
from deqir.benchmark.scores import Scores, consistency
from deqir.benchmark.tables import Mean, markdown
from deqir.errors import ImageReadError, MissingExtraError, NonFiniteError, OptionError
from deqir.images import read_image, write_image
from deqir.metrics import psnr
from deqir.operators import Colorization, LinearOperator


@pytest.fixture
def data(tmp_path):
    """Three colour images of 16x16, one of them in a subfolder."""
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "more/c.png")):
        pixels = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(number))
        write_image(folder / name, pixels.repeat_interleave(4, 1).repeat_interleave(4, 2))
    return folder


@pytest.fixture
def plan(prior_folder):
    """Two tasks, two solvers and the classical method, two chain lengths."""
    return plan_from_settings(
        {
            "tasks": ["sr:scale=2", "colorize"],
            "methods": ["serial", "picard", "classical"],
            "priors": str(prior_folder),
            "steps": [2, 3],
        }
    )


def test_every_combination_is_run_once_and_counted(data, plan, tmp_path):
    outcome = Benchmark(plan, Dataset(data), tmp_path / "out").run()
    assert outcome.failures == ()
    assert len(outcome.records) == 2 * (2 * 2 + 1)
    assert outcome.fresh == 3 * len(outcome.records) == len((tmp_path / "out" / "runs.jsonl").read_text().splitlines())
    for setup, records in outcome.records.items():
        assert list(records) == ["a.png", "b.png", "more/c.png"]
        for record in records.values():
            if setup.method.is_classical:
                assert (record["sweeps"], record["nfe"]) == (0, 0)
            elif setup.method.solver == "serial":
                assert record["sweeps"] == record["nfe"] == setup.chain.steps
            else:
                assert 1 <= record["sweeps"] <= setup.chain.steps


def test_serial_and_parallel_restore_the_same_image_from_the_noise_of_its_name(data, plan, tmp_path):
    outcome = Benchmark(plan, Dataset(data), tmp_path / "out").run()
    for setup, records in outcome.records.items():
        if setup.method.solver == "picard":
            serial = outcome.records[replace(setup, method=Method("serial"))]
            for name, record in records.items():
                assert record["psnr"] == pytest.approx(serial[name]["psnr"], abs=1e-3)
    alone = Benchmark(plan, Dataset(data, ("more/c.png",)), tmp_path / "alone").run()
    setup = next(iter(outcome.records))
    assert alone.records[setup]["more/c.png"]["psnr"] == outcome.records[setup]["more/c.png"]["psnr"]


def test_the_kept_image_and_the_recorded_figure_agree(data, plan, tmp_path):
    benchmark = Benchmark(plan, Dataset(data), tmp_path / "out")
    outcome = benchmark.run()
    for setup, records in outcome.records.items():
        for name, record in records.items():
            kept = read_image(benchmark.image_path(plan.case(name, setup)))
            assert float(psnr(kept[None], read_image(data / name)[None])[0]) == pytest.approx(record["psnr"], abs=0.1)


def figures(outcome):
    """All records of an outcome but for their times."""
    records = [record for by_image in outcome.records.values() for record in by_image.values()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_an_interrupted_benchmark_goes_on_where_it_was(data, plan, tmp_path):
    out = tmp_path / "out"
    whole = Benchmark(plan, Dataset(data), out).run()
    journal = out / "runs.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:7]) + lines[7][:40])
    again = Benchmark(plan, Dataset(data), out).run()
    assert again.fresh == len(lines) - 7
    strip = [{k: v for k, v in r.items() if k != "seconds"} for rs in whole.records.values() for r in rs.values()]
    assert strip == [
        {k: v for k, v in r.items() if k != "seconds"} for rs in again.records.values() for r in rs.values()
    ]
    assert Benchmark(plan, Dataset(data), out).run().fresh == 0


def test_other_settings_are_other_cases(data, plan):
    setup = next(plan.setups())
    key = plan.case("a.png", setup).key
    chain, task = replace(setup.chain, eta=0.5), replace(setup.degradation, noise=0.1)
    others = [
        plan.case("b.png", setup),
        plan.case("a.png", replace(setup, chain=chain)),
        plan.case("a.png", replace(setup, degradation=task)),
        plan.case("a.png", replace(setup, method=Method("serial", "ddrm"))),
        replace(plan, seed=1).case("a.png", setup),
        replace(plan, preparation=Preparation("crop")).case("a.png", setup),
    ]
    assert len({key, *(case.key for case in others)}) == 7
    assert plan.case("a.png", setup).key == key


def test_a_bad_file_is_named_and_the_rest_finish(data, plan, tmp_path):
    (data / "aa.png").write_bytes(b"")
    (data / "grey.png").write_bytes(b"")
    Image.new("L", (16, 16), 90).save(data / "grey.png")
    outcome = Benchmark(plan, Dataset(data), tmp_path / "out").run()
    assert len([failure for failure in outcome.failures if "aa.png is empty" in failure]) == 1
    assert len([failure for failure in outcome.failures if "grey.png" in failure and "grey already" in failure]) == 5
    assert {len(records) for setup, records in outcome.records.items() if setup.degradation.task.name == "sr"} == {4}
    rows = summarise(outcome.records, 5)
    assert {(row.images, row.asked) for row in rows} == {(4, 5), (3, 5)}
    write_image(data / "aa.png", torch.rand(3, 16, 16))
    assert Benchmark(plan, Dataset(data), tmp_path / "out").run().fresh == 10


def test_an_unforeseen_failure_is_named_and_the_rest_finish(data, plan, tmp_path, monkeypatch):
    of_image = Scores.of_image

    def broken(self, image, truth):
        if torch.equal(truth[0], read_image(data / "b.png")):
            raise RuntimeError("a kernel died\nof something")
        return of_image(self, image, truth)

    monkeypatch.delenv("DEQIR_DEBUG", raising=False)
    monkeypatch.setattr(Scores, "of_image", broken)
    outcome = Benchmark(plan, Dataset(data), tmp_path / "out").run()
    assert len(outcome.failures) == len(outcome.records) == 10
    assert all("b.png" in failure and "a kernel died; please report" in failure for failure in outcome.failures)
    assert all(list(records) == ["a.png", "more/c.png"] for records in outcome.records.values())
    monkeypatch.setenv("DEQIR_DEBUG", "1")
    with pytest.raises(RuntimeError, match="a kernel died"):
        Benchmark(plan, Dataset(data), tmp_path / "out").run()


def test_the_table_has_the_means_and_standard_errors_of_the_runs(deqir, data, prior_folder, tmp_path):
    out = tmp_path / "out"
    code, printed, err = deqir(
        "benchmark", "--data", data, "--task", "sr:scale=2", "--method", "serial,classical", "--prior", prior_folder,
        "--steps", "2", "--out", out,
    )  # fmt: skip
    assert code == 0, err
    runs = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    with (out / "table.csv").open() as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    stored = {row["method"]: row for row in json.loads((out / "table.json").read_text())["rows"]}
    markdown = (out / "table.md").read_text()
    for method, row in table.items():
        for name in ("psnr", "ssim", "sweeps", "nfe", "seconds"):
            values = [run[name] for run in runs if run["method"] == method]
            error = statistics.stdev(values) / math.sqrt(3)
            assert float(row[name]) == pytest.approx(statistics.mean(values))
            assert float(row[f"{name}_error"]) == pytest.approx(error)
            assert stored[method][name]["mean"] == pytest.approx(statistics.mean(values))
        values = [run["psnr"] for run in runs if run["method"] == method]
        assert f"{statistics.mean(values):.2f} ± {statistics.stdev(values) / math.sqrt(3):.2f}" in markdown
    assert "2.0 ± 0.0" in markdown
    assert "3 of 3" in printed


def test_absent_figures_are_named_in_the_table_and_once_on_standard_error(
    deqir, data, prior_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    code, _, err = deqir(
        "benchmark", "--data", data, "--task", "colorize", "--method", "classical", "--out", tmp_path / "out"
    )
    assert code == 0, err
    table = (tmp_path / "out" / "table.md").read_text()
    for name in ("LPIPS", "FID", "KID"):
        assert err.count(f"{name} is left out") == 1
        assert f"{name} is absent: " in table
    assert table.count("| absent | absent | absent |") == 1
    assert (tmp_path / "out" / "pareto.png").stat().st_size > 1000


def test_lpips_is_the_published_weighting_of_the_networks_features(tmp_path, monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert "squeezenet1_1-b8a52dc0.pth" in Scores.available("squeeze").absent["lpips"]
    torch.manual_seed(0)
    weights = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), weights)
    scores = Scores.available("squeeze")
    assert "lpips" not in scores.absent
    image = torch.rand(1, 1, 64, 64)
    near, far = (scores.of_image((image + level * torch.rand_like(image)).clamp(0, 1), image) for level in (0.05, 0.5))
    assert 0 < near["lpips"] < far["lpips"]
    assert scores.of_image(image, image)["lpips"] == 0
    assert "lpips" not in scores.of_image(image[..., :63], image[..., :63])


class MeanColour(torch.nn.Module):
    """Features of an image: its mean colour, for FID and KID that a hand can compute."""

    num_features = 3

    def forward(self, x):
        return x.double().mean((2, 3)) / 255


def test_fid_of_known_features_is_the_distance_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    images, truths = (torch.rand(40, 3, 1, 1, generator=generator) for _ in range(2))
    levels = [(part * 255).round()[..., 0, 0].double() / 255 for part in (images, truths)]
    means, covariances = [part.mean(0) for part in levels], [torch.cov(part.T) for part in levels]
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    expected = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * roots
    found = Scores(inception=MeanColour()).of_sets(
        [image.expand(3, 8, 8) for image in images], [truth.expand(3, 8, 8) for truth in truths]
    )
    assert found["fid"] == pytest.approx(float(expected), rel=1e-3)
    assert math.isfinite(found["kid"])


def test_sets_are_compared_for_every_complete_setup(data, plan, tmp_path):
    benchmark = Benchmark(plan, Dataset(data), tmp_path / "out", Scores(inception=MeanColour()))
    outcome = benchmark.run()
    found = benchmark.distributions(outcome)
    assert found.keys() == outcome.records.keys()
    assert all(figures.keys() == {"fid", "kid"} for figures in found.values())
    colorized = [figures["fid"] for setup, figures in found.items() if setup.degradation.task.name == "colorize"]
    assert min(colorized) > 0


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_no_mean_of_nothing_or_of_nan(values):
    with pytest.raises(NonFiniteError, match="psnr"):
        Mean.of("psnr", values)


def test_a_mean_with_an_identical_image_is_infinite():
    assert Mean.of("psnr", [30.0, None]) == Mean(math.inf, None)
    assert Mean.of("psnr", [30.0]) == Mean(30.0, None)


def test_no_table_and_no_plot_of_nothing(tmp_path, plan):
    with pytest.raises(NonFiniteError, match="no table"):
        summarise({setup: {} for setup in plan.setups()}, 3)
    with pytest.raises(NonFiniteError, match="nothing to draw"):
        draw_pareto(tmp_path / "plot.png", [])
    assert not (tmp_path / "plot.png").exists()


def test_plots_without_matplotlib_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="pip install"):
        draw_pareto(tmp_path / "plot.png", [])


def test_the_pareto_front_holds_what_nothing_cheaper_reaches():
    points = [(10.0, 25.0), (5.0, 24.0), (7.0, 23.0), (20.0, 25.0), (5.0, 20.0), (30.0, 26.0)]
    assert pareto_front(points) == [(5.0, 24.0), (10.0, 25.0), (30.0, 26.0)]


def test_a_journal_line_that_was_cut_does_not_spoil_the_next(tmp_path):
    journal = Journal(tmp_path / "runs.jsonl")
    journal.add("one", {"psnr": 1.0})
    with journal.path.open("a") as file:
        file.write('{"key": "two", "ps')
    journal.add("three", {"psnr": 3.0})
    journal.add("one", {"psnr": 2.0})
    assert {key: record["psnr"] for key, record in journal.read().items()} == {"one": 2.0, "three": 3.0}


def test_images_by_list_every_and_limit(data, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("more/c.png 0\na.png 7 \n\n")
    assert Dataset(data, read_list(listed)).names() == ["more/c.png", "a.png"]
    assert Dataset(data, every=2).names() == ["a.png", "more/c.png"]
    assert Dataset(data, limit=1).names() == ["a.png"]
    with pytest.raises(ImageReadError, match="empty"):
        Dataset(data, ()).names()
    for name in ("../a.png", "..\\a.png", "C:a.png", str(data / "a.png")):
        with pytest.raises(OptionError, match="inside the data folder"):
            Dataset(data, (name,))
    with pytest.raises(ImageReadError, match="not a folder"):
        Dataset(data / "none").names()


def test_fitting_as_the_published_loaders_do():
    from torchvision import transforms

    pixels = torch.rand(3, 20, 33, generator=torch.Generator().manual_seed(3)).mul(255).round().div(255)
    picture = transforms.functional.to_pil_image(pixels)
    resized = transforms.functional.to_tensor(transforms.Resize([16, 16])(picture))
    torch.testing.assert_close(Preparation("resize", 16).apply(pixels), resized, rtol=0, atol=1e-6)
    square = transforms.Resize(16)(transforms.functional.center_crop(picture, 20))
    cropped = transforms.functional.to_tensor(square)
    torch.testing.assert_close(Preparation("crop", 16).apply(pixels), cropped, rtol=0, atol=1e-6)
    assert torch.equal(Preparation("resize", 20).apply(pixels[..., :20]), pixels[..., :20])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_plans_with_operators_that_keep_their_promise(name):
    preset = PRESETS[name]
    plan = plan_from_settings({**preset.plan_settings(), "priors": ["celeba_hq.ckpt"]})
    assert len(list(plan.setups())) == len(plan.degradations) * len(plan.methods)
    truth = torch.rand(1, 3, 256, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for degradation in plan.degradations:
        operator = degradation.task.operator((3, 256, 256))
        assert isinstance(operator, LinearOperator)
        y = operator.forward(truth)
        torch.testing.assert_close(operator.forward(operator.pinv(y)), y, rtol=0, atol=1e-6)


def test_presets_repeat_the_published_settings():
    ddnm, ddrm, deqir = (
        plan_from_settings(PRESETS[name].plan_settings()) for name in ("ddnm-celeba", "ddrm-imagenet", "deqir-celeba")
    )
    assert [str(part) for part in ddnm.degradations] == [
        "sr:scale=4,downsampling=bicubic",
        "sr:scale=4",
        "deblur:blur=gaussian,boundary=zero",
        "colorize:weights=mean",
        "cs:ratio=0.25",
        "sr:scale=16,noise=0.2",
        "cs:ratio=0.25,noise=0.2",
    ]
    assert (ddnm.steps, ddnm.chain.eta, ddnm.chain.spacing, ddnm.chain.travel_repeat) == ((100,), 0.85, "leading", 1)
    assert (ddrm.steps, ddrm.chain.eta, ddrm.preparation.fit) == ((20,), 0.85, "crop")
    assert {method.rule for method in ddrm.methods if not method.is_classical} == {"ddrm"}
    assert (deqir.steps, deqir.preparation, PRESETS["deqir-celeba"].every) == ((25,), Preparation("resize", 256), 10)
    assert [str(part) for part in deqir.degradations] == [
        "sr:scale=2",
        "sr:scale=4",
        "deblur:blur=gaussian,boundary=zero",
        "deblur:blur=anisotropic,boundary=zero",
        "colorize:weights=mean",
    ]
    assert PRESETS["deqir-imagenet"].settings["tasks"] == PRESETS["deqir-celeba"].settings["tasks"]
    assert not PRESETS["deqir-imagenet"].masked  # the authors' table of inpainting has CelebA alone


def test_a_preset_inpaints_with_the_masks_it_is_given(tmp_path):
    masks = [str(tmp_path / name) for name in ("text.png", "stripes.png")]
    for mask in masks:
        Image.new("L", (256, 256), 255).save(mask)
    plan = plan_from_settings(PRESETS["deqir-celeba"].plan_settings(masks))
    inpainted = [part.task for part in plan.degradations if part.task.name == "inpaint"]
    assert [task.mask for task in inpainted] == masks


def test_consistency_is_the_sum_of_what_the_kept_file_misses():
    generator = torch.Generator().manual_seed(0)
    y, operator = torch.rand(1, 1, 8, 8, generator=generator), Colorization()
    image = operator.pinv(y)
    kept = torch.from_numpy(np.round(image.numpy() * 255) / 255).float()
    expected = float(np.abs(kept.numpy().mean(1) - y.numpy()[:, 0]).sum())
    assert expected > 0
    assert consistency(operator, image, y) == pytest.approx(expected, rel=1e-4)
    assert consistency(operator, image + 1.0, y) == pytest.approx(float((1 - y).sum()), rel=1e-5)
    with pytest.raises(NonFiniteError, match="consistency"):
        consistency(operator, image * math.nan, y)


def test_colourisation_alone_has_a_consistency(data, plan, tmp_path):
    run = Benchmark(plan, Dataset(data), tmp_path / "out")
    rows = summarise(run.run().records, 3)
    shown = [line.split(" | ") for line in markdown(rows, {}).splitlines() if line.startswith("| ")]
    column = shown[0].index("Cons")
    for row, cells in zip(rows, shown[1:], strict=True):
        colour = row.setup.degradation.task.name == "colorize"
        assert ("cons" in row.means, cells[column] != "-") == (colour, colour)
    others = [row for row in rows if "cons" not in row.means]
    assert "Cons" not in markdown(others, {})


def test_a_preset_takes_one_line(deqir, data, prior_folder, tmp_path):
    command = (
        "benchmark", "--preset", "ddrm-imagenet", "--data", data, "--prior", prior_folder, "--size", "8",
        "--steps", "2", "--method", "serial:ddrm", "--task", "sr:scale=4,noise=0.05", "--out", tmp_path / "out",
    )  # fmt: skip
    code, _, err = deqir(*command)
    assert code == 2
    assert "imagenet_val_1k.txt is not there" in sentence(err) and "--all" in err
    assert not (tmp_path / "out").exists()
    code, printed, err = deqir(*command, "--all")
    assert code == 0, err
    assert "3 of 3" in printed
    runs = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert {run["chain"]["spacing"] for run in runs} == {"leading"}
    assert {run["method"] for run in runs} == {"serial:ddrm"}
    (data / "imagenet_val_1k.txt").write_text("b.png 3\n")
    code, printed, err = deqir(*command)
    assert code == 0, err
    assert "1 of 1" in printed and "0 runs" in printed


def test_a_plan_in_a_file_is_the_plan_in_options(tmp_path, prior_folder):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "tasks:\n  - sr:scale=2,noise=0.05\n  - {name: inpaint, hidden: 0.25}\n"
        f"methods: [serial, picard:diffpir]\npriors: {prior_folder}\nsteps: 5\nspacing: [900, 500, 10]\nseed: 4\n"
    )
    plan = plan_from_settings(read_plan(path))
    assert [str(part) for part in plan.degradations] == ["sr:scale=2,noise=0.05", "inpaint:mask=random,hidden=0.25"]
    assert plan.methods == (Method("serial"), Method("picard", "diffpir"))
    assert (plan.steps, plan.chain.spacing, plan.seed) == ((5,), (900, 500, 10), 4)
    assert [parse_degradation(str(part)) for part in plan.degradations] == list(plan.degradations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "serial"], "no tasks"),
        (["--task", "sr", "--method", "magic"], "the method is 'magic'; choose one of"),
        (["--task", "sr", "--method", "serial:magic"], "choose one of auto, ddnm"),
        (["--task", "sr", "--method", "classical:ddnm"], "has a rule"),
        (["--task", "magic", "--method", "serial"], "begin with one of sr"),
        (["--task", "sr:scale", "--method", "serial"], "write it as sr:scale=4"),
        (["--task", "sr:hidden=0.5", "--method", "serial"], "has no setting 'hidden'; choose from scale"),
        (["--task", "sr:scale=two", "--method", "serial"], "wrong kind"),
        (["--task", "denoise", "--method", "serial"], "noise level"),
        (["--task", "sr", "--method", "serial", "--steps", "ten"], "choose whole numbers"),
        (["--task", "sr", "--method", "serial", "--fit", "squeeze"], "choose one of keep"),
        (["--preset", "magic"], "preset is 'magic'; choose one of ddnm-celeba"),
        (["--preset", "ddrm-celeba", "--mask", "m.png"], "mask is for presets that inpaint"),
        (["--preset", "deqir-imagenet", "--mask", "m.png"], "mask is for presets that inpaint"),
        (["--preset", "deqir-imagenet"], "imagenet_val_100.txt is not there; put it there, name one with --list"),
        (["--task", "sr", "--method", "serial", "--list", "l.txt", "--all"], "list and all are both given"),
    ],
)
def test_a_wrong_plan_is_one_sentence(deqir, data, tmp_path, arguments, message):
    code, _, err = deqir("benchmark", "--data", data, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert message in sentence(err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: [sr", "cannot be read"),
        ("- sr", "holds no settings"),
        ("tasks: sr\nmethods: serial\nspeed: 3", "unknown entry 'speed'"),
        ("tasks: sr\nmethods: serial\neta: much", "write a number"),
        ("tasks: sr\nmethods: serial\nsteps: [0]", "at least 1"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message):
        plan_from_settings(read_plan(path))
