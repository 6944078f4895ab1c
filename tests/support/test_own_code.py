"""Code of the user's: read with what it imports, hashed, imported from memory, blamed."""

import hashlib
import sys

import pytest
from etils import epath

from keras_preact.support import code_files, own_code


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('_in_', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(path):
    return code_files.read(str(path), "unit")


def refusal(path):
    with pytest.raises(ValueError) as error:
        read(path).load()
    return str(error.value)


def test_the_hash_of_a_file_is_that_of_sha256sum(tmp_path):
    write(tmp_path, a="x = 1\n")
    assert read(tmp_path / "a.py").digest == sha256("x = 1\n")


@pytest.mark.parametrize("name", ["a b.py", "-a.py", "a.b.py", "1.py", "ü.py", "os.py"])
def test_a_file_may_have_any_name(tmp_path, name):
    (tmp_path / name).write_text(f"import os\nx = os.sep, {name!r}\n")
    module = read(tmp_path / name).load()
    assert module.x[0] == "/" and module.__file__ == str(tmp_path / name)


@pytest.mark.parametrize("how", ["absolute", "relative", "home", "dots"])
def test_paths_may_be_relative_and_begin_with_home(tmp_path, monkeypatch, how):
    write(tmp_path, sub_in_a="x = 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = {"absolute": tmp_path / "sub/a.py", "home": "~/sub/a.py", "dots": "sub/../sub/a.py"}
    assert read(path.get(how, "sub/a.py")).load().x == 2


def test_what_lies_beside_is_imported_hashed_and_copied(tmp_path):
    folder = write(
        tmp_path / "here",
        a="import b\nfrom c import z\nfrom p.q import w\nimport p.r\nimport json\n"
        "def late():\n    import d\n    return d.v\nx = b.y + z + w + p.r.u\n",
        b="y = 1\n",
        c="import b\nz = b.y + 1\n",
        d="v = 40\n",
        p_in_q="from . import r\nfrom .r import u\nw = u + 1\n",
        p_in_r="u = 5\n",
        unused="raise ValueError\n",
    )
    code = read(folder / "a.py")
    assert code.main == "a.py"
    assert set(code.files) == {"a.py", "b.py", "c.py", "d.py", "p/q.py", "p/r.py"}
    assert code.digests["b.py"] == sha256("y = 1\n")
    module = code.load()
    assert module.x == 1 + 2 + 6 + 5 and module.late() == 40
    assert not {"a", "b", "c", "d", "p"} & set(sys.modules)
    code_files.write_copy(code, epath.Path(tmp_path / "copy"))
    copy = code_files.read_copy(epath.Path(tmp_path / "copy"), code.digests)
    assert copy.digest == code.digest and copy.load() is module


def test_versions_of_a_file_and_of_its_neighbours_live_side_by_side(tmp_path):
    first = write(
        tmp_path / "1", a="import b\ndef f():\n    import b\n    return b.x\n", b="x = 1\n"
    )
    other = write(tmp_path / "2", a=(first / "a.py").read_text(), b="x = 2\n")
    one, two = read(first / "a.py"), read(other / "a.py")
    assert one.digest != two.digest
    assert one.digests["a.py"] == two.digests["a.py"]
    modules = one.load(), two.load()
    assert [module.f() for module in modules] == [1, 2]
    (first / "a.py").write_text("changed = True\n")
    assert read(first / "a.py").load().changed and modules[0].f() == 1


def test_a_package_below_ones_own_folder_is_copied_with_what_it_imports(tmp_path, monkeypatch):
    write(
        tmp_path,
        mine_in___init__="from mine.more import y\n",
        mine_in_units="from . import more\nfrom mine import y\nimport mine.more\n"
        "x = mine.more.y + y\n",
        mine_in_more="y = 3\n",
        mine_in_not="",
    )
    monkeypatch.chdir(tmp_path)
    code = read("mine.units")
    assert set(code.files) == {"mine/units.py", "mine/__init__.py", "mine/more.py"}
    assert code.load().x == 6 and "mine" not in sys.modules


def test_of_an_installed_package_the_module_alone_is_copied(tmp_path, monkeypatch):
    site = write(
        tmp_path / "site-packages",
        theirs_in___init__="",
        theirs_in_units="from . import more\nfrom .more import y\nx = more.y + y\n",
        theirs_in_more="y = 4\n",
    )
    monkeypatch.syspath_prepend(str(site))
    code = read("theirs.units")
    assert list(code.files) == ["units.py"] and code.package == "theirs"
    assert code.load().x == 8
    monkeypatch.delitem(sys.modules, "theirs.more")
    monkeypatch.delitem(sys.modules, "theirs")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nraise KeyError('no')\n", ["a.py, line 2: KeyError: 'no'"]),
        ("def f(:\n", ["a.py, line 1: SyntaxError"]),
        ("x = 1\nreturn 3\n", ["a.py, line 2: SyntaxError: 'return' outside function"]),
        ("import sys\nsys.exit(3)\n", ["a.py, line 2: SystemExit: 3"]),
        ("import no_such_module\n", ["a.py, line 1: ModuleNotFoundError"]),
        ("import b\n", ["b.py, line 1", "in f: ZeroDivisionError"]),
        ("x = '\ud800'", ["a.py", "SyntaxError"]),
        ("x = 1\0", ["a.py", "null bytes"]),
        ("x = " + "(" * 5000 + ")" * 5000, ["a.py"]),
        ("#" * (2**20 + 1), ["at most 1,048,576 bytes"]),
    ],
    ids=["raises", "syntax", "return", "exit", "import", "beside", "UTF-8", "null", "deep", "huge"],
)
def test_code_that_cannot_be_imported_is_named_with_its_line(tmp_path, text, words):
    write(tmp_path, b="def f(): return 1 / 0\nf()\n")
    (tmp_path / "a.py").write_bytes(text.encode(errors="surrogatepass"))
    message = refusal(tmp_path / "a.py")
    assert all(word in message for word in words), message
    assert len(message) < 1000 and "\n" not in message
    # What failed is forgotten: the next attempt meets the mended file.
    (tmp_path / "a.py").write_text("x = 7\n")
    assert read(tmp_path / "a.py").load().x == 7


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("no.py", "must name a Python file that is there"),
        ("no.such", "which cannot be found"),
        ("a b", "must be FILE.py:NAME or package.module:NAME"),
        ("a.txt.", "must be FILE.py:NAME"),
        ("..py", "is there"),
        ("folder.py", "must be a file"),
        ("\0.py", "control characters"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, monkeypatch, where, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.py").mkdir()
    assert words in refusal(where)


def test_a_copy_that_has_changed_or_is_missing_is_named_with_its_hashes(tmp_path):
    write(tmp_path, a="import b\n", b="y = 1\n")
    code, copy = read(tmp_path / "a.py"), epath.Path(tmp_path / "copy")
    code_files.write_copy(code, copy)
    (copy / "b.py").write_text("y = 2\n")
    with pytest.raises(ValueError, match=r"b\.py has been changed") as error:
        code_files.read_copy(copy, code.digests)
    assert sha256("y = 1\n") in str(error.value) and sha256("y = 2\n") in str(error.value)
    (copy / "a.py").unlink()
    with pytest.raises(ValueError, match=r"a\.py is missing"):
        code_files.read_copy(copy, code.digests)


def test_errors_elsewhere_pass_as_they_are(tmp_path):
    with pytest.raises(KeyError), own_code.blamed():
        raise KeyError
