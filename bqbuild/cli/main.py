"""`bqbuild`: the group of commands, its global flags, and the one place where errors become exit codes.

Commands are imported when they are called: `--help` loads click and nothing heavier.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from bqbuild import __version__
from bqbuild.cli.settings import Settings
from bqbuild.core.errors import BqError

COMMANDS = {
    "build": "Run models and their data tests, in the order of the graph.",
    "compile": "Show compiled SQL and rendered prompts.",
    "debug": "Check configuration, store and every LLM connection.",
    "init": "Make a new project.",
    "lineage": "Show what a model is made from.",
    "ls": "List models.",
    "parse": "Read and check the project.",
    "plan": "Say what a run would do, why, and what it can cost.",
    "run": "Build models: only what really changed.",
    "schema": "Print the JSON Schemas of the YAML files.",
    "show": "Show rows of a model.",
    "test": "Run data tests.",
    "trace": "Follow one record back to its seed.",
    "version": "Print the version.",
}
"""The commands and the line of help of each; a command is the function of its name in the module of its name."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, by name."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"bqbuild.cli.{cmd_name}_command"), f"{cmd_name}_command")
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
def cli(ctx: click.Context, **given: Any) -> None:
    """A declarative build tool for LLM training data."""
    ctx.obj = Settings(**given)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 something failed or is missing, 2 usage or configuration."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(args=arguments, standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; every answer that came is kept", err=True)
        code = 130
    except BrokenPipeError:
        code = 1
    except BqError as error:
        click.echo(str(error), err=True)
        code = error.exit_code
    except Exception as error:  # the outermost boundary: a user sees a sentence, --debug shows the rest
        if "--debug" in arguments:
            raise
        click.echo(
            f"bqbuild failed: {type(error).__name__}: {error}\n  hint: run with --debug for the traceback", err=True
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
