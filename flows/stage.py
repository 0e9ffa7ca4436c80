"""What both data stages share: command line, logging, errors."""

import argparse
import logging
from concurrent.futures.process import BrokenProcessPool

from prefect import Flow

from flows import server
from matpac.files import is_full
from matpac.params import load_params
from matpac.progress import stop


def run(stage: "Flow[[str], None]") -> None:
    """`python -m flows.<stage> <dataset>`; an error that the user can fix ends in one line."""
    parser = argparse.ArgumentParser(prog=f"python -m flows.{stage.name}", description=stage.description)
    parser.add_argument("dataset", help="a name under `datasets` in params.yaml")
    dataset = parser.parse_args().dataset
    quiet_prefect()
    try:
        load_params().source_of(dataset)  # Errors in params.yaml need no server.
        with server.shared():
            stage(dataset)
    except (ValueError, RuntimeError) as error:
        stop(f"{stage.name} {dataset}: {error}")
    except OSError as error:
        if not is_full(error):
            raise
        stop(
            f"{stage.name} {dataset}: the disk is full ({error}). Make room and run again; "
            "what is finished is kept."
        )


def quiet_prefect() -> None:
    """Drop lines that bury the progress: finished tasks, tracebacks of one-line errors."""
    logging.getLogger("prefect.task_runs").addFilter(_is_news)
    logging.getLogger("prefect.flow_runs").addFilter(_is_news)
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    logging.getLogger("distributed").setLevel(logging.ERROR)


def _is_news(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ValueError | BrokenProcessPool) or is_full(error):
        return False
    message = record.getMessage()
    if record.name == "prefect.flow_runs" and "Finished in state Failed" in message:
        return False  # The line that says why comes last.
    return not (record.name == "prefect.task_runs" and "Finished in state Completed" in message)
