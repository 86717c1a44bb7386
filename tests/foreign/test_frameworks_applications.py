"""Applications of Flask and Django are found and served as they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.foreign import answer
from support.functions import pristine_imports
from upwell.functions.errors import InvalidFunction
from upwell.functions.loading import hooks
from upwell.functions.project import bundle, load, locate
from upwell.functions.sdk import LifecycleHooks

FLASK = """
import flask

{name} = flask.Flask(__name__)

@{name}.route("/<word>", methods=["GET", "POST"])
def say(word):
    return flask.jsonify(word=word, form=flask.request.form.to_dict(), url=flask.request.url)

@{name}.route("/stream")
def stream():
    return flask.Response((str(n) for n in range(3)), mimetype="text/plain")

@{name}.route("/fail")
def fail():
    return 1 / 0
"""


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pristine_imports():
        yield


def deployed(root: Path, files: dict[str, str]) -> Any:
    """The function of a directory, loaded from its bundle."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    project = locate(str(root))
    return load(bundle(project, root.parent / "bundles").root, project.module, project.attribute, project.root)


@pytest.mark.parametrize("name", ["app", "application", "api"])
def test_flask_application_is_picked_before_its_views(name: str, tmp_path: Path) -> None:
    application = deployed(tmp_path / "site", {"main.py": FLASK.format(name=name)})
    response = answer(application, "POST", "/caf%C3%A9?q=1", content=b"a=1&b=%C3%A9", headers=FORM)
    assert response.json() == {
        "word": "café",
        "form": {"a": "1", "b": "é"},
        "url": "http://function.test/café?q=1",
    }


FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_flask_streams_and_fails_as_ever(tmp_path: Path) -> None:
    application = deployed(tmp_path / "site", {"main.py": FLASK.format(name="app")})
    assert answer(application, path="/stream").text == "012"
    assert answer(application, path="/fail").status_code == 500
    assert answer(application, path="/a/b").status_code == 404
    head: httpx.Response = answer(application, "HEAD", "/word")
    assert (head.status_code, head.content) == (200, b"")


def test_two_applications_need_a_name(tmp_path: Path) -> None:
    source = FLASK.format(name="one") + "two = flask.Flask('two')\n"
    with pytest.raises(
        InvalidFunction, match="several callables could be the function: fail, one, say, stream, two"
    ):
        deployed(tmp_path / "site", {"main.py": source})


DJANGO = {
    "manage.py": "raise SystemExit('not to be imported')\n",
    "mysite/__init__.py": "",
    "mysite/settings.py": (
        "SECRET_KEY = 'x'\nALLOWED_HOSTS = ['function.test']\nROOT_URLCONF = 'mysite.urls'\n"
        "INSTALLED_APPS = ['greetings']\nMIDDLEWARE = ['django.middleware.common.CommonMiddleware']\n"
        "DATABASES = {}\nUSE_TZ = True\n"
    ),
    "mysite/urls.py": (
        "from django.urls import path\nfrom greetings import views\n"
        "urlpatterns = [path('hello/<name>', views.hello), path('upload', views.upload),"
        " path('rows', views.rows)]\n"
    ),
    "mysite/wsgi.py": (
        "import os\nfrom django.core.wsgi import get_wsgi_application\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'\napplication = get_wsgi_application()\n"
    ),
    "greetings/__init__.py": "",
    "greetings/views.py": (
        "from django.http import HttpResponse, StreamingHttpResponse\n"
        "from django.views.decorators.csrf import csrf_exempt\n"
        "def hello(request, name):\n"
        "    response = HttpResponse(f'Hello {name}')\n"
        "    response.set_cookie('a', '1')\n    response.set_cookie('b', '2')\n    return response\n"
        "@csrf_exempt\ndef upload(request):\n"
        "    return HttpResponse(str(sum(len(chunk) for chunk in request.FILES['f'].chunks())))\n"
        "def rows(request):\n    return StreamingHttpResponse(f'{n};' for n in range(3))\n"
    ),
}


def test_django_project_is_found_and_served(tmp_path: Path) -> None:
    application = deployed(tmp_path / "site", DJANGO)
    try:
        hello = answer(application, path="/hello/%C3%A9")
        assert (hello.text, hello.headers.get_list("set-cookie")) == ("Hello é", ["a=1; Path=/", "b=2; Path=/"])
        assert hello.headers["content-length"] == str(len(hello.content))
        multipart = httpx.Request("POST", "http://function.test", files={"f": b"x" * 200_000})
        sent = answer(application, "POST", "/upload", content=multipart.read(), headers=dict(multipart.headers))
        assert (sent.status_code, sent.text) == (200, "200000")
        assert answer(application, path="/rows").text == "0;1;2;"
        assert answer(application, path="/nowhere").status_code == 404
    finally:
        for name in [each for each in sys.modules if each.startswith("django")]:
            del sys.modules[name]


def test_hooks_are_not_taken_for_the_function(tmp_path: Path) -> None:
    source = (
        "from upwell.functions.sdk import on_start, on_stop\n"
        "@on_start\ndef connect(): ...\n@on_stop\ndef disconnect(): ...\ndef greet(): return 'Hello'\n"
    )
    assert deployed(tmp_path / "site", {"main.py": source}).__name__ == "greet"


def test_proxies_of_a_framework_are_looked_through_for_hooks_untouched(tmp_path: Path) -> None:
    source = "from flask import Flask, current_app, g, request, session\napp = Flask(__name__)\n"
    application = deployed(tmp_path / "site", {"main.py": source})
    assert hooks(application, "main") == LifecycleHooks()


def test_hooks_beside_the_function_are_found_where_a_package_imports_it_from(tmp_path: Path) -> None:
    function = (
        "from upwell.functions.sdk import on_start\n"
        "def new(): return Function()\n"
        "@on_start\ndef connect(): ...\n"
        "class Function:\n    async def handle(self, scope, receive, send): ...\n"
    )
    files = {
        "function/__init__.py": "from .func import new\n",
        "function/func.py": function,
        "func.yaml": "name: f\n",
    }
    (connect,) = hooks(deployed(tmp_path / "site", files), "function").start
    assert connect.__name__ == "connect"


def test_module_may_be_called_as_servers_expect_it(tmp_path: Path) -> None:
    files = {
        "wsgi.py": "from factory import make\napp = make()\n",
        "factory.py": "import flask\ndef make(): return flask.Flask(__name__)\n",
    }
    assert type(deployed(tmp_path / "site", files)).__name__ == "Flask"
