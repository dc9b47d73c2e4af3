"""The parser of every verb. Each module of verbs adds its own and names what carries it out.

These modules import the science inside their functions: `sarhpc --help` answers in 0.3 s on a login
node.
"""

from __future__ import annotations

import argparse

from sarhpc.cli.catalog import add_catalog
from sarhpc.cli.clean import add_clean
from sarhpc.cli.configuration import add_init
from sarhpc.cli.contract import add_contract
from sarhpc.cli.corpus import add_corpus
from sarhpc.cli.decoder import add_decoder
from sarhpc.cli.demo import add_demo
from sarhpc.cli.doctor import add_doctor
from sarhpc.cli.fetch import add_fetch
from sarhpc.cli.grid import add_grid
from sarhpc.cli.inspection import add_inspect
from sarhpc.cli.job_script import add_verbs_of_jobs
from sarhpc.cli.logs import add_logs
from sarhpc.cli.nodes import add_nodes
from sarhpc.cli.report import add_report
from sarhpc.cli.running import add_run_and_resume, add_stages
from sarhpc.cli.status import add_status
from sarhpc.cli.stopping import add_stop_and_cancel
from sarhpc.cli.supervise import add_supervise
from sarhpc.cli.trusting import add_trust
from sarhpc.cli.verbs import Parser
from sarhpc.cli.verification import add_verify

PARTS = (
    add_demo,
    add_init,
    add_catalog,
    add_stages,
    add_run_and_resume,
    add_status,
    add_logs,
    add_report,
    add_clean,
    add_fetch,
    add_inspect,
    add_stop_and_cancel,
    add_supervise,
    add_verify,
    add_trust,
    add_grid,
    add_decoder,
    add_corpus,
    add_contract,
    add_verbs_of_jobs,
    add_doctor,
    add_nodes,
)
"""What adds the verbs, in the order of `sarhpc --help`."""

EPILOG = """\
A run is one directory and one frozen configuration. Each stage has a verb, `run` carries out all of
them, and any verb may be repeated at any time.

  sarhpc run runs/demo --template demo --wait
  sarhpc status runs/demo
  sarhpc resume runs/demo

Exit codes: 0 done, 1 operational, 2 usage or configuration, 3 numerical, 4 verification failed,
5 incomplete, 75 transient (try again).
"""


def build_parser() -> Parser:
    """Parser of every verb and flag; the result of parsing carries its `handler`."""
    parser = Parser(
        prog="sarhpc",
        description="From an airborne SAR archive to a text-to-SAR generator and its corpora.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for add in PARTS:
        add(verbs)
    return parser
