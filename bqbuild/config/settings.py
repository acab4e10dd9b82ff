"""The typed form of bqbuild.yml, profiles.yml and the front matter of prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from bqbuild.config.specbase import Spec, Text, Texts, Value


class PriceSpec(Spec):
    """Dollars per million tokens."""

    input: float = Field(default=0.0, ge=0)
    output: float = Field(default=0.0, ge=0)
    batch_discount: float = Field(default=0.5, ge=0, le=1)

    def discounted(self) -> PriceSpec:
        """What a call of the Batch API costs: the discount taken off every price."""
        share = 1 - self.batch_discount
        return self.model_copy(update={"input": self.input * share, "output": self.output * share})


class BatchSpec(Spec):
    """How calls are gathered into batches for a provider's Batch API, and how often a batch is asked for; seconds."""

    max_requests: int = Field(default=50_000, ge=1)
    max_bytes: int = Field(default=200_000_000, ge=1)
    max_batches: int = Field(default=8, ge=1)
    quiet: float = Field(default=5.0, ge=0)
    poll: float = Field(default=60.0, gt=0)
    window: str = "24h"


class ConnectionSpec(Spec):
    """A named LLM of a target. `model` is the id that goes on the wire, or a path or hub id for `embedded`."""

    provider: str
    model: str
    mode: Literal["online", "batch"] = "online"
    batch: BatchSpec = Field(default_factory=BatchSpec)
    revision: str | None = None
    base_url: str | None = None
    endpoints: list[str] = Field(default_factory=list)
    api_key: str = Field(default="", repr=False)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    max_concurrency: int = Field(default=16, ge=1)
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    timeout: float = Field(default=120.0, gt=0)
    total_timeout: float = Field(default=3600.0, gt=0)
    read_timeout: float | None = Field(default=None, gt=0)
    stream: bool | None = None
    retries: int = Field(default=6, ge=0)
    price: PriceSpec = Field(default_factory=PriceSpec)
    params: dict[str, Value] = Field(default_factory=dict)
    constrain: bool | None = None
    context: int | None = Field(default=None, ge=1)
    """Longest prompt in tokens; a longer one is truncated by `embedded`, with a warning."""
    threads: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=16, ge=1)
    _secrets: frozenset[str] = PrivateAttr(default=frozenset())

    def remember_secrets(self, secrets: frozenset[str]) -> None:
        """Know the secrets of the target, wherever they stand: a server may say any of them back."""
        self._secrets = secrets

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets of the target."""
        return self._secrets

    @property
    def rates(self) -> PriceSpec:
        """What calls really cost: the price, less the discount where they go by batch."""
        return self.price.discounted() if self.mode == "batch" else self.price

    @model_validator(mode="after")
    def _batch_needs_a_provider_of_batches(self) -> Self:
        if self.mode == "batch" and self.provider != "openai":
            raise ValueError(f"`mode: batch` needs `provider: openai`; `{self.provider}` has no Batch API")
        return self


class TargetSpec(Spec):
    """Where and with what a project is built. `vars` win over the project's."""

    store: str = ".bqbuild"
    engine: Literal["local", "ray"] = "local"
    environment: str | None = None
    vars: dict[str, Value] = Field(default_factory=dict)
    llms: dict[str, ConnectionSpec] = Field(default_factory=dict)


class ProfilesSpec(Spec):
    """`project/profiles.yml`."""

    default: str
    targets: dict[str, TargetSpec] = Field(min_length=1)


def _by_name(value: object) -> object:
    """Selectors as in dbt's selectors.yml, a list of `name` and `definition`, are a mapping of name to definition."""
    if not isinstance(value, list):
        return value
    found: dict[str, object] = {}
    for entry in value:
        if not isinstance(entry, dict) or not {"name", "definition"} <= entry.keys():
            raise ValueError("an entry of a list of selectors has `name` and `definition`")
        if others := entry.keys() - {"name", "definition", "description"}:
            raise ValueError(f"unknown key '{min(map(str, others))}' in the selector `{entry['name']}`")
        if str(entry["name"]) in found:
            raise ValueError(f"two selectors are called `{entry['name']}`")
        found[str(entry["name"])] = entry["definition"]
    return found


Selectors = Annotated[
    dict[str, Value],
    BeforeValidator(_by_name, json_schema_input_type=dict[str, str | dict[str, Any]] | list[dict[str, Any]]),
]
"""What each name stands for: an expression, or dbt's long form. config/criteria.py reads it."""


class ProjectSpec(Spec):
    """`project/bqbuild.yml`. `models` holds defaults by folder below `models/`, as in dbt."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")
    version: Text = "1"
    vars: dict[str, Value] = Field(default_factory=dict)
    models: dict[str, Value] = Field(default_factory=dict)
    selectors: Selectors = Field(default_factory=dict)


class PromptFrontMatter(Spec):
    """What stands between the `---` lines of a prompt file."""

    description: Text = ""
    system: str | None = None
    params: dict[str, Value] = Field(default_factory=dict)
    tags: Texts = Field(default_factory=list)
    meta: dict[str, Value] = Field(default_factory=dict)
