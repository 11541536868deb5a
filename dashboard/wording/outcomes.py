"""How a run ended, in words: the same on every page."""

from markupsafe import Markup

_OUTCOMES = {
    "published": ("good", "published", "Readers have what it made."),
    "partial": ("warn", "published, partial", "Readers have what it made; some inputs could not be read or embedded."),
    "built": ("bad", "built, not published", "A gate failed: readers keep what they had."),
    "pinned": ("warn", "built, pinned", "A rollback keeps readers where they are."),
    "nothing": ("good", "nothing to do", "Readers had all of it already."),
    "maintained": ("good", "maintained", "The same rows, written anew, and what nothing needs removed."),
    "erased": ("good", "erased", "Nothing is left of what the source no longer has."),
    "dropped": ("good", "dropped", "A generation was removed."),
    "failed": ("bad", "failed", "An error ended it. What was committed stays, and the same command goes on."),
    "cancelled": ("warn", "stopped", "Somebody stopped it. What was committed stays, and the same command goes on."),
    "unfinished": ("warn", "unfinished", "It has left no result: it goes on, or its process is gone."),
}


def outcome(status: str) -> Markup:
    """The `status` of a run as a person reads it, with what it means as a tooltip."""
    grade, word, meaning = _OUTCOMES.get(status, ("", status, ""))
    return Markup('<span class="state {}" title="{}">{}</span>').format(grade, meaning, word)
