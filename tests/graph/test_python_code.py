"""What counts of the code of a Python model."""

from __future__ import annotations

import gc
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from bqbuild.core.errors import ProjectError
from bqbuild.core.hashing import digest
from bqbuild.graph.python_code import code_identity, function_place, resolve_import


def identity(main: str, function: str = "score", **others: str) -> str:
    files = {"main.py": textwrap.dedent(main)}
    files |= {f"{name.replace('__', '/')}.py": textwrap.dedent(text) for name, text in others.items()}
    return digest(code_identity(files, "main.py", function))


BASE = """
    import math
    from helpers import weigh

    LIMIT = 3
    OTHER = 4

    def inner(x):
        return x + LIMIT

    def score(batch):
        return weigh(inner(math.sqrt(batch)))

    def unused(batch):
        return OTHER
"""
HELPERS = """
    FACTOR = 2

    def weigh(x):
        return x * FACTOR

    def lonely():
        return 1
"""


def changed(old: str, new: str, *, inside: str = "main") -> bool:
    main = BASE.replace(old, new) if inside == "main" else BASE
    helpers = HELPERS.replace(old, new) if inside == "helpers" else HELPERS
    assert (main, helpers) != (BASE, HELPERS), "the test changes nothing"
    return identity(main, helpers=helpers) != identity(BASE, helpers=HELPERS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + LIMIT", "return x + LIMIT  # why"),
        ("return x + LIMIT", "return (x + LIMIT)"),
        ("return x + LIMIT", "return (\n            x\n            + LIMIT\n        )"),
        ("def inner(x):", "\n\n\n    def inner(x):"),
        ("def inner(x):", 'def inner(x):\n        """What it does."""'),
        ("def unused(batch):\n        return OTHER", "def unused(batch):\n        return 0"),
        ("OTHER = 4", "OTHER = 5"),
        ("    import math\n", '    """What this is for."""\n    import math\n'),
        ("    def unused", "    import json\n\n    def unused"),
    ],
)
def test_form_and_what_is_not_reached_do_not_count(old: str, new: str) -> None:
    assert not changed(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + LIMIT", "return x - LIMIT"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = '3'"),
        ("LIMIT = 3", "LIMIT = 3\n    LIMIT += 1"),
        ("LIMIT = 3", "LIMIT = 3\n    import random\n    random.seed(1)"),
        ("def score(batch):", "def score(batch, more=1):"),
        ("def score(batch):", "@print\n    def score(batch):"),
        ("import math", "import cmath as math"),
    ],
)
def test_what_the_function_reaches_counts(old: str, new: str) -> None:
    assert changed(old, new)


def test_imported_functions_of_the_project_count_and_their_neighbours_do_not() -> None:
    assert changed("x * FACTOR", "x / FACTOR", inside="helpers")
    assert changed("FACTOR = 2", "FACTOR = 3", inside="helpers")
    assert not changed("return 1", "return 2", inside="helpers")
    assert changed("FACTOR = 2", "FACTOR = 2\n    print('loaded')", inside="helpers")


def test_importing_a_whole_module_reaches_what_is_used_of_it_and_all_where_that_cannot_be_told() -> None:
    main = "import helpers\ndef score(b):\n    return helpers.weigh(b)\n"
    assert identity(main, helpers=HELPERS) == identity(main, helpers=HELPERS.replace("return 1", "return 2"))
    assert identity(main, helpers=HELPERS) != identity(main, helpers=HELPERS.replace("FACTOR = 2", "FACTOR = 3"))
    main = "import helpers\ndef score(b):\n    return getattr(helpers, 'weigh')(b)\n"
    assert identity(main, helpers=HELPERS) != identity(main, helpers=HELPERS.replace("return 1", "return 2"))
    star = "from helpers import *\ndef score(b):\n    return weigh(b)\n"
    assert identity(star, helpers=HELPERS) != identity(star, helpers=HELPERS.replace("x * FACTOR", "x"))


def test_imports_are_followed_through_files_and_folders() -> None:
    main = "def score(b):\n    from .deep.one import first\n    return first(b)\n"
    one = "from ..far import last\ndef first(b):\n    return last(b)\n"
    far = "def last(b):\n    return {}\n"
    assert identity(main, deep__one=one, far=far.format(1)) != identity(main, deep__one=one, far=far.format(2))
    folder = "from deep import one\ndef score(b):\n    return one.first(b)\n"
    assert identity(folder, deep__one="X = 1") != identity(folder, deep__one="X = 2")


def test_classes_and_what_they_use_count() -> None:
    main = "N = 1\nclass Scorer:\n    def run(self):\n        return N\ndef score(b):\n    return Scorer().run()\n"
    assert identity(main) != identity(main.replace("N = 1", "N = 2"))


def test_names_that_are_set_inside_blocks_and_by_subscript_count() -> None:
    main = "if True:\n    A = 1\nelse:\n    A = 2\nT = {}\nT['x'] = 1\ndef score(b):\n    return A, T\n"
    assert identity(main) != identity(main.replace("A = 2", "A = 3"))
    assert identity(main) != identity(main.replace("T['x'] = 1", "T['x'] = 2"))


def test_code_that_looks_names_up_reaches_everything() -> None:
    main = "def hidden():\n    return 1\ndef score(b):\n    return globals()['hid' + 'den']()\n"
    assert identity(main) != identity(main.replace("return 1", "return 2"))
    dynamic = "import importlib\ndef score(b):\n    return importlib.import_module('helpers')\n"
    assert identity(dynamic, helpers="A = 1") != identity(dynamic, helpers="A = 2")


def test_modules_that_import_each_other_are_no_endless_loop() -> None:
    main = "from other import b\ndef a():\n    return b()\ndef score(x):\n    return a()\n"
    other = "from main import a\ndef b():\n    return a()\n"
    assert identity(main, other=other) == identity(main, other=other)


def test_mistakes_are_named() -> None:
    files = {"main.py": "def score(b):\n    return b\n", "bad.py": "def f(:\n"}
    with pytest.raises(ProjectError) as caught:
        code_identity(files, "man.py", "score")
    assert caught.value.hint == "did you mean 'main.py'?"
    with pytest.raises(ProjectError) as caught:
        code_identity(files, "main.py", "scor")
    assert caught.value.hint == "did you mean 'score'?"
    with pytest.raises(ProjectError) as caught:
        code_identity(files, "bad.py", "f")
    assert str(caught.value.where).startswith("models/bad.py:1:")


def test_functions_are_written_as_file_and_name() -> None:
    assert function_place("scoring:score") == ("scoring.py", "score")
    assert function_place("staging/scoring.py:score") == ("staging/scoring.py", "score")
    assert function_place("models/scoring.py:score") == ("scoring.py", "score")
    for text in ("scoring", "scoring:", ":score", "a:b c"):
        with pytest.raises(ValueError, match="file:function"):
            function_place(text)


def test_imports_look_beside_the_file_and_then_below_models() -> None:
    files = {"a.py": "", "sub/a.py": "", "sub/b.py": "", "sub/pack/__init__.py": ""}
    assert resolve_import(files, "sub/x.py", "a", 0) == "sub/a.py"
    assert resolve_import(files, "x.py", "a", 0) == "a.py"
    assert resolve_import(files, "x.py", "sub.b", 0) == "sub/b.py"
    assert resolve_import(files, "sub/x.py", "a", 2) == "a.py"
    assert resolve_import(files, "sub/x.py", "pack", 1) == "sub/pack/__init__.py"
    assert resolve_import(files, "x.py", "json", 0) is None


def test_threads_may_ask_at_once() -> None:
    """Python's own parser must not be used by two threads at a time (CPython issue 106905)."""
    deep = "x = " + "(" * 40 + "1" + " + 1)" * 40
    files = {"main.py": "\n".join([deep] * 10) + "\n\n\ndef score(batch):\n    return x\n"}
    before = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    # another thread gets in where a collection inside the parser runs Python code, a weak reference's say
    gc.set_threshold(50)
    gc.callbacks.append(look_on)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: digest(code_identity(files, "main.py", "score")), range(24)))
    finally:
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])
        gc.callbacks.remove(look_on)
    assert len(set(found)) == 1


def look_on(phase: str, about: dict[str, int]) -> None:
    """Does nothing, in Python."""
