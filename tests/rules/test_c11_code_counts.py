"""C11: a Python model's hash covers its function, what that reaches in the project, and the packages that it lists.

What counts is checked against what the code does: each case is run before and after the edit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bqbuild.graph.python_code import code_identity
from bqbuild.nodes.python_modules import ProjectModules
from tests.llm_server import LlmServer
from tests.mutations import answer
from tests.space import Space, statuses

Files = dict[str, str]
Case = tuple[Files, tuple[str, str, str]]
"""The files of a project, `m.py` with the function `run` among them, and an edit: file, old text, new text."""

COUNTS: dict[str, Case] = {
    "helper": (
        {"m.py": "from h import f\ndef run(x): return f(x)", "h.py": "def f(x): return x+1"},
        ("h.py", "x+1", "x+2"),
    ),
    "star": (
        {"m.py": "from h import *\ndef run(x): return f(x)", "h.py": "def f(x): return x+1"},
        ("h.py", "x+1", "x+2"),
    ),
    "star reexport": (
        {"m.py": "from h import f\ndef run(x): return f(x)", "h.py": "from g import *", "g.py": "def f(x): return x+1"},
        ("g.py", "x+1", "x+2"),
    ),
    "reexport": (
        {"m.py": "from h import f\ndef run(x): return f(x)", "h.py": "from g import f", "g.py": "def f(x): return x+1"},
        ("g.py", "x+1", "x+2"),
    ),
    "module alias": (
        {"m.py": "import h as z\ndef run(x): return z.f(x)", "h.py": "def f(x): return x+1"},
        ("h.py", "x+1", "x+2"),
    ),
    "dict": ({"m.py": "def a(x): return x+1\nD={'a':a}\ndef run(x): return D['a'](x)"}, ("m.py", "x+1", "x+2")),
    "dict later": (
        {"m.py": "D={}\ndef a(x): return x+1\nD['a']=a\ndef run(x): return D['a'](x)"},
        ("m.py", "x+1", "x+2"),
    ),
    "dict update call": (
        {"m.py": "D={}\ndef a(x): return x+1\nD.update(a=a)\ndef run(x): return D['a'](x)"},
        ("m.py", "x+1", "x+2"),
    ),
    "decorator registry": (
        {
            "m.py": "D={}\ndef reg(f):\n    D[f.__name__]=f\n    return f\n"
            "@reg\ndef a(x): return x+1\ndef run(x): return D['a'](x)"
        },
        ("m.py", "x+1", "x+2"),
    ),
    "registry in other module": (
        {
            "m.py": "from r import D\nimport plug\ndef run(x): return D['a'](x)",
            "r.py": "D={}\ndef reg(f):\n    D[f.__name__]=f\n    return f\n",
            "plug.py": "from r import reg\n@reg\ndef a(x): return x+1",
        },
        ("plug.py", "x+1", "x+2"),
    ),
    "decorator": (
        {"m.py": "def deco(f):\n    return lambda x: f(x)+1\n@deco\ndef run(x): return x"},
        ("m.py", "+1", "+2"),
    ),
    "default arg": ({"m.py": "K=1\ndef run(x, k=K): return x+k"}, ("m.py", "K=1", "K=2")),
    "closure": (
        {"m.py": "def make(k):\n    def g(x): return x+k\n    return g\nrun=make(1)"},
        ("m.py", "make(1)", "make(2)"),
    ),
    "closure inner": (
        {"m.py": "def make(k):\n    def g(x): return x+k\n    return g\nrun=make(1)"},
        ("m.py", "x+k", "x-k"),
    ),
    "class base": (
        {
            "m.py": "from h import B\nclass C(B):\n    pass\ndef run(x): return C().f(x)",
            "h.py": "class B:\n    def f(self,x): return x+1",
        },
        ("h.py", "x+1", "x+2"),
    ),
    "relative": (
        {
            "m.py": "from p.a import run as go\ndef run(x): return go(x)",
            "p/a.py": "from .b import k\ndef run(x): return x+k",
            "p/b.py": "k=1",
        },
        ("p/b.py", "k=1", "k=2"),
    ),
    "relative dot": (
        {
            "m.py": "from p.a import run as go\ndef run(x): return go(x)",
            "p/a.py": "from . import b\ndef run(x): return x+b.k",
            "p/b.py": "k=1",
        },
        ("p/b.py", "k=1", "k=2"),
    ),
    "relative up": (
        {
            "m.py": "from p.q.a import run as go\ndef run(x): return go(x)",
            "p/q/a.py": "from ..b import k\ndef run(x): return x+k",
            "p/b.py": "k=1",
        },
        ("p/b.py", "k=1", "k=2"),
    ),
    "import dotted": ({"m.py": "import p.b\ndef run(x): return x+p.b.k", "p/b.py": "k=1"}, ("p/b.py", "k=1", "k=2")),
    "local import": (
        {"m.py": "def run(x):\n    from h import k\n    return x+k", "h.py": "k=1"},
        ("h.py", "k=1", "k=2"),
    ),
    "augmented": ({"m.py": "k=1\nk+=1\ndef run(x): return x+k"}, ("m.py", "k+=1", "k+=2")),
    "branch": ({"m.py": "if 1:\n    k=1\nelse:\n    k=5\ndef run(x): return x+k"}, ("m.py", "k=1", "k=2")),
    "for loop": (
        {"m.py": "k=0\nfor i in range(3):\n    k+=i\ndef run(x): return x+k"},
        ("m.py", "range(3)", "range(4)"),
    ),
    "global set by call": (
        {"m.py": "k=1\ndef init():\n    global k\n    k=5\ninit()\ndef run(x): return x+k"},
        ("m.py", "k=5", "k=6"),
    ),
    "list append effect": (
        {"m.py": "L=[]\nL.append(1)\ndef run(x): return x+L[0]"},
        ("m.py", "append(1)", "append(2)"),
    ),
    "docstring used": ({"m.py": "def run(x):\n    'a'\n    return run.__doc__"}, ("m.py", "'a'", "'b'")),
    "module doc used": ({"m.py": "'a'\ndef run(x):\n    return __doc__"}, ("m.py", "'a'", "'b'")),
    "module __getattr__": (
        {"m.py": "from h import f\ndef run(x): return f(x)", "h.py": "def __getattr__(n):\n    return lambda x: x+1"},
        ("h.py", "x+1", "x+2"),
    ),
    "getattr": (
        {"m.py": "import h\ndef run(x): return getattr(h,'f')(x)", "h.py": "def f(x): return x+1"},
        ("h.py", "x+1", "x+2"),
    ),
    "walrus": ({"m.py": "print((k:=1), end='')\ndef run(x): return x+k"}, ("m.py", "k:=1", "k:=2")),
    "with": (
        {"m.py": "import contextlib\nwith contextlib.nullcontext(1) as k: pass\ndef run(x): return x+k"},
        ("m.py", "(1)", "(2)"),
    ),
    "try except": (
        {"m.py": "try:\n    import nonesuch\n    k=1\nexcept ImportError:\n    k=2\ndef run(x): return x+k"},
        ("m.py", "k=2", "k=3"),
    ),
    "match": ({"m.py": "match {'a':1}:\n    case {'a': k}: pass\ndef run(x): return x+k"}, ("m.py", "'a':1", "'a':2")),
    "match of a star": (
        {"m.py": "match [1,2]:\n    case [*k]: pass\ndef run(x): return x+k[0]"},
        ("m.py", "[1,2]", "[3,2]"),
    ),
    "match as": (
        {"m.py": "match 1:\n    case int() as k: pass\ndef run(x): return x+k"},
        ("m.py", "match 1", "match 2"),
    ),
    "attribute set after the fact": (
        {"m.py": "from h import obj\ndef run(x): return x+obj.k", "h.py": "class O: pass\nobj=O()\nobj.k=1"},
        ("h.py", "obj.k=1", "obj.k=2"),
    ),
    "setattr effect": (
        {"m.py": "from h import obj\ndef run(x): return x+obj.k", "h.py": "class O: pass\nobj=O()\nsetattr(obj,'k',1)"},
        ("h.py", "'k',1", "'k',2"),
    ),
    "monkeypatch other module": (
        {
            "m.py": "import h\nimport patch\ndef run(x): return h.f(x)",
            "h.py": "def f(x): return x",
            "patch.py": "import h\nh.f=lambda x: x+1",
        },
        ("patch.py", "x+1", "x+2"),
    ),
    "constant 1 vs True": ({"m.py": "def run(x): return 1"}, ("m.py", "1", "True")),
    "constant 0.0 vs -0.0": ({"m.py": "def run(x): return 0.0"}, ("m.py", "0.0", "-0.0")),
    "big int": ({"m.py": "def run(x): return 10000000000000000000000000001"}, ("m.py", "0001", "0002")),
    "class attribute": ({"m.py": "k=1\nclass A:\n    v=k\ndef run(x): return A.v"}, ("m.py", "k=1", "k=2")),
    "slice": ({"m.py": "def run(x): return [1,2,3][0:2]"}, ("m.py", "0:2", "0:1")),
    "lambda default": ({"m.py": "k=1\nrun=lambda x,k=k: x+k"}, ("m.py", "k=1", "k=2")),
    "init of package": (
        {
            "m.py": "from p import f\ndef run(x): return f(x)",
            "p/__init__.py": "from .a import f",
            "p/a.py": "def f(x): return x+1",
        },
        ("p/a.py", "x+1", "x+2"),
    ),
    "package init attr": (
        {
            "m.py": "import p\ndef run(x): return p.a.f(x)",
            "p/__init__.py": "from . import a",
            "p/a.py": "def f(x): return x+1",
        },
        ("p/a.py", "x+1", "x+2"),
    ),
    "builtins shadow": (
        {"m.py": "def run(x): return max(x,1)"},
        ("m.py", "def run", "def max(a,b): return 9\ndef run"),
    ),
    "partial": (
        {
            "m.py": "from functools import partial\nfrom h import f\nrun=partial(f,k=1)",
            "h.py": "def f(x,k): return x+k",
        },
        ("h.py", "x+k", "x-k"),
    ),
    "cond import as": (
        {
            "m.py": "try:\n    from h import f\nexcept ImportError:\n    f=None\ndef run(x): return f(x)",
            "h.py": "def f(x): return x+1",
        },
        ("h.py", "x+1", "x+2"),
    ),
    "nested attr alias": (
        {"m.py": "import h\ng=h.f\ndef run(x): return g(x)", "h.py": "def f(x): return x+1"},
        ("h.py", "x+1", "x+2"),
    ),
    "shadow stdlib": (
        {
            "m.py": "import statistics\ndef run(x): return statistics.mean([x])",
            "statistics.py": "def mean(x): return x[0]+1",
        },
        ("statistics.py", "+1", "+2"),
    ),
    "dataclass field": (
        {"m.py": "import dataclasses\n@dataclasses.dataclass\nclass C:\n    k: int = 1\ndef run(x): return C().k"},
        ("m.py", "= 1", "= 2"),
    ),
}

DOES_NOT: dict[str, Case] = {
    "function that is not reached": (
        {"m.py": "def run(x): return x+1\ndef other(y): return y"},
        ("m.py", "return y", "return y+1"),
    ),
    "unreached module": ({"m.py": "def run(x): return x+1", "h.py": "k=1"}, ("h.py", "k=1", "k=2")),
    "unreached in alias": (
        {"m.py": "import h\ndef run(x): return h.f(x)", "h.py": "def f(x): return x+1\ndef g(x): return 1"},
        ("h.py", "return 1", "return 2"),
    ),
    "unreached import": (
        {"m.py": "import h\ndef run(x): return x", "h.py": "def f(x): return x+1\n"},
        ("h.py", "x+1", "x+2"),
    ),
    "comment": ({"m.py": "def run(x): return x+1"}, ("m.py", "x+1", "x+1 # y")),
    "parens": ({"m.py": "def run(x): return x+1"}, ("m.py", "x+1", "(x + 1)")),
    "docstring": ({"m.py": "def run(x):\n    'a'\n    return x"}, ("m.py", "'a'", "'b'")),
    "quote style": ({"m.py": "def run(x): return 'a'"}, ("m.py", "'a'", '"a"')),
    "implicit concat": ({"m.py": "def run(x): return 'ab'"}, ("m.py", "'ab'", "'a' 'b'")),
}


@pytest.mark.parametrize("name", COUNTS)
def test_c11_an_edit_that_changes_what_the_function_gives_changes_its_hash(name: str) -> None:
    before, after = _edited(*COUNTS[name])
    assert _result(before) != _result(after), "the test changes nothing"
    assert _identity(before) != _identity(after)


@pytest.mark.parametrize("name", DOES_NOT)
def test_c11_comments_form_and_what_is_not_reached_do_not_change_the_hash(name: str) -> None:
    before, after = _edited(*DOES_NOT[name])
    assert _result(before) == _result(after)
    assert _identity(before) == _identity(after)


@pytest.fixture
def built(tmp_path: Path, llm_server: LlmServer) -> Space:
    """A project with a Python model, built."""
    llm_server.answer = answer
    space = Space.copy("mutations", tmp_path / "project", llm_server)
    assert set(statuses(space.run()).values()) == {"success"}
    return space


def test_c11_only_code_that_is_reached_builds_the_model_again_and_only_other_rows_what_is_below(built: Space) -> None:
    measure = "models/scoring/measure.py"
    built.edit(measure, "return len(text)\n", "return 2 * len(text)\n")
    assert set(statuses(built.run()).values()) == {"cached"}
    built.edit(measure, "max(LEAST,", "max(LEAST, 1,")
    ended = statuses(built.run())
    assert ended.pop("scored") == "success"
    assert set(ended.values()) == {"cached"}
    built.edit(measure, "LEAST = 1", "LEAST = 9")
    results = built.run()
    assert built.sent == 0  # no prompt reads the words
    assert results["questions"].status == "success"
    assert {row["words"] for row in built.rows("select words from scored")} >= {9}


def test_c11_the_version_of_a_package_counts_where_it_is_listed(
    built: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path / "site", "1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    models = "models/models.yml"
    built.edit(models, "    function: scoring", "    packages: [some_package]\n    function: scoring")
    assert statuses(built.run())["scored"] == "success"
    assert set(statuses(built.run()).values()) == {"cached"}
    _install(tmp_path / "site", "1.1")
    assert statuses(built.run())["scored"] == "success"
    built.edit(models, "    packages: [some_package]\n", "")
    assert statuses(built.run())["scored"] == "cached"  # as it was at first
    _install(tmp_path / "site", "1.2")
    assert set(statuses(built.run()).values()) == {"cached"}


def _install(site: Path, version: str) -> None:
    """A package as pip leaves it: the metadata that versions are read from."""
    for old in site.glob("*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    folder = site / f"some_package-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some_package\nVersion: {version}\n")


def _edited(files: Files, edit: tuple[str, str, str]) -> tuple[Files, Files]:
    path, old, new = edit
    assert old in files[path]
    return files, files | {path: files[path].replace(old, new, 1)}


def _identity(files: Files) -> object:
    return code_identity(files, "m.py", "run")


def _result(files: Files) -> str:
    with ProjectModules(Path("models"), files) as modules:
        return repr(modules.load("m.py").run(3))
