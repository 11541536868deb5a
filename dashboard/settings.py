"""How a dashboard is served: of which store, to whom, and what is allowed there."""

from dataclasses import dataclass, field
from typing import Literal, get_args

Act = Literal["promote", "rollback"]
ACTS: tuple[Act, ...] = get_args(Act)

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Chosen at the start, the same for all viewers."""

    store: str
    """A folder or `s3://` URI."""
    token: str = field(repr=False)
    """What a viewer shows once, and then has as a cookie."""
    names: tuple[str, ...] = ()
    """Names by which browsers may call the server, besides localhost and addresses of numbers."""
    header: str | None = None
    """Of a reverse proxy that has asked who it is: its value names the viewer, and no token is demanded."""
    allow: frozenset[Act] = frozenset()
    """Acts that are offered. Empty: nothing here writes."""
    texts: bool = True
    """Whether texts and metadata of documents are shown, or figures and ids alone."""
    revector: Argv = ()
    """How the command line is called, up to the command: for plans. Empty: plans are not offered."""
    place: Argv = ()
    """Its options after the command: which spec, which store."""
    encoder: Argv = ()
    """The process that makes vectors of questions. Empty: search by text is not offered."""
