"""The demo keeps what it says: told here with a small share of its corpus and the stand-in for a model."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import flows.demo.story
from flows.demo import tell
from flows.demo.corpus import SHIPPED, read_glosses
from flows.demo.page import words_in_common
from flows.demo.story import COLLECTION, QUESTIONS, WITHDRAWN
from pipelines.errors import SpecError
from storage import open_published

DOCUMENTS = 400
REVISED = 4
ANSWERS = ("n04070727", "n13295657", "v00915848")
"""Refrigerator, rent, whisper: what the model finds in the whole corpus."""


class Telling:
    """A told story: what was handed back, what a person saw, what was kept."""

    def __init__(self, folder: Path) -> None:
        self.page = io.StringIO()
        self.kept = folder / "kept"
        self.story = tell(self.kept, Console(file=self.page, width=80), DOCUMENTS)
        self.steps = {step["name"]: step for step in self.story["steps"]}

    def cost(self, name: str) -> tuple[int, int]:
        """Forward passes and reused vectors of a step."""
        return self.steps[name]["embed"]["contents"], self.steps[name]["reuse"]["chunks"]

    def found(self, name: str) -> set[str]:
        """The documents that the disputed question found after a step."""
        return {hit["doc_id"] for hit in self.steps[name]["results"]}


@pytest.fixture(scope="module")
def telling(ray_cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Telling:
    folder = tmp_path_factory.mktemp("demo")
    spec = flows.demo.story.CONFIG.read_text().replace('"sentence-transformers/all-MiniLM-L6-v2"', '"hash", dimensions = 16')
    (folder / "revector.toml").write_text(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows.demo.story, "CONFIG", folder / "revector.toml")
        patch.setenv("REVECTOR_STORE", str(folder / "somebody's store"))
        return Telling(folder)


def test_the_plan_names_the_cost_that_the_first_load_then_has(telling: Telling) -> None:
    assert telling.cost("plan") == telling.cost("first load") == (DOCUMENTS, 0)
    assert telling.steps["first load"]["status"] == "published"


def test_the_page_says_how_the_model_ran_as_the_model_says_it(telling: Telling) -> None:
    assert "how the model ran on this machine: stand-in" in " ".join(telling.page.getvalue().split())


def test_without_a_change_nothing_is_done(telling: Telling) -> None:
    assert telling.cost("no-op plan") == telling.cost("no-op") == (0, 0)
    assert telling.steps["no-op"]["status"] == "nothing"


def test_an_edit_costs_what_was_edited(telling: Telling) -> None:
    assert telling.cost("edit") == (REVISED, 0)
    assert telling.steps["edit"]["documents"] == {"added": 0, "changed": REVISED, "removed": 0, "unchanged": DOCUMENTS - REVISED}


def test_a_move_of_every_document_costs_no_forward_pass(telling: Telling) -> None:
    assert telling.cost("move")[0] == 0
    assert telling.steps["move"]["status"] == "published"
    assert telling.steps["move"]["documents"]["unchanged"] == DOCUMENTS


def test_deleted_documents_are_found_no_more_until_the_rollback(telling: Telling) -> None:
    withdrawn = set(telling.steps["delete"]["withdrawn"])
    assert telling.cost("delete") == telling.cost("rollback") == (0, 0)
    assert telling.steps["delete"]["documents"]["removed"] == len(withdrawn) == WITHDRAWN
    assert not telling.found("delete") & withdrawn
    assert telling.found("rollback") == withdrawn
    assert telling.steps["rollback"]["version"] == telling.steps["move"]["version"]


def test_what_comes_back_takes_its_old_vectors(telling: Telling) -> None:
    assert telling.cost("restore") == (0, WITHDRAWN)
    assert (telling.steps["restore"]["status"], telling.steps["resume"]["status"]) == ("pinned", "published")
    assert telling.steps["resume"]["version"] == telling.steps["restore"]["version"]


def test_a_candidate_costs_nothing_and_the_switch_to_it_is_undone_exactly(telling: Telling) -> None:
    assert telling.cost("candidate") == (0, DOCUMENTS)
    assert 0 < telling.steps["compare"]["overlap"] < 1
    assert telling.steps["promote"]["generation"] == telling.steps["compare"]["candidate"] != telling.steps["back"]["generation"]
    assert telling.steps["back"]["same"]


def test_everything_stays_in_the_folder_that_was_named(telling: Telling) -> None:
    assert open_published(str(telling.kept / "store"), COLLECTION).table.count_rows() == DOCUMENTS
    assert not (telling.kept.parent / "somebody's store").exists()


def test_the_page_fits_80_columns_and_shows_every_command(telling: Telling) -> None:
    page = telling.page.getvalue()
    assert max(map(len, page.splitlines())) <= 80
    for step in telling.story["steps"]:
        assert step["command"] in " ".join(page.split())


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("the only copy")
    with pytest.raises(SpecError, match="new or empty folder"):
        tell(tmp_path, Console(file=io.StringIO()))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("question", "answer"), list(zip(QUESTIONS, ANSWERS, strict=True)))
def test_the_corpus_has_an_answer_without_a_word_of_the_question(question: Any, answer: str) -> None:
    row = next(row for row in read_glosses().to_pylist() if row["id"] == answer)
    assert words_in_common(question.text, {"text": f"{row['term']}\n\n{row['gloss']}"}) == []
    assert all(row[name] == value for name, value in question.where.items())


def test_the_corpus_is_shipped_with_its_licence() -> None:
    glosses = read_glosses()
    assert len(set(glosses["id"].to_pylist())) == len(glosses) == 8000
    licence = SHIPPED.with_name("LICENSE.wordnet").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence
