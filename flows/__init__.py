"""When it happens: Prefect flows, the command line, and the commands as functions (`from flows import plan, apply`)."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.commands import (
        apply,
        bridge,
        compare,
        diff,
        drop,
        evaluate,
        export,
        export_marts,
        history,
        maintain,
        plan,
        promote,
        report,
        resume,
        rollback,
        search,
        status,
    )

__all__ = [
    "apply",
    "bridge",
    "compare",
    "diff",
    "drop",
    "evaluate",
    "export",
    "export_marts",
    "history",
    "maintain",
    "plan",
    "promote",
    "report",
    "resume",
    "rollback",
    "search",
    "status",
]


def __getattr__(name: str) -> Any:
    """Heavy libraries are imported when a command is first used, not with the package."""
    if name in __all__:
        from flows import commands

        return getattr(commands, name)
    raise AttributeError(name)


class _Commands(ModuleType):
    """`flows.evaluate` stays the command when the module of the flow is imported, which Python would put in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Commands
