"""`orderstream up`: the whole system on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import console
from cli.console import OutputFormat
from cli.options import DataDir, Output

if TYPE_CHECKING:
    from cli.supervisor.settings import UpSettings
    from cli.supervisor.supervisor import Supervisor
    from orderstream.sales.v1.queries_pb2 import GetSalesDashboardResponse

EXAMPLES = (
    "orderstream up --demo",
    "orderstream up --demo --exit",
    "orderstream up --data /var/lib/orderstream --query-port 8081 --nats-port 0",
)

_PORTS = "Ports on 127.0.0.1 (0: any free one)"


def _port(text: str) -> Any:
    return typer.Option(min=0, max=65535, metavar="PORT", help=text, rich_help_panel=_PORTS)


def up(
    data: DataDir = Path("data"),
    demo: Annotated[
        bool, typer.Option("--demo", help="Import the demo data (6,919 real purchases) and show the dashboard.")
    ] = False,
    stop_after: Annotated[bool, typer.Option("--exit", help="Stop when the demo is done, with status 0.")] = False,
    command_port: Annotated[int, _port("Commands and events.")] = 50051,
    query_port: Annotated[int, _port("Queries.")] = 50052,
    projector_port: Annotated[int, _port("The projector's status.")] = 50053,
    nats_port: Annotated[int, _port("The embedded broker.")] = 4222,
    command_metrics_port: Annotated[int, _port("Metrics of the command server.")] = 9464,
    query_metrics_port: Annotated[int, _port("Metrics of the query server.")] = 9465,
    projector_metrics_port: Annotated[int, _port("Metrics of the projector.")] = 9466,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Any free ports for everything.", rich_help_panel=_PORTS)
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            envvar="ORDERSTREAM_LOG_LEVEL",
            help="Which log lines of the servers to show: debug, info, warning, error.",
        ),
    ] = "warning",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Run everything on this machine: the broker, the command server, the projector and the query server.

    A part that dies is started again. Ctrl-C or SIGTERM stops all of it, in order; nothing is left behind. Other
    settings of the servers are taken from the environment (`orderstream serve NAME --help` lists them).
    """
    import asyncio

    from cli.databases import databases, upgrade_all
    from cli.supervisor.data_directory import DataDirectory
    from cli.supervisor.ports import ANY_PORTS, Ports
    from cli.supervisor.settings import UpSettings
    from cli.supervisor.supervisor import Interrupted, Supervisor
    from cqrs.serving.logging import configure_logging
    from cqrs.serving.process import new_event_loop

    if stop_after and not demo:
        raise typer.BadParameter("--exit goes with --demo: without it there is nothing that would be done")
    ports = Ports(
        command_port,
        query_port,
        projector_port,
        nats_port,
        command_metrics_port,
        query_metrics_port,
        projector_metrics_port,
    )
    settings = UpSettings(DataDirectory(data), ANY_PORTS if any_port else ports, log_level)
    settings.data.create()
    configure_logging("warning", process="up")
    with settings.data.lock() as lock:
        settings.ports.check_free()
        upgrade_all(databases(data))
        supervisor = Supervisor(settings, lock)

        async def work() -> bool:
            await _work(supervisor, settings, output, demo=demo)
            if not stop_after:
                console.note("serving; Ctrl-C stops")
            return not stop_after

        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(supervisor.run(work))
        except Interrupted as interrupted:
            console.warn("stopped before all was done")
            raise typer.Exit(interrupted.exit_code) from interrupted
    console.note("stopped")


async def _work(supervisor: Supervisor, settings: UpSettings, output: OutputFormat, *, demo: bool) -> None:
    """Run the demo, if asked for, and print what there is to know."""
    from cli.options import Connection
    from cli.supervisor.introduction import introduction, introduction_json

    connection = Connection()._replace(
        command_server=supervisor.addresses["command"].grpc, query_server=supervisor.addresses["query"].grpc
    )
    console.note(f"everything is up, with its data in {settings.data.path}")
    dashboard: GetSalesDashboardResponse | None = None
    if demo:
        from cli.supervisor.demo import run_demo

        dashboard = await run_demo(connection)
    if output is OutputFormat.TEXT:
        for part in introduction(supervisor, dashboard):
            console.stdout().print(part, soft_wrap=isinstance(part, str))
    else:
        console.print_one(output, introduction_json(supervisor, dashboard), lambda: "")
