"""Reads a project: files to typed, checked nodes, prompts and a target. The only reader of project files.

    bqbuild.yml ─ target ─ variables ─ macros ─ prompts ─ declarations ─ references ─ Project

All mistakes are collected on the way and reported together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bqbuild.config.criteria import Definition, parse_definition
from bqbuild.config.declarations import Declared, Readers, read_declarations
from bqbuild.config.defaults import FolderDefaults
from bqbuild.config.files import ProjectFiles
from bqbuild.config.jinja import Renderer
from bqbuild.config.layout import FILE, LOCK, PROFILES, SAMPLE
from bqbuild.config.lock import SourcesLock, parse_lock
from bqbuild.config.macros import MacroFile, read_macros
from bqbuild.config.mistakes import Mistakes
from bqbuild.config.profiles import TargetName, choose_target, read_target
from bqbuild.config.prompts import Prompts, PromptTemplate, read_prompts
from bqbuild.config.references import Names, check_llm_parts, check_name, mentions
from bqbuild.config.rendered import render_values
from bqbuild.config.rowtemplate import RowTemplate, RowTemplates
from bqbuild.config.secrets import Secrets, environment_functions
from bqbuild.config.specs import MixSpec, ProjectSpec, TargetSpec
from bqbuild.config.sqltext import Mention, SqlRenderer
from bqbuild.config.validate import validate
from bqbuild.config.variables import Variables
from bqbuild.config.yamlfile import Document
from bqbuild.core.errors import ProjectError, UsageError, Where
from bqbuild.core.findings import Findings
from bqbuild.core.hashing import Digest
from bqbuild.core.records import Node, NodeName, Ref

_MACROS = (".sql", ".jinja", ".j2", ".md", ".html")


@dataclass(frozen=True, slots=True)
class RenderedSql:
    """SQL after Jinja, with every reference as one quoted identifier, and what it refers to."""

    body: str
    refs: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Project:
    """A project as the chosen target sees it. Everything in it is checked.

    `environment` is `<project>/<name>`, `artifacts` the folder for what commands write, `store_path` an absolute path
    or a URL, `files` the files that were read with their xxh3-128, `warnings` what stops nothing, `places` where the
    target's `llms.<name>.<key>` and the `vars.<name>` in force stand. `sample` is the number of
    rows that are taken of a source; 0 looks at the last sample; None is no sample. `findings` are what analyses of the
    project came to.
    """

    root: Path
    spec: ProjectSpec
    target_name: str
    target: TargetSpec
    variables: Mapping[str, Any]
    nodes: Mapping[NodeName, Node]
    prompts: Mapping[str, PromptTemplate]
    secrets: Secrets
    lock: SourcesLock
    files: Mapping[str, Digest]
    warnings: tuple[tuple[str, Where | None], ...]
    places: Mapping[str, Where]
    _templates: Callable[[str, Where], RowTemplate] = field(repr=False, compare=False)
    _sql: Callable[[str, Where], RenderedSql] = field(repr=False, compare=False)
    _sql_uses: Callable[[str], tuple[frozenset[str], Mapping[str, MacroFile]]] = field(repr=False, compare=False)
    sample: int | None = None
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The project's name."""
        return self.spec.name

    @property
    def environment(self) -> str:
        """The environment that this target publishes to; that of a sample stands beside it."""
        name = self.target.environment or self.target_name
        return f"{self.name}/{name}" if self.sample is None else f"{self.name}/{name}{SAMPLE}"

    @property
    def selectors(self) -> Mapping[str, Definition]:
        """The named selectors."""
        return self.spec.selectors

    @property
    def artifacts(self) -> Path:
        """The folder of manifest, run results and the warehouse; local wherever the store is."""
        return self.root / ".bqbuild" / self.target_name

    @property
    def store_path(self) -> str:
        """Where the store is."""
        store = self.target.store
        return store if "://" in store else str((self.root / Path(store).expanduser()).resolve())

    def row_template(self, source: str, where: Where) -> RowTemplate:
        """The template of one text per row (a mix's `text`). Raises ProjectErrors."""
        return self._templates(source, where)

    def render_sql(self, source: str, where: Where) -> RenderedSql:
        """SQL from outside of the models (a test, `show --inline`). Raises ProjectErrors."""
        return self._sql(source, where)

    def sql_uses(self, source: str) -> tuple[frozenset[str], Mapping[str, MacroFile]]:
        """The variables and macros that the Jinja of a SQL text reaches."""
        return self._sql_uses(source)


def load_project(
    root: Path,
    *,
    target: str | None = None,
    variables: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Project:
    """Read the project at `root` for `target` (else `BQBUILD_TARGET`, else the default of profiles.yml).

    `variables` win over those in files. Raises ProjectErrors with every mistake that was found.
    """
    mistakes = Mistakes()
    files = ProjectFiles(root.resolve(), mistakes)
    values = Variables(variables)
    settings, profiles = files.yaml(FILE), files.yaml(PROFILES)
    target_name = None
    if profiles is not None:
        target_name = choose_target(profiles, target or environ.get("BQBUILD_TARGET") or None, environ, mistakes)
    spec = _read_settings(settings, target_name, values, environ, mistakes) if settings else None
    target_spec, secrets = None, Secrets()
    if profiles is not None and target_name is not None:
        target_spec, secrets = read_target(profiles, target_name, values, environ, mistakes)
        if target_spec is not None:
            _check_environment(target_spec, profiles, target_name, mistakes)
    if spec is None or settings is None:
        mistakes.raise_any()
        raise ProjectError("is not a mapping", where=Where(FILE))
    reading = _Reading(files, mistakes, spec, settings, values, target_name or "", environ)
    lock = _read_lock(files, mistakes)
    prompts = read_prompts(files.texts("prompts", ".md"), reading.templates, reading.renderer, mistakes)
    nodes = reading.nodes(prompts, target_spec)
    mistakes.raise_any()
    if target_spec is None or target_name is None:
        raise ProjectError("has no target", where=Where(PROFILES))
    return Project(
        root=files.root,
        spec=spec,
        target_name=target_name,
        target=target_spec,
        variables=values.all(),
        nodes=nodes,
        prompts=prompts.found,
        secrets=secrets,
        lock=lock,
        files=files.digests,
        warnings=tuple(mistakes.warnings),
        places=_places(settings, profiles, target_name, variables or {}),
        _templates=reading.row_template,
        _sql=reading.render_sql,
        _sql_uses=reading.sql.uses,
    )


def _read_settings(
    document: Document, target: str | None, variables: Variables, environ: Mapping[str, str], mistakes: Mistakes
) -> ProjectSpec | None:
    """bqbuild.yml; its `vars` are known afterwards."""
    value = document.value
    if isinstance(value, dict):
        functions = {**environment_functions(environ, None), "var": variables.var}
        value = render_values(value, document, Renderer(functions, {"target": TargetName(target or "")}), mistakes)
    spec = validate(ProjectSpec, value, document, mistakes)
    if spec is not None:
        variables.add_project(spec.vars)
        _check_selectors(spec, document, mistakes)
    return spec


def _check_selectors(spec: ProjectSpec, document: Document, mistakes: Mistakes) -> None:
    """A named selector that cannot be read is a mistake, whether it is used or not."""
    for number, (name, definition) in enumerate(spec.selectors.items()):
        try:
            parse_definition(definition)
        except UsageError as error:
            place = number if isinstance(document.value["selectors"], list) else name
            mistakes.add(f"selector `{name}`: {error.message}", document.where(("selectors", place)), error.hint)


def _places(settings: Document, profiles: Document | None, target: str, given: Mapping[str, Any]) -> dict[str, Where]:
    """Where connections and variables are declared; of a variable, the place that wins."""
    own = profiles.places(("targets", target)) if profiles is not None else {}
    declared = settings.places(("vars",)) if settings.value.get("vars") else {}
    found = {f"vars.{name}": where for name, where in declared.items()}
    found |= {name: where for name, where in own.items() if name.startswith(("llms.", "vars."))}
    return found | {f"vars.{name}": Where("--vars") for name in given}


def _check_environment(target: TargetSpec, document: Document, name: str, mistakes: Mistakes) -> None:
    if "://" in target.store and target.environment is None:
        where = document.where(("targets", name, "store"))
        mistakes.add("a shared store needs `environment:`", where, "two machines must not share a name by accident")


def _read_lock(files: ProjectFiles, mistakes: Mistakes) -> SourcesLock:
    if (files.root / LOCK).is_file():
        text = files.text(LOCK)
        with mistakes.caught():
            return parse_lock(text, LOCK) if text is not None else SourcesLock()
    return SourcesLock()


class _Reading:
    """The second half of loading: what needs the settings and the variables. Its renderers live on in the Project."""

    def __init__(
        self,
        files: ProjectFiles,
        mistakes: Mistakes,
        spec: ProjectSpec,
        settings: Document,
        variables: Variables,
        target: str,
        environ: Mapping[str, str],
    ) -> None:
        self.files = files
        self.mistakes = mistakes
        self.spec = spec
        self.settings = settings
        functions = {**environment_functions(environ, None), "var": variables.var}
        values = {"target": TargetName(target)}
        self.renderer = Renderer(functions, values)
        self.sql = SqlRenderer(functions, values, spec.name)
        sources = files.texts("project/macros", *_MACROS)
        macros = read_macros(sources, self.sql.renderer.environment, mistakes)
        self.sql.add_macros(macros)
        self.templates = RowTemplates(variables, macros)
        self.names = Names({}, {})
        self._texts: dict[str, RowTemplate] = {}

    def nodes(self, prompts: Prompts, target: TargetSpec | None) -> dict[NodeName, Node]:
        """Every enabled node, its references resolved; mistakes are noted."""
        defaults = FolderDefaults(self.spec, self.settings, self.files.folders("models"), self.mistakes)
        declared, broken = read_declarations(Readers(self.files, defaults, self.renderer, self.sql, self.mistakes))
        self.names = Names(
            {each.spec.name: each for each in declared if each.spec.enabled},
            {each.spec.name: each for each in declared if not each.spec.enabled},
            broken,
        )
        nodes: dict[NodeName, Node] = {}
        for name, each in self.names.enabled.items():
            check_name(each, self.names, self.mistakes)
            check_llm_parts(each, prompts, target, self.mistakes)
            if isinstance(each.spec, MixSpec) and each.spec.text is not None:
                with self.mistakes.caught():
                    self.row_template(each.spec.text, each.declaration.text_where(("text",)))
            nodes[NodeName(name)] = self._node(each)
        return nodes

    def _node(self, each: Declared) -> Node:
        found = (self.names.find(mention, self.mistakes) for mention in mentions(each, self.names))
        return Node(
            name=NodeName(each.spec.name),
            kind=each.kind,
            spec=each.spec,
            refs=tuple(dict.fromkeys(ref for ref in found if ref is not None)),
            where=each.where,
            path=each.path,
            patch=each.patch,
            fqn=(self.spec.name, *each.folders, each.spec.name),
            body=each.sql.with_names() if each.sql is not None else "",
            places=each.places,
        )

    def row_template(self, source: str, where: Where) -> RowTemplate:
        """A template of one text per row; the same text is compiled once."""
        if source not in self._texts:
            mistakes = Mistakes()
            name = f"{where} (text {len(self._texts)})"
            if self.templates.add(name, source, where, mistakes, roles=False):
                self._texts[source] = self.templates.row_template(name, mistakes)
            mistakes.raise_any()
        return self._texts[source]

    def render_sql(self, source: str, where: Where) -> RenderedSql:
        """SQL from outside of the models."""
        mistakes = Mistakes()
        sql = self.sql.render(source, where)
        if sql.config:
            mistakes.add("config() is for models only", where)
        found: list[Mention] = sql.live_mentions()
        refs = [ref for mention in found if (ref := self.names.find(mention, mistakes)) is not None]
        mistakes.raise_any()
        return RenderedSql(sql.with_names(), tuple(dict.fromkeys(refs)))
