"""python -m tests.fake_cuda.running <module> <function> <arguments as JSON>: prints what it returns.

Only where cudart.c has been preloaded.
"""

import importlib
import json
import sys

from tests.fake_cuda.watching import fake_cuda


def main(module: str, function: str, arguments: str) -> None:
    with fake_cuda():
        found = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
