"""SQL as users write it: Jinja with `ref`, `source` and `config`. What is in SQL comments counts for nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jinja2 import nodes

from bqbuild.config.jinja import Renderer
from bqbuild.config.macros import MacroFile, add_macros
from bqbuild.core.errors import ProjectError, Where

_MARK = re.compile("\x02([0-9]+)\x03")
_NOT_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$([A-Za-z_]*)\$.*?\$\1\$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mention:
    """A node named in a project file. `kind` is `ref`, `source`, or `any` where both are meant."""

    kind: str
    name: str
    place: Callable[[], Where]
    """Looks for where it is named: only mistakes need to know."""


@dataclass(slots=True)
class SqlText:
    """Rendered SQL: `\\x02n\\x03` stands for the n-th mention, until `with_names` puts the names in."""

    text: str
    mentions: list[Mention]
    config: dict[str, Any] = field(default_factory=dict)

    def with_names(self) -> str:
        """The SQL with every mention as one quoted identifier."""

        def quoted(found: re.Match[str]) -> str:
            name = self.mentions[int(found.group(1))].name
            return '"' + name.replace('"', '""') + '"'

        return _MARK.sub(quoted, self.text)

    def live_mentions(self) -> list[Mention]:
        """The mentions outside of comments, each name once, in order."""
        code = _NOT_CODE.sub(lambda found: "" if found.group().startswith(("--", "/*")) else found.group(), self.text)
        found = [self.mentions[int(number)] for number in _MARK.findall(code)]
        return list({(mention.kind, mention.name): mention for mention in reversed(found)}.values())[::-1]


class SqlRenderer:
    """Renders SQL files one after the other."""

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        values: Mapping[str, Any],
        project_name: str,
    ) -> None:
        self._project_name = project_name
        self._current = SqlText("", [])
        self._where = Where("")
        self._source = ""
        self._macros: Mapping[str, MacroFile] = {}
        own: dict[str, Callable[..., Any]] = {"ref": self._ref, "source": self._source_function, "config": self._config}
        self.renderer = Renderer({**functions, **own}, values)

    def add_macros(self, macros: Mapping[str, MacroFile]) -> None:
        """Make the project's macros callable."""
        self._macros = macros
        add_macros(self.renderer.environment, macros)

    def render(self, source: str, where: Where) -> SqlText:
        """Render one text that starts at `where`. Raises ProjectError."""
        self._current = SqlText("", [])
        self._where = where
        self._source = source
        if "\x02" in source or "\0" in source:
            raise ProjectError("has a control character", where=where)
        self._current.text = self.renderer.text(source, where)
        return self._current

    def uses(self, source: str) -> tuple[frozenset[str], dict[str, MacroFile]]:
        """The variables (by `var()` with a name) and the macros that a text reaches, by its syntax and theirs."""
        variables: set[str] = set()
        macros: dict[str, MacroFile] = {}
        waiting: list[nodes.Node] = [self.renderer.environment.parse(source)]
        while waiting:
            tree = waiting.pop()
            for call in tree.find_all(nodes.Call):
                first = call.args[0] if call.args else None
                if isinstance(call.node, nodes.Name) and call.node.name == "var" and isinstance(first, nodes.Const):
                    variables.add(str(first.value))
            for name in {each.name for each in tree.find_all(nodes.Name)} & set(self._macros) - set(macros):
                macros[name] = self._macros[name]
                file = self.renderer.environment.parse(self._macros[name].source)
                waiting += [macro for macro in file.find_all(nodes.Macro) if macro.name == name]
        return frozenset(variables), macros

    def _ref(self, *names: str) -> str:
        if len(names) == 2 and names[0] == self._project_name:
            names = names[1:]
        if len(names) != 1 or not isinstance(names[0], str):
            raise ProjectError("ref() takes the name of one model")
        return self._mention("ref", names[0])

    def _source_function(self, *names: str) -> str:
        if len(names) not in (1, 2) or not all(isinstance(name, str) for name in names):
            raise ProjectError("source() takes the name of one source, in one part or two")
        return self._mention("source", ".".join(names))

    def _config(self, **values: Any) -> str:
        self._current.config.update(values)
        return ""

    def _mention(self, kind: str, name: str) -> str:
        self._current.mentions.append(Mention(kind, name, partial(_place, kind, name, self._source, self._where)))
        return f"\x02{len(self._current.mentions) - 1}\x03"


def _place(kind: str, name: str, source: str, start: Where) -> Where:
    """Where the text `source`, which starts at `start`, names it; the start where a macro does."""
    inside = re.escape(name) if kind == "ref" else re.escape(name).replace(r"\.", r"(?:\.|['\"]\s*,\s*['\"])")
    found = re.search(rf"\b{kind}\s*\(\s*(?:['\"]\w+['\"]\s*,\s*)?['\"]{inside}['\"]", source)
    if not found:
        return start
    line = max(start.line, 1) + source.count("\n", 0, found.start())
    return Where(start.file, line, found.start() - source.rfind("\n", 0, found.start()))
