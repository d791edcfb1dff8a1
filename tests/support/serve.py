"""Runs `manage.py serve` with some constants changed, and with faults planted by a test.

`python -m tests.support.serve JSON …`: the JSON is `{"constants": {"module:NAME": value}, "plant":
["module:function"]}`; what follows it are the arguments of `manage.py serve`.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

import django
from django.core.management import execute_from_command_line


def main() -> None:
    """Change what was asked for, then serve."""
    wishes = json.loads(sys.argv[1])
    django.setup()
    for name, value in wishes["constants"].items():
        module, _, constant = name.partition(":")
        if not hasattr(import_module(module), constant):
            raise LookupError(f"{module} has no {constant}")
        setattr(import_module(module), constant, value)
    for name in wishes["plant"]:
        module, _, function = name.partition(":")
        getattr(import_module(module), function)()
    execute_from_command_line(["manage.py", "serve", *sys.argv[2:]])


if __name__ == "__main__":
    main()
