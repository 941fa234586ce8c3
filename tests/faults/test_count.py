from test_checkpoints import FLIPPED, TRUNCATED
from test_disk import BROKEN_DISKS
from test_memory import OUT_OF_MEMORY
from test_signals import SIGNALS


def test_two_hundred_faults_at_least():
    every = [*OUT_OF_MEMORY, *BROKEN_DISKS, *TRUNCATED, *FLIPPED, *SIGNALS]
    assert len(set(every)) >= 200
