"""Reports of restorations, from the solver's residuals to the page."""

import json
import sys
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import SmoothDenoiser, causal_map
from deqir import operators
from deqir.cli import main
from deqir.images import read_image, write_image
from deqir.jobs import Finished
from deqir.problems import Problem
from deqir.report import Recorder, read_run, write_run
from deqir.report.figures import LIGHT, convergence_picture, difference_picture, film_picture
from deqir.restoration import Restorer
from deqir.solvers import Picard, solve
from deqir.tasks import Task

pytest.importorskip("matplotlib", reason="reports need the extra deqir[report]")

PICTURES = {"observation", "result", "truth", "difference", "film-strip", "convergence"}


@pytest.fixture
def deqir(monkeypatch, capsys, prior_folder):
    """Run ``deqir`` with arguments; returns (exit code, standard output, standard error)."""

    def run(*arguments):
        command = ["deqir", *map(str, arguments)]
        if arguments[0] == "restore":
            command += ["--prior", str(prior_folder), "--task", "sr", "--scale", "2", "--steps", "4"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def reported(deqir, photo, tmp_path):
    """The report folder of a parallel restoration of a degraded photo."""
    code, _, err = deqir("restore", photo, "--simulate", "--solver", "picard", "--report", "--out", tmp_path / "o")
    assert code == 0, err
    return tmp_path / "o" / "photo-report"


class Page(HTMLParser):
    """What a page links to, and the texts of its pictures."""

    def __init__(self, text):
        super().__init__()
        self.links, self.alts, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "srcset", "href")]
        if tag == "img":
            self.alts.append(given.get("alt", ""))


def test_a_sweep_reports_how_far_every_state_moved():
    reports = []
    start = torch.zeros(5, 2, 1, dtype=torch.float64)
    solve(Picard(), causal_map, start, torch.zeros(5, dtype=torch.float64), reports.append, extrapolate=False)
    before = start
    for report in reports:
        moved = (report.states - before).abs()[..., 0]
        torch.testing.assert_close(report.residuals, moved, rtol=0, atol=0)
        torch.testing.assert_close(report.residuals[-1], report.residual, rtol=0, atol=0)
        before = report.states
    assert reports[0].residuals.min() > 0
    assert (reports[3].residuals[:3] == 0).all() and (reports[3].residuals[3] > 0).all()


def test_a_state_that_overflows_has_no_residual():
    def overflowing(states, prefix, stop):
        images = causal_map(states, prefix, stop)
        images[4] = torch.inf
        return images

    reports = []
    solve(Picard(max_sweeps=1), overflowing, torch.zeros(5, 1, 1), torch.zeros(5), reports.append)
    assert reports[0].residuals.isnan().flatten().tolist() == [False] * 4 + [True]


def recorded(solver, truth=True, steps=6, size=(8, 8), denoiser=None):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    task = Task("sr", scale=2)
    y = task.operator((3, *size)).forward(image)
    recorder = Recorder()
    restorer = Restorer(denoiser or SmoothDenoiser(), operators.SuperResolution(2), steps, solver=solver, device="cpu")
    result = restorer.restore(y, progress=recorder)
    stats = result.stats
    record = {
        "file": "a.png", "task": "sr", "steps": steps, "solver": solver, "sweeps": stats.sweeps[0],
        "nfe": stats.nfe[0], "seconds": stats.seconds, "status": "converged", "tolerance": 0.5, "seed": 0,
    }  # fmt: skip
    problem = Problem(task, y, (3, *size), image if truth else None)
    return recorder.record(Finished(problem, restorer, result, record)), result


def test_the_record_holds_what_the_solve_did():
    run, result = recorded("picard")
    assert run.residuals.shape == (result.stats.sweeps[0], 6)
    torch.testing.assert_close(run.residuals[:, -1].double(), result.residuals[:, 0], rtol=1e-6, atol=0)
    assert run.nfe[-1] == result.stats.nfe[0] and (run.nfe.diff() > 0).all()
    assert run.finished[-1] == 6 and (run.finished.diff() > 0).all()
    assert (run.seconds.diff() > 0).all()
    assert run.settings["serial_seconds"] > 0
    assert run.film_sweeps[-1] == len(run.residuals)
    expected = (result.image[0].clamp(0, 1) * 255).round().to(torch.uint8)
    for shown in (run.film[-1], run.states[-1], run.pictures["result"]):
        assert torch.equal(shown, expected)


def test_the_difference_is_to_the_truth_or_to_what_the_observation_gives():
    known, result = recorded("picard")
    distance = (result.image.clamp(0, 1) - torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))).abs()
    torch.testing.assert_close(known.difference, 255 * distance[0].mean(0))
    unknown, result = recorded("picard", truth=False)
    small = torch.nn.functional.avg_pool2d(result.image, 2)  # the observation, which the result reproduces
    enlarged = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(
        unknown.difference, 255 * (result.image.clamp(0, 1) - enlarged).abs()[0].mean(0), rtol=1e-3, atol=1e-3
    )
    assert "truth" not in unknown.pictures


def test_the_film_of_a_long_solve_is_thinned():
    run, result = recorded("picard", steps=40)
    sweeps = result.stats.sweeps[0]
    assert sweeps > 13
    assert run.film_sweeps.tolist() == sorted({1, 2, 3, 4, 6, 8, 12, 16, 24, 32, sweeps} & set(range(1, sweeps + 1)))
    assert run.state_numbers.tolist()[0] == 1 and run.state_numbers.tolist()[-1] == 40


class Knowing(SmoothDenoiser):
    """A network that sees one and the same clean image, of the value 0.5 in [-1, 1], in whatever it is shown."""

    def __call__(self, x, timesteps):
        a = self.schedule.alphas_cumprod[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        return (x - 0.5 * a.sqrt()) / (1 - a).sqrt()


@pytest.mark.parametrize("solver", ["serial", "picard"])
def test_the_estimates_are_what_the_network_sees_in_the_states(solver):
    run, result = recorded(solver, steps=20, denoiser=Knowing())
    assert run.estimates.shape == run.states.shape == (8, 3, 8, 8)
    assert (run.estimates[:-1].int() - 191).abs().max() <= 1  # 0.75 in [0, 1]
    assert run.states[0].float().std() > 30  # while the first states are noise
    assert torch.equal(run.estimates[-1], (result.image[0].clamp(0, 1) * 255).round().to(torch.uint8))


def test_a_serial_chain_reports_the_clean_image_of_every_step():
    y = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    seen = []
    restorer = Restorer(Knowing(), operators.SuperResolution(2), 8, solver="serial", device="cpu")
    result = restorer.restore(y, progress=lambda progress: seen.append(progress))
    for progress in seen:  # the network sees the same in every state, and the rule agrees with the observation
        torch.testing.assert_close(progress.image, result.image, rtol=0, atol=1e-4)
    assert (seen[0].states[0] / 2 + 0.5 - result.image).abs().max() > 0.5  # while the first states are noise
    assert torch.equal(seen[-1].image, result.image)


def test_a_grey_photo_has_states_of_the_priors_channels_from_both_solvers(tmp_path):
    states = []
    for solver in ("serial", "picard"):
        recorder = Recorder()
        restorer = Restorer(SmoothDenoiser(), operators.Denoising(), 6, solver=solver, tolerance=1e-4, device="cpu")
        y = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        restorer.restore(y, progress=recorder)
        states.append(torch.cat(list(recorder.states.values())))
    assert states[0].shape == (6, 3, 8, 8) and states[0][0].std(0).mean() > 0.3  # every channel has its own noise
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=1e-4)


def test_a_record_survives_the_disk(tmp_path):
    run, _ = recorded("picard")
    write_run(tmp_path, run)
    again = read_run(tmp_path / "run.json")
    assert again.settings == run.settings
    for name in ("timesteps", "residuals", "finished", "nfe", "seconds", "film", "states", "estimates", "difference"):
        assert torch.equal(getattr(again, name), getattr(run, name)), name
    assert {name: tuple(x.shape) for name, x in again.pictures.items()} == {
        "observation": (3, 4, 4),
        "result": (3, 8, 8),
        "truth": (3, 8, 8),
    }


def test_large_pictures_are_reduced():
    run, _ = recorded("picard", size=(1000, 10), steps=2)
    assert run.pictures["result"].shape == (3, 768, 8)
    assert run.difference.shape == (768, 8)
    assert run.states.shape == (2, 3, 128, 1)
    for drawn in (film_picture(run), difference_picture(run.difference)):
        assert max(Image.open(BytesIO(drawn)).size) < 2500


def test_a_report_is_one_page_that_needs_nothing_else(reported):
    page = Page((reported / "report.html").read_text())
    assert page.links and all(link.startswith("data:image/") for link in page.links)
    assert "script" not in page.tags
    assert len(page.alts) == 6 and all(len(alt) > 15 for alt in page.alts)
    for name in PICTURES:
        assert min(read_image(reported / f"{name}.png").shape[1:]) > 1
    record = json.loads((reported / "run.json").read_text())["settings"]
    text = (reported / "report.html").read_text()
    ratio = f"<td>{record['seconds'] / record['serial_seconds']:.2f}</td>"
    for shown in (
        ratio,
        "Estimated, not run",
        f"<td>{record['sweeps']}</td>",
        f"<td>{record['nfe']}</td>",
        f"{record['psnr']:.2f}",
        "prior",
    ):
        assert shown in text


def test_a_report_speaks_to_laypeople_and_fits_a_phone(reported):
    text = (reported / "report.html").read_text()
    assert "None" not in text.partition("<h2>Settings</h2>")[2] and "<td>-</td>" in text
    assert "A x to y" not in text and "A+ y" not in text
    assert "degraded again, to the observation" in text
    assert text.count('class="wide"') == 2  # the convergence picture and the film strip scroll sideways


def test_a_report_can_be_drawn_again_from_the_saved_run(deqir, reported, tmp_path):
    page = (reported / "report.html").read_bytes()
    (reported / "report.html").unlink()
    assert deqir("report", reported)[0] == 0
    assert (reported / "report.html").read_bytes() == page
    code, out, _ = deqir("report", reported / "run.json", "--out", tmp_path / "elsewhere")
    assert code == 0 and "elsewhere" in out
    assert (tmp_path / "elsewhere" / "report.html").read_bytes() == page
    code, _, err = deqir("report", reported, reported, "--out", tmp_path)
    assert code == 2 and "--out takes the report of one run" in err


OVERLAID = ("--report-sensitivity", "2,3,4,5", "--report-uncertainty", "2")


def test_overlays_are_drawn_where_they_are_asked_for(deqir, photo, tmp_path):
    out = tmp_path / "o"
    code, _, err = deqir("restore", photo, "--solver", "picard", *OVERLAID, "--out", out)
    assert code == 0, err
    folder, overlays = out / "photo-report", ("decided", "noise", "spread")
    drawn = {name: read_image(folder / f"{name}.png") for name in overlays}
    assert drawn["decided"].shape == (3, 19, 21)
    assert all(image.shape == (3, 38, 42) for image in (drawn["noise"], drawn["spread"]))
    frame = torch.tensor([51, 255, 255]).view(3, 1, 1) / 255
    for name in ("noise", "spread"):
        framed = (drawn[name] - frame).abs().amax(0) < 1e-3
        assert framed.nonzero().min(0).values.tolist() == [3, 2] and framed.sum() == 14
    page = Page((folder / "report.html").read_text())
    assert len(page.alts) == 5 + 3 and "over 2 seeds" in page.alts[-1]
    figures = read_run(folder).settings["overlays"]
    assert figures["region"] == "2,3,4,5" and figures["seeds"] == 2
    assert 0 < figures["image_spread"] < 1 and figures["strongest_observed"] > 0
    text = (folder / "report.html").read_bytes()
    assert deqir("report", folder)[0] == 0 and (folder / "report.html").read_bytes() == text


def test_one_overlay_alone_is_drawn_alone(deqir, photo, tmp_path):
    assert deqir("restore", photo, "--report-uncertainty", "2", "--out", tmp_path / "o")[0] == 0
    run = read_run(tmp_path / "o" / "photo-report")
    assert list(run.overlays) == ["spread"] and "region_spread" not in run.settings["overlays"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--report-sensitivity", "40,0,4,4"), "the region 40,0,4,4 reaches beyond the image of 42 x 38 pixels"),
        (("--report-sensitivity", "1,2"), "give four whole numbers: left,top,width,height"),
        (("--report-uncertainty", "1"), "a spread needs at least 2"),
    ],
)
def test_overlays_that_do_not_fit_end_in_one_sentence_and_no_result(deqir, photo, tmp_path, asked, message):
    code, _, err = deqir("restore", photo, *asked, "--out", tmp_path / "o")
    assert code > 0 and message in err and "Traceback" not in err
    assert not (tmp_path / "o" / "photo.png").exists()


@pytest.fixture
def photos(photo, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(photo.read_bytes())
    return tmp_path / "photos"


def test_a_folder_restored_without_reports_has_none_and_the_reason_is_one_sentence(deqir, photos, tmp_path):
    assert deqir("restore", photos, "--out", tmp_path / "o")[0] == 0
    for path in (tmp_path / "o", tmp_path / "o" / "manifest.jsonl"):
        code, _, err = deqir("report", path)
        assert code == 1 and "keeps no pictures of the solves; restore with --report" in err
        assert err.startswith("deqir: ") and err.count("\n") == 1


def test_all_reports_of_a_restored_folder_are_drawn_again(deqir, photos, tmp_path):
    out = tmp_path / "o"
    assert deqir("restore", photos, "--report-uncertainty", "2", "--out", out)[0] == 0
    pages = [out / f"{name}-report" / "report.html" for name in ("a", "b")]
    for path in (out, out / "manifest.jsonl"):
        for page in pages:
            page.unlink()
        code, said, err = deqir("report", path)
        assert code == 0, err
        assert said.count(" -> ") == 2 and all("over 2 seeds" in page.read_text() for page in pages)
    code, _, err = deqir("report", out, "--out", tmp_path / "one")
    assert code == 2 and "2 are given" in err


def test_a_serial_chain_has_a_report_without_a_heat_map(deqir, photo, tmp_path):
    code, _, err = deqir("restore", photo, "--solver", "serial", "--report", "--out", tmp_path / "o")
    assert code == 0, err
    folder = tmp_path / "o" / "photo-report"
    assert "A serial chain has no convergence picture" in (folder / "report.html").read_text()
    assert {path.stem for path in folder.glob("*.png")} == PICTURES - {"convergence", "truth"}
    assert "serial_seconds" not in json.loads((folder / "run.json").read_text())["settings"]


def test_time_travel_and_listed_timesteps_are_drawn_in_full(deqir, photo, tmp_path):
    travel = ["--spacing", "900,600,300,100,0", "--travel-length", "2", "--travel-repeat", "2"]
    for solver in ("serial", "picard"):
        out = tmp_path / solver
        code, _, err = deqir("restore", photo, "--solver", solver, *travel, "--report", "--out", out)
        assert code == 0, err
        run = read_run(out / "photo-report")
        assert len(run.timesteps) > 5 and run.state_numbers[-1] == len(run.timesteps)
        assert run.residuals.shape[1] == len(run.timesteps)


def test_names_are_escaped_and_grey_photos_are_drawn(deqir, tmp_path):
    write_image(tmp_path / "x.png", torch.rand(1, 6, 8))
    (tmp_path / "x.png").rename(tmp_path / "<i>&.png")
    code, _, err = deqir("restore", tmp_path / "<i>&.png", "--solver", "picard", "--report", "--out", tmp_path / "o")
    assert code == 0, err
    text = (tmp_path / "o" / "<i>&-report" / "report.html").read_text()
    assert "<h1>&lt;i&gt;&amp;.png</h1>" in text and "<i>" not in text


def test_an_older_report_is_kept_unless_told(deqir, photo, reported):
    out = reported.parent
    (out / "photo.png").unlink()
    code, _, err = deqir("restore", photo, "--report", "--out", out)
    assert code == 1 and "photo-report exists already" in err
    assert not (out / "photo.png").exists()
    assert deqir("restore", photo, "--report", "--out", out, "--overwrite")[0] == 0


def test_without_the_extra_one_sentence_says_so(deqir, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = deqir("restore", photo, "--report", "--out", tmp_path / "o")
    assert code == 1
    assert (
        err.strip() == "deqir: reports are drawn with matplotlib, which is not installed; pip install 'deqir[report]'"
    )
    assert not (tmp_path / "o").exists()


def spoil_text(folder):
    (folder / "run.json").write_text("{")


def spoil_format(folder):
    (folder / "run.json").write_text('{"format": "other"}')


def spoil_settings(folder):
    run = json.loads((folder / "run.json").read_text())
    run["settings"]["seconds"] = "long"
    (folder / "run.json").write_text(json.dumps(run))


def lose_tensors(folder):
    (folder / "run.safetensors").unlink()


def cut_tensors(folder):
    data = (folder / "run.safetensors").read_bytes()
    (folder / "run.safetensors").write_bytes(data[: len(data) // 2])


def shorten_tensors(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "run.safetensors")
    tensors["finished"] = tensors["finished"][1:].contiguous()
    save_file(tensors, folder / "run.safetensors")


def drop_tensor(folder):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "run.safetensors")
    del tensors["residuals"]
    save_file(tensors, folder / "run.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_text, "is not readable JSON"),
        (spoil_format, "is not a run that this version of deqir wrote"),
        (spoil_settings, "lacks settings of the run"),
        (lose_tensors, "is missing; keep run.json and run.safetensors in one folder"),
        (cut_tensors, "is not a readable safetensors file"),
        (shorten_tensors, "parts do not fit together"),
        (drop_tensor, "lacks residuals"),
    ],
)
def test_a_spoiled_run_gets_one_sentence(deqir, tmp_path, spoil, message):
    write_run(tmp_path, recorded("picard", steps=2)[0])
    spoil(tmp_path)
    code, _, err = deqir("report", tmp_path)
    assert code == 1 and message in err
    assert err.startswith("deqir: ") and err.count("\n") == 1


def test_a_folder_without_a_run_gets_one_sentence(deqir, tmp_path):
    code, _, err = deqir("report", tmp_path)
    assert code == 1 and "run.json does not exist" in err


def heat_map(residuals, finished):
    png = convergence_picture(torch.tensor(residuals), torch.tensor(finished), 0.5)
    return np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)


def coloured(pixels, colour):
    """Where ``pixels`` (H, W, 3) have the colour #rrggbb."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (pixels == wanted).all(-1)


def test_the_heat_map_is_bright_where_states_move_and_grey_where_nothing_was_computed():
    pixels = heat_map([[1.0, 100.0], [0.0, 10.0]], [1, 2])
    height, width = pixels.shape[:2]
    top, bottom = int(0.35 * height), int(0.6 * height)
    left, right = int(0.2 * width), int(0.5 * width)
    light = pixels.sum(-1)
    assert light[top, right] > light[bottom, right] > light[top, left]
    assert coloured(pixels, LIGHT.final)[bottom, left]


def test_the_line_follows_the_finished_prefix():
    columns = []
    for finished in (1, 3):
        line = coloured(heat_map([[1.0] * 4], [finished]), LIGHT.accent)
        inside = line[: int(0.5 * len(line)), : line.shape[1] // 2 + 100]  # neither the legend nor the tolerance
        columns.append(np.nonzero(inside)[1].mean() / line.shape[1])
    assert columns[1] - columns[0] == pytest.approx(0.60 * 2 / 4, abs=0.01)


@pytest.mark.parametrize("residuals", [[[0.0, 0.0]], [[float("nan"), 3.0]], [[2.0, 2.0]]])
def test_degenerate_residuals_are_drawn(residuals):
    assert heat_map(residuals, [2]).std() > 0


def test_a_page_says_when_a_solve_stopped_early(deqir, photo, tmp_path):
    arguments = ("--solver", "picard", "--max-sweeps", "2", "--tolerance", "0")
    code, _, err = deqir("restore", photo, "--report", *arguments, "--out", tmp_path / "o")
    assert code == 0, err
    folder = tmp_path / "o" / "photo-report"
    assert "stopped at max_sweeps before the tolerance was met" in (folder / "report.html").read_text()
    assert read_run(folder).film_sweeps.tolist() == [1, 2]
