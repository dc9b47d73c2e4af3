"""The verb `nodes`: nodes excluded from jobs."""

from __future__ import annotations

import argparse
import json

from hpc.errors import ConfigError, HpcError
from sarhpc.cli.verbs import Verbs, add_verb


def add_nodes(verbs: Verbs) -> None:
    """Add `nodes`."""
    nodes = add_verb(verbs, "nodes", "list or edit the nodes excluded from jobs")
    nodes.add_argument("--forgive", action="append", metavar="NODE", help="take it off the list")
    nodes.add_argument("--mark", action="append", metavar="NODE", help="put it on the list")
    nodes.add_argument("--reason", default="marked by hand", help="with --mark: why")
    nodes.add_argument("--hours", type=float, default=72.0, help="with --mark: how long (72)")
    nodes.add_argument("--cluster", help="Slurm's ClusterName (default: that of this machine)")
    nodes.add_argument("--json", action="store_true", help="machine-readable")
    nodes.set_defaults(handler=nodes_verb)


def nodes_verb(arguments: argparse.Namespace) -> int:
    """Show the nodes excluded from jobs; mark or forgive some."""
    from hpc.cluster.bad_nodes import BadNodeList

    listed = BadNodeList(arguments.cluster or _cluster())
    for node in arguments.forgive or ():
        print(f"{node}: forgiven" if listed.forgive(node) else f"{node}: was not on the list")
    for node in arguments.mark or ():
        bad = listed.mark(node, arguments.reason, hours=arguments.hours)
        print(f"{node}: excluded until {bad.until}")
    marked = listed.current()
    if arguments.json:
        print(json.dumps([vars(bad) for bad in marked], indent=1))
        return 0
    for bad in marked:
        found_by = f"job {bad.job}" if bad.job else "a person"
        print(f"{bad.node:<16} until {bad.until[:16]}  by {found_by}: {bad.reason}")
    if not marked:
        print("no node is marked bad")
    return 0


def _cluster() -> str:
    from hpc.cluster import slurm

    try:
        name = slurm.cluster_name()
    except HpcError:
        name = None
    if name is None:
        raise ConfigError("the name of the cluster is unknown here; give --cluster NAME")
    return name
