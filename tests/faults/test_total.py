from test_checkpoints import FLIPPED, TRUNCATED
from test_disk import BROKEN_DISKS
from test_memory import OUT_OF_MEMORY
from test_ranks import KILLED
from test_signals import SIGNALS, WHILE_WRITING


def test_two_hundred_faults_at_least():
    every = [*OUT_OF_MEMORY, *BROKEN_DISKS, *TRUNCATED, *FLIPPED, *SIGNALS, *WHILE_WRITING, *KILLED]
    assert len(set(every)) >= 200
