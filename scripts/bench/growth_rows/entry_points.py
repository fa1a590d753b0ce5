"""What must have a row in the growth bench, read from the tables that the code itself goes by.

A new verb, step, template, file ending, engine or route appears here by itself, and `tests/test_growth.py` fails until
a row covers it.
"""

import functools
import importlib
from pathlib import Path

from growth_rows.inputs import tokenizer_folder
from vicuna import cli
from vicuna.conversation import template_names
from vicuna.data.options import DataOptions
from vicuna.data.pipeline import make_pipeline
from vicuna.data.read.sources import COMPRESSED_ENDINGS, ENDINGS

NO_INPUT = {
    "verb demo": "runs the other verbs over a fixed sample",
    "verb data lists": "prints a shipped list",
    "verb weights small-model": "copies one shipped model",
    "verb eval rule-judge": "a server of its own machine, for tests and the demo",
}
"""Entry points that take nothing whose size could grow, and why."""


@functools.cache
def entry_points() -> frozenset[str]:
    """All of them: `verb NAME`, `step NAME`, `template NAME`, `reads ENDING`, `engine NAME`, `route PATH`."""
    return frozenset({*_verbs(), *_steps(), *_templates(), *_files(), *_engines(), *_routes()})


def _verbs() -> set[str]:
    names = set()
    for verb, (module_name, _) in cli.VERBS.items():
        names.add(f"verb {verb}")
        table = getattr(importlib.import_module(module_name), "VERBS", {})
        if table and verb != "data":  # `vicuna data` without a verb cleans
            names.discard(f"verb {verb}")
        names |= {f"verb {verb} {name}" for name in table}
    return names


def step_names() -> list[str]:
    """The steps of a cleaning, `dedup` too, in their order."""
    options = DataOptions(
        inputs=(),
        output_dir=Path("unused"),
        tokenizer=tokenizer_folder("sentencepiece"),
        template="vicuna_v1.1",
        max_tokens=2048,
    )
    names = [name for name, _ in make_pipeline(options, is_runnable=False).versions()]
    return [name for name in names if name != "read"]  # which is no step: rows `reads ENDING` stand for it


def _steps() -> set[str]:
    return {f"step {name}" for name in step_names()}


def _templates() -> set[str]:
    return {f"template {name}" for name in template_names()}


def _files() -> set[str]:
    return {f"reads {ending}" for ending in (*ENDINGS, *COMPRESSED_ENDINGS)}


def _engines() -> set[str]:
    from vicuna.serve.engines import interface

    return {f"engine {name}" for name in interface.ENGINES}


def _routes() -> set[str]:
    from starlette.routing import BaseRoute

    from vicuna.io.secrets import Secret
    from vicuna.serve.controller import create_app
    from vicuna.serve.fleet.dispatch import Fleet
    from vicuna.serve.fleet.gateway import Gateway

    guard = create_app(Gateway(Fleet()), join_token=Secret("unused"), api_keys=[], host="127.0.0.1")
    routes: list[BaseRoute] = guard.app.routes  # type: ignore[attr-defined]
    return {f"route {route.path}" for route in routes if hasattr(route, "path")}
