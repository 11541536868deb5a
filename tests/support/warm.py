"""What the fork server of `tests.support.mortal` imports, once, so that each command that is forked from it starts in a moment.

Lance warns of forks, and recommends a fork server: this one has imported it and called nothing of it, so no thread of it is running.
"""

import importlib
import warnings

warnings.filterwarnings("ignore", message=".*fork")
for module in (
    "flows.cli.main",
    "flows.commands",
    "flows.show.progress",
    "flows.show.terminal",
    "storage.reading.published",
    "lancedb",
    "s3fs",
    "tests.support.mortal",
):
    importlib.import_module(module)
