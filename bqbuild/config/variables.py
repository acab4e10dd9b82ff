"""`var()`: the command line wins over the target, the target over the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bqbuild.core.errors import ProjectError, Where, did_you_mean


class Variables:
    """The variables of a project, completed in the order in which its files are read."""

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self._given = dict(given or {})
        self._target: dict[str, Any] = {}
        self._project: dict[str, Any] = {}

    def add_project(self, values: Mapping[str, Any]) -> None:
        """The `vars` of bqbuild.yml."""
        self._project.update(values)

    def add_target(self, values: Mapping[str, Any]) -> None:
        """The `vars` of the chosen target."""
        self._target.update(values)

    def all(self) -> dict[str, Any]:
        """Every variable and its value."""
        return {**self._project, **self._target, **self._given}

    def var(self, name: str, *default: Any) -> Any:
        """The value of a variable, else the default. Raises ProjectError where there is neither."""
        values = self.all()
        if name in values:
            return values[name]
        if default:
            return default[0]
        raise self.missing(name)

    def missing(self, name: str, where: Where | None = None) -> ProjectError:
        """The error for a variable that is not there."""
        hint = did_you_mean(name, self.all()) or "set it under `vars` in project/bqbuild.yml"
        return ProjectError(f"there is no variable '{name}'", where=where, hint=hint)
