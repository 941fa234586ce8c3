"""How ``pytest -n`` shares the tests out: whole files, those that take longest first.

The tests of a folder in ``TOGETHER`` share a server, or count what the others did.
"""

import pytest

TOGETHER = ("tests/webui", "tests/faults")
LONGEST = (*TOGETHER, "tests/priors/test_compilation.py", "tests/test_comfort.py", "tests/test_adjoints.py")


def scope_of(nodeid):
    """The file, or the folder, of a test."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


def pytest_collection_modifyitems(items):
    order = {scope: number for number, scope in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(scope_of(item.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class WholeFiles(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return WholeFiles(config, log)
