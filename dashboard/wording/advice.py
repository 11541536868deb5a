"""What a person can do about a dead letter, by its reason."""

import re
from dataclasses import dataclass

_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")


@dataclass(frozen=True, slots=True)
class Advice:
    """For letters of one sort."""

    kind: str
    """The sort, in a few words."""
    what: str
    """What to do, in a sentence."""


_BY_BEGINNING = {
    "no text": Advice("no text", "The text columns are empty there: fill them, or take the row out of the source."),
    "no id": Advice("no id", "Give each row an id in the column that source.id names."),
    "duplicate id": Advice("duplicate id", "Two rows have one id: give one another, or say which one stays by source.duplicates."),
    "limits.": Advice("beyond a limit", "If such documents are meant, raise the limit that is named; the corpus is read again then."),
    "source.": Advice("other columns", "The file lacks a column that the spec names, or has another: check it, and source in the spec."),
    "expected UTF-8 text": Advice("odd encoding", "Save the file as UTF-8; of CSV, source.encoding can name another encoding."),
    "expected a JSON object": Advice("no JSON", "The line is cut, or is no JSON in UTF-8: write the file anew."),
    "expected JSON": Advice("deep JSON", "The line is nested too deep: write it flatter."),
    "metadata": Advice("odd metadata", "The document is kept, the field is null: mend it, or declare another type in source.metadata."),
    "text": Advice("odd text", "The column has a value that is no text in UTF-8: mend it."),
    "id": Advice("odd id", "The id must be a string or a whole number in UTF-8."),
    "another number of fields": Advice("broken CSV", "A row has other fields than the header: see its quotes, and source.delimiter."),
    "others of this file": Advice("others of a file", "More of the same file: mend those that are named, and run again."),
}
_CHUNK = Advice("not embedded", "The model did not take it: `revector apply` tries again; look at the text if it stays.")
_CRASHED = Advice("ended its reader", "The file ends the process that reads it: write it anew with another tool.")


def advice_for(stage: str, reason: str) -> Advice:
    """What to do about a letter."""
    if stage == "chunk":
        return _CHUNK
    if "no process survived" in reason:
        return _CRASHED
    for beginning, advice in _BY_BEGINNING.items():
        if reason.startswith(beginning):
            return advice
    return Advice(_VARYING.sub("…", reason)[:80], "Open the file with another tool: if that cannot read it either, write it anew.")
