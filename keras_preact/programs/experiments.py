"""Re-runs a table of the paper, or one of your own, and reports measured beside published errors:
experiments TABLE, or experiments --table=FILE.toml; experiments report writes the report anew.
"""

from keras_preact.experiments import run
from keras_preact.experiments.config import ExperimentsConfig
from keras_preact.experiments.paper import TABLES
from keras_preact.support import program

_WORDS = "words"
_TABLES = "\n".join(
    f"  {table.name}: {table.title}, {len(table.rows)} rows" for table in TABLES.values()
)
DESCRIPTION = f"{__doc__}\ntables:\n{_TABLES}"


def main(given: dict) -> None:
    """Runs as the fields of `ExperimentsConfig` that the user set, and the words, say."""
    words = given.pop(_WORDS, ())
    run.run(ExperimentsConfig(**given), words)


def start(command: str | None = None) -> None:
    """Runs the program and ends the process; see `program.start`."""
    unfinished = "finished runs are kept; the same command goes on with the others"
    program.start(main, ExperimentsConfig, DESCRIPTION, unfinished, command, _WORDS)
