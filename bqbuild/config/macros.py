"""The project's own macros (`project/macros/**`): callable by name in every template, compiled when first called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from bqbuild.config.jinja import placed, template_failure, template_line
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.sandbox import TEMPLATE_FAILURES, TemplateEnvironment
from bqbuild.core.errors import ProjectError, Where


@dataclass(frozen=True, slots=True)
class MacroFile:
    """One file of macros: as the user knows it, its text, and the macros that it defines with their lines."""

    shown_as: str
    source: str
    names: Mapping[str, int]

    def text(self, name: str) -> str:
        """What stands in the file from the macro's first line to the next macro's."""
        start = self.names[name]
        later = [line for line in self.names.values() if line > start]
        lines = self.source.split("\n")[start - 1 : min(later) - 1 if later else None]
        return "\n".join(lines).strip("\n")


def read_macros(
    sources: Mapping[str, str], environment: TemplateEnvironment, mistakes: Mistakes
) -> dict[str, MacroFile]:
    """The macros of all files by name. A name that two files define is a mistake, as is broken Jinja."""
    found: dict[str, MacroFile] = {}
    for shown_as, source in sources.items():
        try:
            tree = environment.parse(source, shown_as, shown_as)
        except TemplateSyntaxError as error:
            mistakes.add(f"broken Jinja: {error.message}", Where(shown_as, error.lineno))
            continue
        except RecursionError:
            mistakes.add("broken Jinja: nested too deeply", Where(shown_as))
            continue
        macros = {node.name: node.lineno for node in tree.body if isinstance(node, nodes.Macro)}
        file = MacroFile(shown_as, source, macros)
        for name, line in macros.items():
            if name in found:
                other = found[name]
                hint = f"{other.shown_as}:{other.names[name]} has one of that name"
                mistakes.add(f"duplicate macro '{name}'", Where(shown_as, line), hint)
            elif name in environment.globals:
                mistakes.add(f"the macro name '{name}' is taken", Where(shown_as, line), "it is a built-in function")
            else:
                found[name] = file
    return found


def add_macros(environment: TemplateEnvironment, macros: Mapping[str, MacroFile]) -> None:
    """Make the macros callable in every template of `environment`."""
    modules: dict[str, Any] = {}

    def module(file: MacroFile) -> Any:
        if file.shown_as not in modules:
            modules[file.shown_as] = _compile(environment, file)
        return modules[file.shown_as]

    for name, file in macros.items():
        environment.globals[name] = _lazy(module, file, name)


def _lazy(module: Callable[[MacroFile], Any], file: MacroFile, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(module(file), name)(*args, **kwargs)

    return call


def _compile(environment: TemplateEnvironment, file: MacroFile) -> Any:
    try:
        code = environment.compile(file.source, file.shown_as, file.shown_as)
        template = environment.template_class.from_code(environment, code, environment.make_globals(None))
        return template.make_module()
    except TemplateSyntaxError as error:
        where = Where(file.shown_as, error.lineno)
        raise ProjectError(f"broken Jinja: {error.message}", where=where) from error
    except ProjectError as error:
        raise placed(error, Where(file.shown_as)) from error
    except TEMPLATE_FAILURES as error:
        line = template_line(error.__traceback__)
        where = Where(file.shown_as, line[1] if line else 0)
        raise template_failure(error, where, environment.globals) from error
