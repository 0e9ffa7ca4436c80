"""What both data stages share: command line, logging, errors."""

import argparse
import logging
from concurrent.futures.process import BrokenProcessPool

from prefect import Flow

from flows import server
from matpac.files import is_full, line_of
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
    except (ValueError, RuntimeError, OSError) as error:
        line = line_of(error)
        if is_full(error):
            line = f"the disk is full ({line}). Make room and run again; what is finished is kept."
        stop(f"{stage.name} {dataset}: {line}")


def quiet_prefect() -> None:
    """Drop lines that bury the progress: finished tasks, and on the terminal what its last line says.

    Prefect's pages get the whole reason of a failure: it stands in the Logs tab of the run.
    """
    logging.getLogger("prefect.task_runs").addFilter(_is_no_success)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_no_known_failure)
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    logging.getLogger("distributed").setLevel(logging.ERROR)


def _is_no_success(record: logging.LogRecord) -> bool:
    return "Finished in state Completed" not in record.getMessage()


def _is_no_known_failure(record: logging.LogRecord) -> bool:
    if record.name not in ("prefect.flow_runs", "prefect.task_runs"):
        return True
    error = record.exc_info[1] if record.exc_info else None
    names_a_file = isinstance(error, OSError) and error.filename is not None
    if isinstance(error, ValueError | BrokenProcessPool) or is_full(error) or names_a_file:
        return False
    return "Finished in state Failed" not in record.getMessage()
