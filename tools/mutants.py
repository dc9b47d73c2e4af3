"""Do the tests see single changes to the code? Mutation testing with Cosmic Ray.

    make test-mutants                               every module of tests/mutants/modules.toml
    make test-mutants MODULES="hpc/publish.py"      some of them
    make test-mutants MOST=0                        every mutant, not a sample of 40 a module

Each mutant is one change (a comparison, a number, a dropped call, a swapped pair ...) in a copy of
the working tree under build/mutants, against the tests that the table names for its module: those
of the module and of its neighbours. Each run of the tests is a fork of `mutant_tests.py`, so that
packages are imported once a module. `tests/mutants/equivalent.toml` lists changes that no test can
see because the program does the same, each with the reason; they do not count. Run by the Python
of build/mutants/venv, which has Cosmic Ray; the tests run by the project's own.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.commands import init
from cosmic_ray.mutating import apply_mutation, restore_contents
from cosmic_ray.operators.operator import Operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec
from mutant_operators import Provider

REPOSITORY = Path(__file__).resolve().parent.parent
TABLES = REPOSITORY / "tests" / "mutants"
BUILD = REPOSITORY / "build" / "mutants"
GOAL = 0.9

_OPERATORS = re.compile(
    "core/(Replace(Comparison|Binary|Unary)Operator_("
    "Eq_NotEq|NotEq_Eq|Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Is_IsNot|IsNot_Is|"
    "Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_Mul|Pow_Mul|BitAnd_BitOr|"
    "Delete_Not|Delete_USub|Delete_Invert)"
    "|AddNot|NumberReplacer|ExceptionReplacer|ZeroIterationForLoop"
    "|Replace(TrueWithFalse|FalseWithTrue|AndWithOr|OrWithAnd)"
    "|Replace(BreakWithContinue|ContinueWithBreak)"
    ")|house/.*"
)
"""One replacement of each kind: the other nine of an operator say little more."""
_NOT_TESTED = re.compile(r"^\s*(_?log\.|@)|TYPE_CHECKING|_passages")
"""Lines whose changes nobody promises anything about: log lines and decorators."""
_MEANINGLESS = {
    "core/AddNot": re.compile(r"\b(if|while) not "),  # the same as leaving the `not` out
    "core/ReplaceBinaryOperator_Div_Mul": re.compile(r"/ (f?\"|name|path|[A-Z]+\b)"),  # of a path
    "core/ReplaceBinaryOperator_Mul_Div": re.compile(r"[\[({,] ?\*|^ *\*,"),  # no product
    "core/ReplaceBinaryOperator_Pow_Mul": re.compile(r"[\[{(,] ?\*\*"),  # no power
}
"""Changes that end in a TypeError, which any test sees, or that another operator makes as well."""


@dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    spec: MutationSpec
    was: str
    becomes: str


@dataclass
class Score:
    """What became of the mutants of one module."""

    module: str
    killed: int = 0
    equivalent: int = 0
    survived: list[Mutant] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counted(self) -> int:
        """Mutants without equivalents."""
        return self.killed + len(self.survived)


def main(words: Sequence[str] | None = None) -> int:
    """Test the mutants; 1 when the tests see less than the goal or fail by themselves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="paths of modules; all of the table by default")
    parser.add_argument("--most", type=int, default=40, help="mutants a module; 0 for all")
    parser.add_argument("--python", type=Path, default=REPOSITORY / ".venv" / "bin" / "python")
    parser.add_argument("--list", action="store_true", help="print the mutants, test none")
    arguments = parser.parse_args(words)
    table = tomllib.loads((TABLES / "modules.toml").read_text())
    if unknown := sorted({*arguments.modules} - {*table}):
        parser.error(f"not in {TABLES / 'modules.toml'}: {', '.join(unknown)}")
    cosmic_ray.plugins.OPERATOR_PROVIDERS["house"] = Provider()
    with _copy_of_the_tree():
        scores = [
            score_module(module, table[module], arguments)
            for module in arguments.modules or sorted(table)
        ]
    return 0 if arguments.list else report(scores)


@contextlib.contextmanager
def _copy_of_the_tree() -> Iterator[None]:
    """Work in a fresh copy of the tracked and new files, alone."""
    BUILD.mkdir(parents=True, exist_ok=True)
    lock = (BUILD / "lock").open("w")  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"another run works in {BUILD}; wait for its end") from None
    tree = BUILD / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, files.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, tree / name)
    # The project is installed in place: the copy has to come before it.
    os.environ["PYTHONPATH"] = str(tree)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("SARHPC_TEST_DATA", str(REPOSITORY.parent / "shared" / "data"))
    with contextlib.chdir(tree):
        yield


def score_module(module: str, tests: Sequence[str], arguments: argparse.Namespace) -> Score:
    """Test a sample of the mutants of `module`."""
    start = time.monotonic()
    score = Score(module)
    known, chosen = equivalents_of(module), []
    for mutant in mutants_of(module):
        if (mutant.was, mutant.becomes) in known:
            score.equivalent += 1
        elif len(chosen) < arguments.most or arguments.most == 0:
            chosen.append(mutant)
        else:
            break
    chosen.sort(key=lambda mutant: mutant.spec.start_pos)
    if arguments.list:
        for mutant in chosen:
            print(f"{module}:{mutant.spec.start_pos[0]}: {mutant.was}  ->  {mutant.becomes}")
        return score
    with _running(arguments.python, tests) as passed:
        if not passed(600):
            output = (BUILD / "output").read_text()
            raise SystemExit(f"the tests of {module} fail without any change:\n{output}")
        imported = time.monotonic()
        passed(600)
        limit_s = 8 + 6 * (time.monotonic() - imported)
        for mutant in chosen:
            with restore_contents(mutant.spec.module_path):
                apply_mutation(
                    mutant.spec.module_path, _operator(mutant.spec), mutant.spec.occurrence
                )
                survived = passed(limit_s)
            if survived:
                score.survived.append(mutant)
                line = mutant.spec.start_pos[0]
                print(f"survived {module}:{line}: {mutant.was}  ->  {mutant.becomes}", flush=True)
            else:
                score.killed += 1
    score.seconds = time.monotonic() - start
    print(_line(score), flush=True)
    return score


@contextlib.contextmanager
def _running(python: Path, tests: Sequence[str]) -> Iterator[Callable[[float], bool]]:
    """A function that runs the tests, for some seconds at most, and says whether they passed."""
    server = subprocess.Popen(
        [python, "tools/mutant_tests.py", BUILD / "output", *tests],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None

    def passed(limit_s: float) -> bool:
        """Whether the tests pass on the tree as it is now."""
        print(limit_s, file=server.stdin, flush=True)
        answer = server.stdout.readline().strip()
        if answer not in ("passed", "failed", "timeout"):
            raise SystemExit(f"tools/mutant_tests.py ended, exit code {server.wait()}")
        return answer == "passed"

    with server:  # whose end closes the standard input of the process, which ends it
        yield passed


def equivalents_of(module: str) -> set[tuple[str, str]]:
    """Changed lines, before and after, that no test can see."""
    listed = tomllib.loads((TABLES / "equivalent.toml").read_text()).get("mutant", [])
    return {(one["was"], one["becomes"]) for one in listed if one["module"] == module}


def mutants_of(module: str) -> Iterator[Mutant]:
    """The mutants of `module`, in an order like random that does not depend on line numbers."""
    lines = Path(module).read_text().splitlines()
    session = BUILD / "session.sqlite"
    session.unlink(missing_ok=True)
    ranked: list[tuple[str, MutationSpec]] = []
    with use_db(str(session)) as work:
        init([Path(module)], work, {})
        for item in work.work_items:
            [spec] = item.mutations
            line = lines[spec.start_pos[0] - 1]
            if _is_tested(spec.operator_name, line):
                same = sum(other.start_pos == spec.start_pos for _, other in ranked)
                place = spec.start_pos[1] - len(line) + len(line.lstrip())
                identity = f"{module} {line.strip()} {place} {spec.operator_name} {same}"
                ranked.append((hashlib.sha256(identity.encode()).hexdigest(), spec))
    for _, spec in sorted(ranked, key=lambda pair: pair[0]):
        was, becomes = _change(spec)
        if was != becomes:
            yield Mutant(spec, was, becomes)


def _is_tested(operator: str, line: str) -> bool:
    """Whether a change by `operator` in `line` says something of the tests."""
    if not _OPERATORS.fullmatch(operator) or _NOT_TESTED.search(line):
        return False
    return operator not in _MEANINGLESS or not _MEANINGLESS[operator].search(line)


def _operator(spec: MutationSpec) -> Operator:
    return cosmic_ray.plugins.get_operator(spec.operator_name)(**spec.operator_args)


def _change(spec: MutationSpec) -> tuple[str, str]:
    """The line that a mutant changes, before and after, without indentation."""
    operator = _operator(spec)
    with restore_contents(spec.module_path):
        try:
            before, after = apply_mutation(spec.module_path, operator, spec.occurrence)
        except AttributeError:
            return "", ""  # Cosmic Ray 8.7 cannot replace an exception with a dot in its name
    pairs = zip(before.splitlines(), (after or before).splitlines(), strict=False)
    was, becomes = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return was.strip(), becomes.strip()


def report(scores: Sequence[Score]) -> int:
    """Print the table; 1 below the goal."""
    print(
        f"\n{'module':<48}{'mutants':>8}{'killed':>8}{'survived':>9}{'seen':>7}{'equiv.':>8}{'s':>7}"
    )
    for score in scores:
        print(_line(score))
    whole = Score("all", sum(s.killed for s in scores), sum(s.equivalent for s in scores))
    whole.survived = [mutant for score in scores for mutant in score.survived]
    whole.seconds = sum(score.seconds for score in scores)
    print(_line(whole))
    return 0 if whole.killed >= GOAL * whole.counted else 1


def _line(score: Score) -> str:
    seen = score.killed / score.counted if score.counted else 1.0
    return (
        f"{score.module:<48}{score.counted:>8}{score.killed:>8}{len(score.survived):>9}"
        f"{seen:>7.0%}{score.equivalent:>8}{score.seconds:>7.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
