"""The exceptions of revector. Classes group by what a handler does; the command line turns each into one line.

RevectorError              exit 1
├── SpecError              exit 64: the person must change the spec or the command
├── SourceError            a corpus that cannot be listed or read at all
│   └── SourceMissing      there is no such place
├── ModelError             a model that is missing, unsafe, or not what its hash says
├── NotFound               a collection, generation or version that the store does not have
├── GateFailed             exit 3: it was built, and must not be published
├── PlanStale              a saved plan that no longer fits the corpus or the store
├── WorkerError            actors that could not be had, or shards that none of them could do
└── StorageError           the store refused or failed
    ├── Conflict           exit 5: somebody else's commit came first; nothing of ours landed
    └── CommitUnknown      the reply was lost and the history does not tell: plan again
"""


class RevectorError(Exception):
    """Something a person can act on. The message says what was expected, what was found, and what to do."""

    exit_code = 1


class SpecError(RevectorError):
    exit_code = 64


class SourceError(RevectorError):
    pass


class SourceMissing(SourceError):
    pass


class ModelError(RevectorError):
    pass


class NotFound(RevectorError):
    pass


class GateFailed(RevectorError):
    exit_code = 3


class PlanStale(RevectorError):
    pass


class WorkerError(RevectorError):
    pass


class StorageError(RevectorError):
    pass


class Conflict(StorageError):
    exit_code = 5


class CommitUnknown(StorageError):
    pass
