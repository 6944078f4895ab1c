"""Runs, estimates or reports an experiment, as its flags say."""

from collections.abc import Sequence

from etils import epath

from keras_preact.experiments import estimate, experiment, report, runner
from keras_preact.experiments.config import REPORT, ExperimentsConfig
from keras_preact.experiments.experiment import Experiment
from keras_preact.support.console import say
from keras_preact.support.paths import usable


def run(config: ExperimentsConfig, words: Sequence[str]) -> None:
    """Runs, estimates or reports an experiment.

    Args:
        config: flags.
        words: name of a table, or "report" and perhaps the name of a table.

    Raises:
        ValueError: if the flags are wrong, or there is nothing to report.
        RunError: as `runner.Runner.run` does.
    """
    if words and words[0] == REPORT:
        for found in _recorded(config, words[1:]):
            say(report.write(found))
        return
    wanted = config.experiment(words)
    trials = config.chosen_trials(wanted)
    if config.dry_run:
        say(estimate.table(wanted, trials, say, config.parallel_runs))
        return
    say(_told(wanted, trials))
    wanted = experiment.write(wanted)
    limits = runner.Limits(config.parallel_runs, config.max_runtime_minutes)
    runs = runner.Runner(wanted, trials, limits, say, ended=report.sparing(wanted))
    try:
        runs.run()
    finally:
        say(report.write(wanted))
    say(runs.summary())


def _recorded(config: ExperimentsConfig, words: Sequence[str]) -> list[Experiment]:
    """The experiments to report: that of the flags, or all whose records lie in the folder."""
    if words or config.table or config.budget:
        return [config.experiment(words)]
    folder = usable(config.output_dir, "output_dir")
    paths = sorted(folder.glob(f"reports/*/{experiment.RECORD}"))
    if not paths:
        raise ValueError(
            "output_dir must be the folder of an experiment, with reports/NAME/"
            f"{experiment.RECORD}; or give its table and budget, as in report table1 "
            f"--budget=short. Received: output_dir={folder}"
        )
    return [experiment.read(folder, epath.Path(path).parent) for path in paths]


def _told(wanted, trials):
    return (
        f"{wanted.table.title}: {len(trials)} runs. Budget {wanted.budget.name}: "
        f"{wanted.budget.meaning}.\nReport: {wanted.report_folder}"
    )
