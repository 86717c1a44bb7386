"""Applications of what was written for others: WSGI, Knative's func-python, functions-framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from upwell.functions import framework
from upwell.functions.asgi import Application
from upwell.functions.funcpython import FunctionApplication, is_func_python
from upwell.functions.threads import ThreadPool
from upwell.functions.wsgi import WsgiApplication, is_wsgi


def foreign_application(target: object, pool: ThreadPool, where: str) -> Application | None:
    """An ASGI application of `target`, or None when it is none of these; `where` names it in errors.

    Its attribute `is_async`, True where there is none, says whether cancelling a request ends what it does. Raises
    InvalidFunction for a decorated function that functions-framework refuses.
    """
    if isinstance(target, FunctionApplication):
        return target
    if is_func_python(target):
        return FunctionApplication(cast(Callable[..., Any], target), where)
    made = framework.application_of(target, where) if framework.is_decorated(target) else target
    if is_wsgi(made):
        return WsgiApplication(cast(Callable[..., Any], made), pool, where)
    return cast(Application, made) if made is not target else None
