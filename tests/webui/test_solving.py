"""A solve that is watched, and what the page says of it."""

import threading
import time

import pytest
import torch

from deqir.report import Recorder
from deqir.results import Progress

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui import looks
from deqir.webui.solve import Solve, StoppedError
from deqir.webui.trail import Trail


def test_the_page_speaks_in_sentences_of_its_own_words():
    assert "<p>There is" in looks.said("there is nothing")
    assert "<p>bad.png is" in looks.said("bad.png is not readable")
    assert "blur_width" not in looks.said("left alone; give noise or blur_width to insist; or choose another task")


def test_a_solve_hands_on_progress_and_what_comes_out():
    def work(watch):
        for number in range(3):
            watch(number)
            time.sleep(0.02)
        return "done"

    solve = Solve(work, threading.Event())
    seen = list(solve)
    assert seen and seen == sorted(set(seen)) and solve.outcome == "done"
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        list(Solve(work, stop))
    with pytest.raises(ZeroDivisionError):
        list(Solve(lambda watch: 1 / 0, threading.Event()))


def test_the_chart_is_drawn_while_the_solve_goes_on():
    recorder, trail = Recorder(), Trail()
    assert looks.chart(recorder, trail, 0.5) == ""
    recorder.residuals = [torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])]  # the second sweep is being written down
    recorder.counts = [(1, 2, 0.1)]
    assert "Heat map of 1 sweeps by 2 states; 1 states are final." in looks.chart(recorder, trail, 0.5)


def test_a_serial_chain_tells_its_steps_what_they_changed_and_the_time_left(monkeypatch):
    clock = iter([10.0, 12.0, 14.0])
    recorder, trail, seen = Recorder(), Trail(), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    for done, value in enumerate((0.0, 0.5, 0.6), 1):
        progress = Progress(done, done, 5, float("nan"), torch.full((1, 3, 4, 4), value), done)
        trail(progress)
        seen.append(looks.under_way(progress, trail))
    assert "Step 1 of 5." in seen[0] and "Step 3 of 5, about 4 s left." in seen[2]
    assert trail.changes == pytest.approx([127.5, 25.5])
    assert "Change of the image in steps 2 to 3 of 5; the last: 25.5" in looks.chart(recorder, trail, 0.5)


def test_who_stops_listening_stops_the_solve():
    reports, ended = [], threading.Event()

    def work(watch):
        try:
            while True:
                watch(0)
                reports.append(0)
                time.sleep(0.01)
        finally:
            ended.set()

    listening = iter(Solve(work, threading.Event()))
    next(listening)
    listening.close()
    assert ended.wait(5)
