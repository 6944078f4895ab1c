"""The pages of the documentation say what is so: their code runs, their links lead somewhere."""

import ast
import contextlib
import inspect
import re
import runpy
import tomllib
import traceback

import pytest
from absl import flags
from image_encoding import encode, smooth_image
from pages import (
    LANGUAGES,
    MINUTES,
    NEEDS,
    PAGES,
    ROOT,
    TEXTS,
    Block,
    Clone,
    blocks,
    program,
    prose,
    write_files,
)

from keras_preact.layers import ORDERS, SHORTCUTS
from keras_preact.support import flags as config_flags

WRITE_FLAGS = runpy.run_path(str(ROOT / "docs" / "write_flags.py"))
CONFIGS = WRITE_FLAGS["PROGRAMS"]
BLOCKS = [block for page in TEXTS for block in blocks(page)]
# Flags of every program, and files of the programs that argparse serves.
OTHER_FLAGS = {"debug", "flagfile", "help", "recipe"}
SERVER_FLAGS = {
    "allow_version_labels_for_unavailable_models",
    "batching_parameters_file",
    "enable_batching",
}
ARGPARSE = ("conversion/run.py", "doctor/run.py", "exporting/serving/client.py")


def where(block):
    return f"{block.page}:{block.line}"


def table(page, first_header):
    """The rows of a page's table, as lists of cells, by the header of its first column."""
    [rows] = re.findall(
        rf"^\| {re.escape(first_header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGES[page], re.MULTILINE
    )
    return [
        [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        for row in rows.splitlines()
    ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, server):
    """A clone in which the placeholders of the pages, FOLDER and IMAGE, stand for images."""
    root = tmp_path_factory.mktemp("clone")
    for split, count in (("train", 4), ("val", 2)):
        for seed, name in enumerate(("ants", "bees")):
            folder = root / "FOLDER" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = smooth_image(40, 48, 10 * number + seed)
                (folder / f"{number}.jpg").write_bytes(encode(image, "JPEG"))
    (root / "IMAGE").write_bytes(encode(smooth_image(40, 48), "JPEG"))
    return Clone(root, server)


def run(page, clone, *needs):
    """Runs the blocks of a page, in order, that need one of these; None stands for nothing."""
    namespace = {"__name__": "page"}
    with contextlib.chdir(clone.folder):
        for block in blocks(page):
            if block.needs in needs:
                clone.run(block, namespace)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, clone):
    run(page, clone, None)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if f"needs: {MINUTES} " in PAGES[page]])
def test_the_blocks_of_a_page_that_take_minutes_run(page, clone):
    run(page, clone, None, MINUTES)


@pytest.mark.parametrize(
    ("language", "code", "error"),
    [
        ("python", "\nraise KeyError\n", KeyError),
        ("shell", "true\nkeras-preact export --run_dir=missing\n", AssertionError),
        ("shell", "false\n", AssertionError),
        ("shell", "false | true\n", AssertionError),
    ],
    ids=["python", "program", "command", "pipe"],
)
def test_a_block_that_fails_is_noticed(language, code, error, clone):
    with pytest.raises(error) as raised:
        clone.run(Block("page.md", 7, language, code, None), {})
    if language == "python":
        frame = traceback.extract_tb(raised.tb)[-1]
        assert (frame.filename, frame.lineno) == ("page.md", 8)
    else:
        assert "page.md, line 7" in str(raised.value)


@pytest.mark.parametrize("block", BLOCKS, ids=where)
def test_a_block_names_its_language_and_what_it_needs(block):
    assert block.language in LANGUAGES
    assert block.needs is None or block.needs in NEEDS


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in ("shell", "bash")], ids=where
)
def test_the_flags_of_a_command_are_its_programs(block, monkeypatch, clone):
    write_files(block.page, clone.folder)
    monkeypatch.chdir(clone.folder)
    for words in block.commands:
        verb, arguments = program(words) or (None, [])
        # Only a shell knows its variables.
        if verb not in CONFIGS or "$" in " ".join(arguments):
            continue
        config, values = CONFIGS[verb], flags.FlagValues()
        config_flags.define(config, values)
        parse = config_flags.parser("", config, values, words=True, recipes=verb == "train")
        parse([verb, *arguments])
        config(**config_flags.given(config, values))


@pytest.mark.parametrize("page", TEXTS)
def test_the_flags_that_a_page_names_exist(page):
    known = {field for config in CONFIGS.values() for field in config.__dataclass_fields__}
    for path in ARGPARSE:
        source = (ROOT / "keras_preact" / path).read_text()
        known |= set(re.findall(r'add_argument\(\s*"--(\w+)"', source))
    named = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9_]*)\b", prose(TEXTS[page])))
    assert {name for name in named if name.removeprefix("no") not in known} <= (
        OTHER_FLAGS | SERVER_FLAGS
    )


@pytest.mark.parametrize("page", TEXTS)
def test_the_links_of_a_page_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([\w-]+))?\)", TEXTS[page]):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in headings]
            assert anchor in slugs, target


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_the_readme_links_a_page(page):
    assert f"]({page})" in PAGES["README.md"]


def test_the_page_of_flags_is_up_to_date():
    assert PAGES["docs/flags.md"] == WRITE_FLAGS["page"](), "python docs/write_flags.py"


def test_the_orders_of_the_page_are_those_of_the_code():
    rows = {name: cells for name, *cells in table("docs/models.md", "`unit=`")}
    assert rows == {
        name: [order.first, order.middle, order.last, order.after_addition]
        for name, order in ORDERS.items()
    }


def test_the_programs_of_units_are_those_that_the_tests_run():
    tree = ast.parse((ROOT / "tests" / "layers" / "test_residual_unit.py").read_text())
    [published] = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "PUBLISHED"
    ]
    [listing] = [block.code for block in blocks("docs/models.md") if "preact_bn" in block.code]
    for line in listing.splitlines():
        unit, shown = re.split(r"\s{2,}", line, maxsplit=1)
        assert published[tuple(unit.split(", "))] == shown


def test_the_shortcuts_of_the_page_and_their_arguments_are_those_of_the_code():
    rows = {name: cells[-1] for name, *cells in table("docs/models.md", "`shortcut=`")}
    assert rows.keys() == SHORTCUTS.keys()
    for name, arguments in rows.items():
        parameters = inspect.signature(SHORTCUTS[name].__init__).parameters
        for argument, value in re.findall(r"(\w+)=([\w.-]+)", arguments):
            assert parameters[argument].default == ast.literal_eval(value)


def test_installation_names_what_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in PAGES.values():
        for extras in re.findall(r"\[([\w,]+)\]\"", text):
            assert set(extras.split(",")) <= project["optional-dependencies"].keys()
        for path in re.findall(r"requirements[\w-]*\.txt", text):
            assert (ROOT / path).exists()
