"""bias: whether words of two groups are nearer to one sort of words than to another."""

from collections.abc import Sequence
from typing import Any

from pipelines.errors import SpecError
from pipelines.measures.association import Association, WordTest, built_in_tests, measure_test, parse_tests, worst
from pipelines.measures.gate import Gate, unmeasured
from pipelines.spec.reports import BiasOptions
from workers.embedding.encoding import Encoding
from workers.reports.analysis import Findings, Study

Tests = Sequence[tuple[WordTest, Association | None]]


def study_bias(study: Study) -> Findings:
    """An association test of each pair of word lists: effect size and p."""
    options = study.options
    assert isinstance(options, BiasOptions)
    with Encoding(study.version, study.spec.workers) as encoding:
        found = associations(options, study.files.get("words"), encoding)
    limit = study.spec.gates.max_bias
    summary = {"sentence": options.sentence, "largest": worst(found), "tests": [_told(test, one) for test, one in found]}
    return Findings(summary, () if limit is None else (bias_gate(found, limit),))


def associations(options: BiasOptions, words: bytes | None, encoding: Encoding) -> Tests:
    """What the model makes of each word, in the sentence of the options. Raises SpecError for a file that is not of word lists."""
    tests = list((built_in_tests() if words is None else _read(words)).values())
    names = list(dict.fromkeys(word for test in tests for word in test.words))
    vectors = dict(zip(names, encoding.encode([options.sentence.replace("{}", name) for name in names], "document"), strict=True))
    return [(test, measure_test(test, {word: vectors[word] for word in test.words})) for test in tests]


def bias_gate(found: Tests, limit: float) -> Gate:
    """The largest effect that chance does not explain, beside its limit."""
    largest = worst(found)
    if largest is None:
        return unmeasured("bias", "promotion", limit, "not measured: the model knows too few of the words")
    told = [f"{test} {one.effect:.2f} (p {one.p:.3g})" for test, one in found if one and not test.neutral]
    detail = f"largest effect {largest:.2f} of {'; '.join(told)}; at most {limit:g} (gates.max_bias)"
    return Gate("bias", "promotion", largest, limit, largest <= limit, detail)


def _read(words: bytes) -> dict[str, WordTest]:
    try:
        tests = parse_tests(words.decode())
    except ValueError as error:  # of TOML and of UTF-8, too
        raise SpecError(f"reports.bias.words: {error}") from None
    if not tests:
        raise SpecError("reports.bias.words: expected tables with targets and attributes, found none")
    return tests


def _told(test: WordTest, found: Association | None) -> dict[str, Any]:
    about = {"name": test.name, "what": str(test), "neutral": test.neutral}
    if found is None:
        return about | {"effect": None, "why": "the model knows too few of the words"}
    return about | {"effect": found.effect, "p": found.p, "exact": found.exact, "missing": found.missing, "significant": found.significant}
