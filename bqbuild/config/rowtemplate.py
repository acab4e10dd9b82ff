"""Templates that are rendered once a row: prompts, and the text of a mix. What they read is known before they run.

Rendering sees the columns that the template reads and nothing else of the row.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import BaseLoader, Environment, Template, TemplateNotFound, TemplateSyntaxError, UndefinedError, nodes

from bqbuild.config import templatetext
from bqbuild.config.analysis import Analysis, analyse, tree_identity
from bqbuild.config.jinja import template_line
from bqbuild.config.macros import MacroFile, add_macros
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.sandbox import TEMPLATE_FAILURES, NullPrintedError, TemplateEnvironment
from bqbuild.config.templatetext import ROLE_FUNCTION, TemplateText
from bqbuild.config.variables import Variables
from bqbuild.core.errors import BuildError, ProjectError, Where, did_you_mean


class RenderError(BuildError):
    """A row that its template cannot be rendered with."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a template that stands in one place: its own text, or a prompt or macro that it reaches.

    `identity` is what of it counts, `text` what the user wrote, from the line of `where` on.
    """

    identity: Any
    text: str
    where: Where


@dataclass(frozen=True, slots=True)
class RowTemplate:
    """A template over the columns of a row.

    `columns` are the names that it and what it includes read of a row, with the place of the first reading;
    `variables` those that it reads by `var()`; `identity` is its canonical syntax tree, with all that it reaches.
    """

    columns: Mapping[str, Where]
    variables: frozenset[str]
    identity: Any
    _template: Callable[[], Template] = field(repr=False, compare=False)
    _library: RowTemplates = field(repr=False, compare=False)
    _name: str = field(repr=False, compare=False)

    def pieces(self) -> dict[str, Piece]:
        """Its parts: `body`, and `include:<prompt>` and `macro:<name>` for all that it reaches."""
        return self._library.pieces(self._name)

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for a row. Raises RenderError where NULL would be printed, or the template fails."""
        values = {name: row[name] for name in self.columns if name in row}
        try:
            return self._template().render(values)
        except ProjectError as error:
            raise RenderError(error.message, where=error.where, hint=error.hint) from error
        except TEMPLATE_FAILURES as error:
            raise self._library.render_error(error, values) from error


@dataclass(slots=True)
class _Unit:
    """One text that Jinja compiles: a prompt's body or system message, a mix's text, a file of macros."""

    name: str
    where: Where
    text: TemplateText
    tree: nodes.Template
    analysis: Analysis
    source: str = ""
    template: Template | None = None

    def place(self, line: int) -> Where:
        return Where(self.where.file, self.text.line(line))


class RowTemplates:
    """All row templates of a project: they share an environment, the macros, and each other by name."""

    def __init__(self, variables: Variables, macros: Mapping[str, MacroFile]) -> None:
        token = secrets.token_hex(16)
        self.marker = f"\x02{token}:"
        """Starts what stands in rendered text for a role line, up to `\\x03`; unguessable, so no row can write one."""
        self.environment = TemplateEnvironment(
            null_is_error=True,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            loader=_Loader(self),
        )
        self.environment.globals["var"] = variables.var
        self._variables = variables
        self.environment.globals[ROLE_FUNCTION] = lambda role: f"{self.marker}{role}\x03"
        self._macros = macros
        add_macros(self.environment, macros)
        self._units: dict[str, _Unit] = {}
        self._names: dict[str, str | None] = {}

    def add(self, name: str, source: str, where: Where, mistakes: Mistakes, *, roles: bool = True) -> bool:
        """Parse a template and make it known under `name`. False, with the mistakes noted, where it is broken."""
        text = templatetext.prepare(source, max(where.line, 1), roles=roles)
        unit = self._unit(name, text, where, mistakes)
        if unit is None:
            return False
        unit.source = source
        self._units[name] = unit
        self._note(unit, mistakes)
        return not unit.analysis.mistakes

    def alias(self, alias: str, name: str | None) -> None:
        """Let templates name another one by `alias` too; None says that the alias is ambiguous."""
        self._names[alias] = name

    def row_template(self, name: str, mistakes: Mistakes) -> RowTemplate:
        """The template added as `name`, with all that it reaches looked at; notes mistakes on the way."""
        columns, variables, macros = self._reach(name, (), mistakes)
        identity: dict[str, Any] = {"body": self._identity(name, ())}
        if macros:
            identity["macros"] = {each: self._macro_identity(each) for each in sorted(macros)}
        return RowTemplate(columns, frozenset(variables), identity, lambda: self.load(name), self, name)

    def pieces(self, name: str) -> dict[str, Piece]:
        """The parts of the template added as `name`, each without the others."""
        found: dict[str, Piece] = {}
        macros: set[str] = set()
        waiting, seen = [name], set()
        while waiting:
            each = waiting.pop()
            seen.add(each)
            unit = self._units[each]
            identity = tree_identity(unit.tree.body, lambda used: {"named": used})
            found["body" if each == name else f"include:{each}"] = Piece(identity, unit.source, unit.where)
            macros |= self._reach_macros(unit.analysis.macros, set(), Mistakes())
            waiting += {full for used, _, _ in unit.analysis.uses if (full := self.find(used))} - seen
        for macro in macros:
            file = self._macros[macro]
            where = Where(file.shown_as, file.names[macro])
            found[f"macro:{macro}"] = Piece(self._macro_identity(macro), file.text(macro), where)
        return found

    def top_level(self, name: str) -> list[object]:
        """The canonical parts of a template's body, text being text."""
        return tree_identity(self._units[name].tree.body, lambda each: each)

    def load(self, name: str) -> Template:
        """The compiled template."""
        unit = self._units[name]
        if unit.template is None:
            code = self.environment.compile(unit.tree, unit.name, unit.name)
            unit.template = Template.from_code(self.environment, code, self.environment.make_globals(None))
        return unit.template

    def find(self, name: str) -> str | None:
        """The full name of the template that `name` names, with or without `.md`; None where there is none."""
        for each in (name, name.removesuffix(".md")):
            if each in self._units:
                return each
            if self._names.get(each):
                return self._names[each]
        return None

    def render_error(self, error: BaseException, values: Mapping[str, Any]) -> RenderError:
        """What to tell of a failed rendering: in the template's own line, with the column that is NULL."""
        found = template_line(error.__traceback__)
        unit = self._units.get(found[0]) if found else None
        where = unit.place(found[1]) if unit and found else None
        nulls = _nulls(unit, found[1], values) if unit and found else []
        if isinstance(error, UndefinedError) and (missing := _missing(str(error), values)):
            return RenderError(f"the row has no column '{missing}'", where=where)
        if not isinstance(error, NullPrintedError):
            hint = f"{', '.join(nulls)}: NULL in this row" if nulls else None
            return RenderError(f"the template failed: {str(error) or type(error).__name__}", where=where, hint=hint)
        what = ", ".join(f"'{name}'" for name in nulls) if nulls else "a value that is printed"
        hint = "write {{ " + (nulls[0] if nulls else "value") + " | default('…') }}, or put it into an {% if %}"
        return RenderError(f"{what} is NULL", where=where, hint=hint)

    def _unit(self, name: str, text: TemplateText, where: Where, mistakes: Mistakes) -> _Unit | None:
        try:
            tree = self.environment.parse(text.source, name, name)
            return _Unit(name, where, text, tree, analyse(tree, self.environment, name, self._macros))
        except TemplateSyntaxError as error:
            place = Where(where.file, text.line(error.lineno))
            hint = (
                "a literal {# or {{ goes between {% raw %} and {% endraw %}" if "end of comment" in str(error) else None
            )
            mistakes.add(f"broken Jinja: {error.message}", place, hint)
        except RecursionError:
            mistakes.add("broken Jinja: nested too deeply", where)
        return None

    def _reach(
        self, name: str, stack: tuple[str, ...], mistakes: Mistakes
    ) -> tuple[dict[str, Where], set[str], set[str]]:
        """Columns, variables and macros that a template reads, itself and through others."""
        unit = self._units[name]
        own = unit.analysis
        columns = {column: unit.place(line) for column, line in own.columns.items()}
        variables = set(own.variables)
        macros = self._reach_macros(own.macros, variables, mistakes)
        for used, with_row, line in own.uses:
            full = self.find(used)
            if full is None:
                mistakes.add(f"there is no prompt '{used}'", unit.place(line), self._nearest(used))
            elif full not in stack:
                inner, more, others = self._reach(full, (*stack, name), mistakes)
                variables |= more
                macros |= others
                free = {column: where for column, where in inner.items() if column not in own.assigned}
                if with_row:
                    columns = {**free, **columns}
                elif free:
                    message = f"'{used}' reads {', '.join(sorted(free))}, but is taken without the row"
                    mistakes.add(message, unit.place(line), "add `with context`")
        return columns, variables, macros

    def _reach_macros(self, names: set[str], variables: set[str], mistakes: Mistakes) -> set[str]:
        found: set[str] = set()
        waiting = set(names)
        while waiting:
            name = waiting.pop()
            found.add(name)
            unit = self._macro_unit(name, mistakes)
            if unit is not None:
                variables |= set(unit.analysis.variables)
                waiting |= (_calls(unit.tree, name) & set(self._macros)) - found
        return found

    def _macro_unit(self, name: str, mistakes: Mistakes) -> _Unit | None:
        """The file of a macro that a row template calls; such a file may read its macros' arguments only."""
        file = self._macros[name]
        if file.shown_as not in self._units:
            unit = self._unit(file.shown_as, TemplateText(file.source, None, 1), Where(file.shown_as, 1), mistakes)
            if unit is None:
                return None
            self._units[file.shown_as] = unit
            self._note(unit, mistakes)
            for column, line in unit.analysis.columns.items():
                hint = "a macro sees its arguments only: hand the column over"
                mistakes.add(f"a macro reads '{column}', which is not an argument", unit.place(line), hint)
        return self._units[file.shown_as]

    def _identity(self, name: str, stack: tuple[str, ...]) -> object:
        if name in stack:
            return {"again": name}

        def named(used: str) -> object:
            full = self.find(used)
            return self._identity(full, (*stack, name)) if full else {"missing": used}

        return tree_identity(self._units[name].tree.body, named)

    def _macro_identity(self, name: str) -> object:
        unit = self._units.get(self._macros[name].shown_as)
        if unit is None:
            return None
        wanted = [
            node for node in unit.tree.body if not isinstance(node, nodes.Macro | nodes.Output) or _is(node, name)
        ]
        return tree_identity(wanted, lambda used: {"named": used})

    def _note(self, unit: _Unit, mistakes: Mistakes) -> None:
        """Note what is wrong with a template by itself."""
        for mistake in unit.analysis.mistakes:
            mistakes.add(mistake.message, unit.place(mistake.line), mistake.hint)
        known = self._variables.all()
        for name, line in unit.analysis.variables.items():
            if line is not None and name not in known:
                mistakes.note(self._variables.missing(name, unit.place(line)))

    def _nearest(self, name: str) -> str | None:
        return did_you_mean(name, [each for each in self._units if " " not in each])


def _is(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Macro) and node.name == name


def _calls(tree: nodes.Template, macro: str) -> set[str]:
    """The names that a macro of a file, and the file outside of its macros, may call."""
    parts = [node for node in tree.body if not isinstance(node, nodes.Macro) or node.name == macro]
    return {name.name for part in parts for name in part.find_all(nodes.Name) if name.ctx == "load"}


def _nulls(unit: _Unit, line: int, values: Mapping[str, Any]) -> list[str]:
    """The columns that a line of the template names and that are NULL."""
    names = {each.name for each in unit.tree.find_all(nodes.Name) if each.lineno == line}
    return sorted(name for name in names if name in values and values[name] is None)


def _missing(message: str, values: Mapping[str, Any]) -> str | None:
    """The name that Jinja's message says is undefined, where the row has no such column."""
    found = re.fullmatch("'([^']+)' is undefined", message)
    return found.group(1) if found and found.group(1) not in values else None


class _Loader(BaseLoader):
    """Finds what templates include and import among the templates that are known."""

    def __init__(self, library: RowTemplates) -> None:
        self._library = library

    def load(self, environment: Environment, name: str, globals: MutableMapping[str, Any] | None = None) -> Template:
        full = self._library.find(name)
        if full is None:
            raise TemplateNotFound(name)
        return self._library.load(full)
