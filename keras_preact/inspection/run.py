"""One report from its configuration; the program data calls `run`."""

import json
from collections.abc import Sequence

from keras_preact.inspection import page
from keras_preact.inspection.config import InspectionConfig
from keras_preact.inspection.report import Report, inspect
from keras_preact.support.console import say
from keras_preact.support.files import check_replaceable, sealed
from keras_preact.support.paths import usable

JSON, HTML = "report.json", "report.html"


def run(config: InspectionConfig, words: Sequence[str] = ()) -> Report:
    """Looks at a data set, prints a summary and writes a report.

    Args:
        config: of the look.
        words: the source, in place of dataset and data_dir.

    Raises:
        ValueError: if the data or the output cannot be used; nothing is written then.
        OSError: if the output cannot be written.
    """
    config = config.of_source(words)
    folder = usable(config.output, "output", wildcards=True)
    check_replaceable(folder, config.overwrite, "output", "a report")
    report = inspect(config)
    written, found = page.html(report), json.dumps(report.to_json(), indent=2)
    with sealed(folder) as unfinished:
        (unfinished / JSON).write_text(f"{found}\n")
        (unfinished / HTML).write_bytes(written)
    say(f"{page.console(report)}\nReport: {folder / HTML}")
    return report
