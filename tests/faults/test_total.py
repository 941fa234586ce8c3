"""How many different faults the tests of this folder injected; by name the last file, so that the others ran before."""

from collections import Counter

import pytest
from moments import INJECTED

KINDS = {"cut off", "changed bits", "disk", "manifest", "memory", "rank", "signal", "signal while writing"}


def test_two_hundred_different_faults_at_least():
    counts = Counter(fault[0] for fault in INJECTED)
    if counts.keys() != KINDS:
        pytest.skip("not all files of this folder ran")
    print(*sorted(counts.items()), f"{counts.total()} in all", sep="\n")
    assert counts.total() >= 200
