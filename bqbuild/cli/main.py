"""`bqbuild`: the group of commands, its global flags, and the one place where errors become exit codes.

Commands are imported when they are called: `--help` loads click and nothing heavier.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from bqbuild import __version__
from bqbuild.cli.output import safe
from bqbuild.cli.settings import Settings
from bqbuild.core.errors import BqError

COMMANDS = {
    "build": "Run models and their data tests, in the order of the graph.",
    "clean": "Remove the artifacts of the target; the store stays.",
    "compile": "Show compiled SQL and rendered prompts.",
    "debug": "Check configuration, store and every LLM connection.",
    "diff": "Show what differs between environments, or between runs.",
    "fsck": "Compare every file of the store with its checksum.",
    "import-calls": "Adopt calls that were paid for elsewhere.",
    "gc": "Show what nobody needs any more in the store, and delete it.",
    "init": "Make a new project.",
    "lineage": "Show what a model is made from.",
    "ls": "List models.",
    "parse": "Read and check the project.",
    "plan": "Say what a run would do, why, and what it can cost.",
    "retry": "Ask again where the last build got no usable answer.",
    "run": "Build models: only what really changed.",
    "schema": "Print the JSON Schemas of the YAML files.",
    "show": "Show rows of a model.",
    "test": "Run data tests.",
    "trace": "Follow one record back to its seed.",
    "version": "Print the version.",
}
"""The commands and the line of help of each; a command is the function of its name in the module of its name."""


INTERRUPTED = 130
"""The exit code of Ctrl-C, as shells have it."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, by name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name.replace('-', '_')}_command"
        command = getattr(import_module(f"bqbuild.cli.{name}"), name)
        assert isinstance(command, click.Command)  # every module in COMMANDS defines one
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name in the error."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            from bqbuild.core.errors import did_you_mean

            hint = did_you_mean(name, COMMANDS)
            ctx.fail(f"no such command '{name}'" + (f" ({hint})" if hint else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in sorted(COMMANDS)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="bqbuild")
@click.option("--project-dir", envvar="BQBUILD_PROJECT_DIR", help="The project; found by walking up where not given.")
@click.option("--target", "-t", envvar="BQBUILD_TARGET", help="A target of profiles.yml.")
@click.option("--vars", "variables", help="Variables as YAML: '{min_words: 5}'. They win over the project's.")
@click.option("--quiet", "-q", is_flag=True, help="Show errors only.")
@click.option("--no-color", is_flag=True, help="Plain text; NO_COLOR does the same.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def cli(ctx: click.Context, /, **given: Any) -> None:
    """A declarative build tool for LLM training data."""
    ctx.obj = Settings(**given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 something failed or is missing, 2 usage or configuration."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `bqbuild ls | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    if code == INTERRUPTED:
        # exiting the usual way would wait for what goes on in threads, a training for hours
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command; its exit code. Errors become sentences on stderr; with --debug they stay tracebacks."""
    is_debugging = "--debug" in arguments
    color = False if "--no-color" in arguments or os.environ.get("NO_COLOR") else None
    try:
        code = cli.main(args=arguments, prog_name="bqbuild", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        _say("stopped; every answer that came is kept, and the next run goes on from there", color)
        return INTERRUPTED
    except BqError as error:
        if is_debugging:
            traceback.print_exc()
        _say(str(error), color)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  the outermost boundary: a user sees a sentence, --debug shows the rest
        if is_debugging:
            traceback.print_exc()
        _say(_sentence(error, is_debugging), color)
        return 1


def _sentence(error: Exception, is_debugging: bool) -> str:
    """What to say of an error that nobody foresaw; a package of an extra that is not installed is the usual one."""
    from bqbuild.core.loading import EXTRAS

    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in EXTRAS:
        hint = f"pip install 'bqbuild[{EXTRAS[package]}]'"
        return f"this needs the package `{package}`, which is not installed\n  hint: {hint}"
    said = f"bqbuild failed: {type(error).__name__}: {error}"
    return said if is_debugging else f"{said}\n  hint: run with --debug for the traceback, and please report it"


def _say(text: str, color: bool | None) -> None:
    """Tell of an error: hints dim, everything else as it is."""
    for line in text.splitlines():
        is_hint = line.startswith("  hint: ")
        click.secho(safe(line), err=True, dim=is_hint, fg=None if is_hint else "red", color=color)


if __name__ == "__main__":
    main()
