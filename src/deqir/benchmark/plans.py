"""Plans from words: the options of the command line or a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from deqir.benchmark.cases import Chain, Degradation, Method, Plan
from deqir.benchmark.dataset import Preparation
from deqir.errors import OptionError
from deqir.tasks import TASKS, Task

LISTS = ("tasks", "methods", "priors", "steps")
CHAIN = tuple(item.name for item in fields(Chain) if item.name != "steps")
KEYS = (*LISTS, *CHAIN, "fit", "size", "seed")
_NUMBER = (int, float)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "eta": (_NUMBER, "a number"),
    "spacing": ((str, list, tuple), "a name such as cubic, or a list of timesteps"),
    "travel_length": ((int,), "a whole number"),
    "travel_repeat": ((int,), "a whole number"),
    "average": (_NUMBER, "a noise level in units of 0..1"),
    "tolerance": (_NUMBER, "a number of grey levels"),
    "max_sweeps": ((int, type(None)), "a whole number, or null for no bound"),
    "fit": ((str,), "keep, resize or crop"),
    "size": ((int,), "a whole number of pixels"),
    "seed": ((int,), "a whole number"),
}


def read_plan(path: Path) -> dict[str, Any]:
    """The settings in the YAML file ``path``. Raises OptionError where it is no mapping of known keys."""
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise OptionError(f"the plan {path} cannot be read ({reason}); give a YAML file") from None
    if not isinstance(settings, dict):
        raise OptionError(f"the plan {path} holds no settings; write lines such as tasks: [sr]")
    return settings


def plan_from_settings(settings: Mapping[str, Any]) -> Plan:
    """The plan that ``settings`` describe.

    ``tasks``: each ``name``, ``name:setting=value,noise=value`` or a mapping with ``name``; ``methods``: each
    ``solver``, ``solver:rule`` or ``classical``; ``priors``: as ``load_prior`` takes them; ``steps``: whole numbers.
    One entry may stand for a list of one. The other keys are those of ``Chain`` and ``Preparation``, and ``seed``.
    Raises OptionError for a key or value that is not known.
    """
    for key, value in settings.items():
        if key not in KEYS:
            raise OptionError(f"the plan has the unknown entry {key!r}; choose from {', '.join(KEYS)}")
        kinds, wording = _KINDS.get(key, ((object,), ""))
        if wording and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise OptionError(f"the entry {key} of the plan is {value!r}; write {wording}")
    chain = {key: settings[key] for key in CHAIN if key in settings}
    prepared = {key: settings[key] for key in ("fit", "size") if key in settings}
    optional: dict[str, Any] = {}
    if "priors" in settings:
        optional["priors"] = tuple(map(str, _listed(settings, "priors")))
    if "steps" in settings:
        optional["steps"] = tuple(map(_steps, _listed(settings, "steps")))
    return Plan(
        tuple(map(parse_degradation, _listed(settings, "tasks"))),
        tuple(Method.parse(str(text)) for text in _listed(settings, "methods")),
        chain=Chain(**{**chain, "spacing": _spacing(chain.get("spacing", Chain.spacing))}),
        preparation=Preparation(**prepared),
        seed=settings.get("seed", 0),
        **optional,
    )


def parse_degradation(text: str | Mapping[str, Any]) -> Degradation:
    """The degradation that ``sr:scale=4,noise=0.05``, or a mapping of the same names, describes."""
    settings = _from_text(text) if isinstance(text, str) else text
    if not isinstance(settings, Mapping) or settings.get("name") not in TASKS:
        raise OptionError(f"the task is {text!r}; begin with one of {', '.join(TASKS)}, as in sr:scale=4")
    known = TASKS[settings["name"]].settings
    for key, value in settings.items():
        if key not in ("name", "noise", *known):
            raise OptionError(f"the task {text!r} has no setting {key!r}; choose from {', '.join((*known, 'noise'))}")
        if key == "noise" or key in ("hidden", "threshold", "ratio"):
            fits = isinstance(value, _NUMBER)
        else:
            fits = isinstance(value, int if key in ("scale", "mask_seed") else str)
        if isinstance(value, bool) or not fits:
            raise OptionError(f"the setting {key} of task {text!r} is of the wrong kind; see docs/usage.md")
    task = Task(**{key: value for key, value in settings.items() if key != "noise"})
    return Degradation(task, float(settings.get("noise", 0.0)))


def _from_text(text: str) -> dict[str, Any]:
    name, _, rest = text.strip().partition(":")
    settings: dict[str, Any] = {"name": name}
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if not equals:
            raise OptionError(f"the task {text!r} is not readable at {part!r}; write it as sr:scale=4,noise=0.05")
        settings[key.strip()] = _value(value.strip())
    return settings


def _value(text: str) -> int | float | str:
    for kind in _NUMBER:
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _listed(settings: Mapping[str, Any], key: str) -> list[Any]:
    value = settings.get(key, [])
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _steps(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"steps is {value!r}; choose whole numbers of at least 1")
    return value


def _spacing(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
