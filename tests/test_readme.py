"""README.md is short, and names what exists."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
MOST_LINES = 120


def test_it_fits_on_two_screens():
    assert len(README.splitlines()) <= MOST_LINES


def test_it_has_what_newcomers_look_for():
    headings = " ".join(re.findall(r"^## (.*)$", README, re.MULTILINE)).lower()
    for word in ("install", "train", "resume", "your own images", "evaluate", "export", "serve"):
        assert word in headings
    assert "analyse" in headings and "limits" in headings


def test_make_knows_its_commands():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_recipes_are_all_there_with_the_papers_errors():
    recipes = set()
    for names, errors in re.findall(r"^\| (`\w+_resnet.*?) \| (.*) \|$", README, re.MULTILINE):
        names = re.findall(r"`(\w+)`", names)
        recipes |= set(names)
        for name, error in zip(names, re.findall(r"[\d.]+ %", errors), strict=False):
            if "ours" not in errors:
                assert error in (ROOT / "configs" / f"{name}.flags").read_text()
    assert recipes == {path.stem for path in (ROOT / "configs").glob("*_resnet*.flags")}
