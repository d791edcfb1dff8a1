"""A provider without a model behind it: deterministic, in several dialects, misbehaving on request.

For trying the gateway and for its tests. Needs no settings and no database; `faults.py` has the
table of what a model name can ask for.
"""

from apps.providers.demo.calls import Call
from apps.providers.demo.server import DemoProvider, NotLoopback

__all__ = ["Call", "DemoProvider", "NotLoopback"]
