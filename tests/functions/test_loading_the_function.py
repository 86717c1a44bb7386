"""Loading imports the source and picks the callable; what goes wrong is told in the user's own terms."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.functions import pristine_imports
from upwell.functions.errors import InvalidFunction
from upwell.functions.project import bundle, load, locate


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    with pristine_imports():
        yield


def loaded(root: Path, source: str, attribute: str | None = None, module: str = "function") -> Any:
    (root / f"{module}.py").write_text(source)
    return load(root, module, attribute, None)


def refusal(root: Path, source: str, attribute: str | None = None, module: str = "function") -> InvalidFunction:
    with pytest.raises(InvalidFunction) as refused:
        loaded(root, source, attribute, module)
    return refused.value


@pytest.mark.parametrize("name", ["app", "new", "handle", "main"])
def test_usual_name_is_picked_before_others(name: str, tmp_path: Path) -> None:
    source = f"def other(): ...\ndef {name}(): return 'it'\n"
    assert loaded(tmp_path, source)() == "it"


def test_usual_names_have_an_order(tmp_path: Path) -> None:
    source = "".join(f"def {name}(): return '{name}'\n" for name in ("main", "handle", "new"))
    assert loaded(tmp_path, source)() == "new"


def test_usual_name_of_what_cannot_be_called_is_passed_over(tmp_path: Path) -> None:
    assert loaded(tmp_path, "app = {}\ndef hello(): return 'it'\n")() == "it"


@pytest.mark.parametrize(
    "source",
    [
        "from json import loads\nimport os\nclass Data: ...\ndef hello(): return 'it'\ndef _helper(): ...\n",
        "from typing import Any\nJson = dict[str, Any]\nhello = lambda: 'it'\n",
        "import functools\ndef _say(word): return word\nhello = functools.partial(_say, 'it')\n",
        "class Greeter:\n    def __call__(self): return 'it'\nhello = Greeter()\n",
        "import functools\ndef _wrap(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
        "@_wrap\ndef hello(): return 'it'\n",
    ],
)
def test_only_public_callable_of_the_module_is_picked(source: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, source)() == "it"


def test_application_of_a_framework_is_picked_under_any_name(tmp_path: Path) -> None:
    source = "from starlette.applications import Starlette\napi = Starlette()\n"
    assert type(loaded(tmp_path, source)).__name__ == "Starlette"


def test_several_candidates_are_listed(tmp_path: Path) -> None:
    error = refusal(tmp_path, "def two(): ...\ndef one(): ...\n")
    assert error.what == "several callables could be the function: one, two"
    assert "PATH:one" in error.hint
    assert error.where == str(tmp_path / "function.py")


def test_module_without_a_callable_is_refused(tmp_path: Path) -> None:
    assert "no public callable" in refusal(tmp_path, "x = 1\nfrom json import loads\n").what


def test_named_callable_is_taken_even_from_within(tmp_path: Path) -> None:
    source = "from json import loads\nclass Api:\n    def hello(self): return 'it'\napi = Api()\n"
    assert loaded(tmp_path, source, "api.hello")() == "it"
    assert load(tmp_path, "function", "loads", None) is json.loads


def test_name_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    error = refusal(tmp_path, "def hello(): ...\n", "helo")
    assert error.what == "there is no helo"
    assert "hello" in error.hint


def test_name_of_what_cannot_be_called_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "x = 1\n", "x").what == "x is a int, which cannot be called"


def test_module_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFunction, match="no module absent"):
        load(tmp_path, "absent", None, None)


def test_missing_dependency_is_named_with_where_to_install_it(tmp_path: Path) -> None:
    error = refusal(tmp_path, "import json\nimport no_such_module.sub\ndef hello(): ...\n")
    assert error.what == "no module named no_such_module"
    assert error.where == f"{tmp_path / 'function.py'}:2"
    assert "upwell's own Python environment" in error.hint
    assert "pip install no_such_module" in error.hint
    assert isinstance(error.__cause__, ModuleNotFoundError)


def test_missing_part_of_cloudevents_is_told_apart_from_a_missing_package(tmp_path: Path) -> None:
    error = refusal(tmp_path, "import cloudevents\nimport cloudevents.no_such_module\n")
    assert "version 1 has cloudevents.http" in error.hint


def test_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    error = refusal(tmp_path, "def hello():\n    return (1\n\nx = = 2\n")
    assert error.where.startswith(f"{tmp_path / 'function.py'}:")
    assert isinstance(error.__cause__, SyntaxError)


def test_exception_on_import_is_told_with_the_users_line(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("\n\nraise LookupError('no key')\n")
    error = refusal(tmp_path, "import helper\ndef hello(): ...\n")
    assert error.what == "importing the module failed: LookupError: no key"
    assert error.where == f"{tmp_path / 'helper.py'}:3"


def test_traceback_begins_in_the_users_code(tmp_path: Path) -> None:
    error = refusal(tmp_path, "def fail():\n    raise LookupError('no key')\nfail()\n")
    assert error.__cause__ is not None
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["<module>", "fail"]


def test_module_that_exits_on_import_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, "import sys\nsys.exit(2)\n")
    assert "exit(2)" in error.what
    assert "__main__" in error.hint


@pytest.mark.parametrize("module", ["queue", "json", "time", "pytest"])
def test_name_of_a_module_that_is_another_s_is_refused(module: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, "def hello(): ...\n", module=module)
    assert f"the name {module} is" in error.what
    assert "Rename" in error.hint


def test_users_own_functions_module_works(tmp_path: Path) -> None:
    (tmp_path / "runtime.py").write_text("word = 'it'\n")
    source = "import runtime\ndef hello(): return runtime.word\n"
    assert loaded(tmp_path, source, module="functions")() == "it"
    assert sys.modules["functions"].__file__ == str(tmp_path / "functions.py")


def test_loading_twice_gives_the_same_function(tmp_path: Path) -> None:
    first = loaded(tmp_path, "def hello(): ...\n")
    assert load(tmp_path, "function", None, None) is first


def kept(tmp_path: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """The source's directory, and that of its bundle."""
    root = tmp_path / "source" / "my_hello"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root, bundle(locate(str(root)), tmp_path / "bundles").root


def test_tracebacks_show_the_original_file_and_not_the_bundle(tmp_path: Path) -> None:
    helper = "class Helper:\n    def fail(self):\n        return (lambda: 1 / 0)()\n"
    root, copy = kept(
        tmp_path,
        {"main.py": "import pkg.helper\ndef main(): pkg.helper.Helper().fail()\n", "pkg/helper.py": helper},
    )
    function: Any = load(copy, "main", None, root)
    with pytest.raises(ZeroDivisionError) as raised:
        function()
    shown = [frame.filename for frame in traceback.extract_tb(raised.value.__traceback__)[1:]]
    assert shown == [str(root / "main.py"), str(root / "pkg/helper.py"), str(root / "pkg/helper.py")]


def test_bytecode_from_the_cache_shows_the_original_file_too(tmp_path: Path) -> None:
    root, copy = kept(tmp_path, {"main.py": "def main(): return main.__code__.co_filename\n"})
    program = (
        "import sys; from pathlib import Path; from upwell.functions.project import load;"
        "print(load(Path(sys.argv[1]), 'main', None, Path(sys.argv[2]))())"
    )
    command = [sys.executable, "-c", program, str(copy), str(root)]
    for _ in range(2):
        printed = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path)},
        )
        assert printed.stdout.strip() == str(root / "main.py")
    assert list(copy.glob("__pycache__/main.*.pyc"))


@pytest.mark.parametrize(
    ("source", "line"), [("import no_such_module\n", 1), ("\nx = = 1\n", 2), ("\n\n1 / 0\n", 3)]
)
def test_errors_on_import_name_the_original_file(source: str, line: int, tmp_path: Path) -> None:
    root, copy = kept(tmp_path, {"main.py": source})
    with pytest.raises(InvalidFunction) as refused:
        load(copy, "main", None, root)
    assert refused.value.where == f"{root / 'main.py'}:{line}"


def test_data_files_are_found_beside_the_module(tmp_path: Path) -> None:
    source = "from pathlib import Path\ndef main(): return Path(__file__).with_name('data.txt').read_text()\n"
    root, copy = kept(tmp_path, {"main.py": source, "data.txt": "data"})
    (root / "data.txt").write_text("edited")
    function: Any = load(copy, "main", None, root)
    assert function() == "data"


def test_directory_may_itself_be_a_package(tmp_path: Path) -> None:
    files = {"__init__.py": "from .impl import greet\nmain = greet\n", "impl.py": "def greet(): 1 / 0\n"}
    root, copy = kept(tmp_path, files)
    function: Any = load(copy, "my_hello", None, root)
    assert function.__module__ == "my_hello.impl"
    with pytest.raises(ZeroDivisionError) as raised:
        function()
    assert traceback.extract_tb(raised.value.__traceback__)[-1].filename == str(root / "impl.py")
    assert load(copy, "my_hello", None, root) is function


def test_package_that_fails_is_not_left_half_imported(tmp_path: Path) -> None:
    root, copy = kept(tmp_path, {"__init__.py": "1 / 0\n"})
    with pytest.raises(InvalidFunction, match="ZeroDivisionError"):
        load(copy, "my_hello", None, root)
    assert "my_hello" not in sys.modules


def test_partials_and_wrappers_load_as_they_are(tmp_path: Path) -> None:
    source = "import functools\ndef say(word): return word\nmain = functools.partial(say, 'it')\n"
    function = loaded(tmp_path, source)
    assert isinstance(function, functools.partial)
    assert function() == "it"
