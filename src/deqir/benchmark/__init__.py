"""Benchmarks: a folder of images, tasks, methods and priors; figures of every combination, as tables and plots."""

from deqir.benchmark.cases import Case, Degradation, Method, Plan
from deqir.benchmark.dataset import Dataset
from deqir.benchmark.plans import plan_from_settings, read_plan
from deqir.benchmark.presets import PRESETS, Preset
from deqir.benchmark.runner import Benchmark, Outcome
from deqir.benchmark.tables import Row, summarise, write_tables

__all__ = [
    "PRESETS",
    "Benchmark",
    "Case",
    "Dataset",
    "Degradation",
    "Method",
    "Outcome",
    "Plan",
    "Preset",
    "Row",
    "plan_from_settings",
    "read_plan",
    "summarise",
    "write_tables",
]
