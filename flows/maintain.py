"""The flow that looks after a collection's tables."""

from typing import Any

from prefect import flow
from prefect.states import Completed

from flows.flow_run.child import follow
from flows.flow_run.flow_job import HOOKS, attend, failed, turn
from flows.flow_run.parameters import CollectionName, ConfigFile, StoreUri
from flows.show import artifacts
from flows.show.words import megabytes


@flow(name="revector-maintain", flow_run_name="maintain {collection}", retries=0, log_prints=False, **HOOKS)
def maintain(collection: CollectionName, config: ConfigFile = "revector.toml", store: StoreUri | None = None) -> dict[str, Any]:
    """Compact, index, and remove what nothing needs: `revector maintain` as a Prefect flow. Gives what `maintain --json` does.

    The state is Maintained, Nothing, Superseded or Conflict. It never erases: that is for a person to start.
    """
    with attend(collection, config, store) as job, turn(job) as refused:
        state: Any = refused
        if refused is None:
            progress = artifacts.ProgressArtifact(job.key("upkeep-progress"))
            done = follow(job.run("maintain"), progress)
            if done.result is None:
                state = failed(done)
            else:
                headline = _headline(done.result)
                progress.show(100.0, headline)
                artifacts.show_table(job.key("upkeep"), _table(done.result), headline)
                state = Completed(name=done.result["status"].capitalize(), message=headline, data=done.result)
        result: dict[str, Any] = state
        return result


def _headline(result: dict[str, Any]) -> str:
    if result["status"] == "nothing":
        return f"{result['collection']} needs no upkeep"
    return f"{result['collection']} was maintained: {megabytes(result['freed']['bytes'])} freed"


def _table(result: dict[str, Any]) -> artifacts.Rows:
    return [{name: value for name, value in table.items() if not isinstance(value, dict | list)} for table in result["tables"]]
