"""The demo provider as a command: arguments, signals, one line when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from apps.providers.demo.faults import describe
from apps.providers.demo.server import DemoProvider

DESCRIPTION = "Serve the dialects of providers without a model behind them, on loopback only."
DEFAULT_PORT = 9100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser."""
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port")
    parser.add_argument("--log", metavar="FILE", help="append one JSON line per ended call")
    parser.add_argument("--api-key", help="the only key accepted (default: any)")


def list_faults() -> str:
    """Return what follows the arguments in the help text."""
    return describe()


def serve(*, host: str, port: int, log: str | None, api_key: str | None) -> None:
    """Serve until SIGINT or SIGTERM. Raises NotLoopback."""
    provider = DemoProvider(host=host, port=port, log_path=log, api_key=api_key)
    asyncio.run(_serve(provider))


async def _serve(provider: DemoProvider) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await provider.start()
    # Whoever started this reads the port from here.
    sys.stdout.write(f"listening on {provider.host}:{provider.port}\n")
    sys.stdout.flush()
    await stopping.wait()
    await provider.stop()


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.providers.demo",
        description=DESCRIPTION,
        epilog=list_faults(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    chosen = parser.parse_args(arguments)
    try:
        serve(host=chosen.host, port=chosen.port, log=chosen.log, api_key=chosen.api_key)
    except (ValueError, OSError) as error:
        parser.exit(2, f"demo provider: {error}\n")
