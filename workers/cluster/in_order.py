"""A function of each of many items as tasks of a Ray cluster: results in order, a bounded number ahead of the consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from pipelines.errors import WorkerError
from workers.cluster.nodes import describe, elsewhere

TASK_SECONDS = 3600.0
"""After which a task counts as hung."""
RETRIES = 3
"""Of a task whose process or node died."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Call = Callable[[Item], Answer]
"""Does one item, again: a task of its own, whose answer is waited for. Raises `deaths`."""


def in_order(
    ray: Any,
    function: Callable[[Any, Item], Answer],
    common: Any,
    items: Iterable[Item],
    label: Mapping[str, str],
    apart: Callable[[Item, Call[Item, Answer], Exception], Answer] | None = None,
) -> Iterator[Answer]:
    """`function(common, item)` of each item, as CPU tasks. Ray repeats those that a lost node had.

    `label`: of the nodes that the actors are meant for: others go first. `apart`: for an item that ended each process that did it.
    Raises what `function` raises, WorkerError if there is no answer.
    """
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
    shared = ray.put(common)
    waiting: deque[tuple[Item, Any]] = deque()

    def call(item: Item) -> Any:
        return task.options(**elsewhere(ray, label)).remote(shared, item)

    def again(item: Item) -> Answer:
        answer: Answer = _answer(ray, call(item))
        return answer

    def first() -> Answer:
        item, pending = waiting.popleft()
        try:
            answer: Answer = _answer(ray, pending)
        except deaths(ray) as error:
            if apart is None:
                raise WorkerError(f"expected a task to end, found {type(error).__name__} on {describe(ray)}: run again") from error
            return apart(item, again, error)
        return answer

    for item in items:
        while len(waiting) >= _ahead(ray):
            yield first()
        waiting.append((item, call(item)))
    while waiting:
        yield first()


def deaths(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises when a task's process has died each time that it was tried."""
    return ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError


def _ahead(ray: Any) -> int:
    """Tasks to have submitted at a time, so that the cluster as it is now is never idle: two for each CPU."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))


def _answer(ray: Any, call: Any) -> Any:
    """What the task gave, or the error that it raised, as if it had been raised here. Raises `deaths` if its processes died."""
    try:
        return ray.get(call, timeout=TASK_SECONDS)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except deaths(ray):
        raise
    except ray.exceptions.RayError as error:
        within, instead = f"within {TASK_SECONDS:.0f} s", type(error).__name__
        raise WorkerError(f"expected a task to end {within}, found {instead} on {describe(ray)}: run again") from error
