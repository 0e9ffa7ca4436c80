"""params.yaml -> deployments of the flows, to be started, scheduled and watched in Prefect's pages.

python -m flows.serve
"""

import argparse
import asyncio
import inspect
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import yaml
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Schedule
from prefect.settings import PREFECT_UI_URL
from prefect.types.entrypoint import EntrypointType

from flows import server
from flows.download import download
from flows.reproduce import reproduce
from flows.shards import shards
from matpac import __version__
from matpac.files import line_of
from matpac.params import Params, load_params
from matpac.progress import say, stop

OFFERED: dict[str, Flow[..., Any]] = {"download": download, "shards": shards, "reproduce": reproduce}
WORK_POOL = "local"
HEADER = f"""\
# Deployments for a work pool and its workers; `python -m flows.serve` offers the same without either.
# Made from params.yaml by `python -m flows.serve --prefect-yaml > prefect.yaml`: make changes there.
#   prefect work-pool create {WORK_POOL} --type process
#   prefect --no-prompt deploy --all
#   prefect worker start --pool {WORK_POOL}
# A removed schedule stays on the server until `prefect deployment schedule clear shards/shards`.
"""
ABOUT = """\
Offer download, shards and reproduce in Prefect's pages, and run here what is started there, until Ctrl-C.

Without PREFECT_API_URL, this project's own server is used and stays up as long as this runs.
Schedules are cron lines in UTC in params.yaml (schedules); those of download and shards run for every
dataset. Runs of one flow wait for each other, so that two never write one store. Restart this after a
change of datasets or schedules. A deployment paused in Prefect's pages stays paused. Scheduled runs
that were missed while this did not run are dropped.
"""


def deployments(params: Params) -> list[dict[str, Any]]:
    """One deployment for each flow, in the form of prefect.yaml.

    Raises ValueError if a schedule is no cron line.
    """
    datasets = [{"dataset": name} for name in params.datasets]
    return [
        {
            "name": name,
            "version": __version__,
            "tags": ["matpac"],
            "description": (inspect.getdoc(flow.fn) or "").split("\n\n")[0],
            "entrypoint": f"flows/{name}.py:{name}",
            "parameters": {} if name == "reproduce" else datasets[0],
            "schedules": schedules(name, params, [{}] if name == "reproduce" else datasets),
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "work_pool": {"name": WORK_POOL},
        }
        for name, flow in OFFERED.items()
    ]


def schedules(name: str, params: Params, parameters: list[dict[str, str]]) -> list[dict[str, Any]]:
    """One schedule for each of `parameters`, or none. UTC, since many machines may read them."""
    cron = getattr(params.schedules, name)
    if cron is None:
        return []
    try:
        Schedule(cron=cron)
    except ValueError:
        raise ValueError(
            f"schedules.{name}: need a cron line (minute, hour, day, month, day of the week), found {cron!r}"
        ) from None
    return [{"cron": cron, "timezone": "UTC", "parameters": chosen} for chosen in parameters]


def prefect_yaml(params: Params) -> str:
    text = yaml.dump({"deployments": deployments(params)}, Dumper=_Plain, sort_keys=False, width=110)
    return HEADER + text


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        """No anchors and aliases: they are correct YAML, but few people can read them."""
        return True


def served_here(deployment: dict[str, Any]) -> RunnerDeployment:
    made = OFFERED[deployment["name"]].to_deployment(
        deployment["name"],
        version=deployment["version"],
        tags=deployment["tags"],
        description=deployment["description"],
        parameters=deployment["parameters"],
        schedules=[Schedule(**schedule) for schedule in deployment["schedules"]],
        concurrency_limit=ConcurrencyLimitConfig(**deployment["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)
    # Set to None outright: a deployment made for a work pool earlier then moves to this process.
    made.work_pool_name = made.work_queue_name = None
    # Left unset, so that a pause set in Prefect's pages holds.
    made.model_fields_set.discard("paused")
    return made


def drop_missed_runs() -> None:
    """Delete scheduled runs of the past: after a week off, one run is enough."""
    with get_client(sync_client=True) as client:
        for name in OFFERED:
            try:
                deployment = client.read_deployment_by_name(f"{name}/{name}")
            except ObjectNotFound:
                continue
            waiting = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]),
                    state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Scheduled", "Late"])),
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_ASC,
            )
            for run in waiting:
                due = run.expected_start_time
                if run.auto_scheduled and due is not None and due < datetime.now(UTC):
                    client.delete_flow_run(run.id)


async def serve(offered: list[RunnerDeployment]) -> None:
    """Run what is started, until SIGINT or SIGTERM; then cancel what still runs."""
    runner = Runner(pause_on_shutdown=False)
    for deployment in offered:
        await runner.aadd_deployment(deployment)
    told_to_stop = asyncio.Event()
    running = asyncio.create_task(runner.start())
    await asyncio.sleep(0)
    # After the runner's start, to replace its own handler of SIGTERM, which leaves its runs behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    waiting = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if told_to_stop.is_set():
        await runner.astop()
    waiting.cancel()
    await running


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m flows.serve", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--prefect-yaml",
        action="store_true",
        help="print the deployments as a prefect.yaml for work pools and workers, and do nothing else",
    )
    wanted = parser.parse_args()
    try:
        params = load_params()
        if wanted.prefect_yaml:
            sys.stdout.write(prefect_yaml(params))
            return
        offered = [served_here(deployment) for deployment in deployments(params)]
        with server.shared():
            drop_missed_runs()
            say(
                f"Start and watch runs at {PREFECT_UI_URL.value()}/deployments (Ctrl-C stops this).",
                out=True,
            )
            asyncio.run(serve(offered))
    except (ValueError, RuntimeError, OSError) as error:
        stop(f"serve: {line_of(error)}")


if __name__ == "__main__":
    main()
