"""The command line: ``listener <command>``. What goes wrong is reported on one clear line."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from listener import __version__
from listener.commands.backup import backup
from listener.commands.check import check
from listener.commands.demo import demo
from listener.commands.export import export
from listener.commands.import_ import import_
from listener.commands.keys import keys
from listener.commands.rebuild import rebuild
from listener.commands.sandbox import sandbox
from listener.commands.serve import serve
from listener.commands.signing import sign, trigger
from listener.commands.tail import tail
from listener.commands.verify import verify
from listener.errors import ListenerError

FAILED: Final = 1
INTERRUPTED: Final = 130


class _InOrder(click.Group):
    """Lists the commands in the order they were added, beginning with what a newcomer needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="listener")
def program() -> None:
    """Receive Pockyt's signed notifications, keep them in a ledger, and tell the tills.

    \b
    Look at it first, without any settings:
        listener demo
    Then serve:
        listener keys create --config listener.toml --role admin
        listener serve --config listener.toml

    Each command explains itself: listener COMMAND --help.
    """


for _command in (
    *(demo, serve, keys, check),
    *(tail, trigger, sign, sandbox),
    *(verify, rebuild, export, backup, import_),
):
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    _open_streams()
    sys.exit(_run(arguments))


class _ClosedOutput(io.RawIOBase):
    """Fails each write: what a command has to show must not vanish unseen."""

    def writable(self) -> bool:
        return True

    def write(self, _data: object) -> int:
        raise OSError(
            errno.EBADF,
            "stdout is closed, so that nothing can be shown: give it a terminal, a file or a pipe",
        )


def _open_streams() -> None:
    """Put something in the place of standard streams that were closed, as `>&-` does."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # This takes the lowest free number. Otherwise the ledger, or a connection, would get
            # the number of stdout.
            os.open(os.devnull, os.O_RDONLY)
    # mypy believes that there always is one; Python has None if it was closed.
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(_ClosedOutput(), encoding="utf-8", write_through=True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - to the end


def _run(arguments: Sequence[str] | None) -> int:
    try:
        status = program.main(arguments, prog_name="listener", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        text = error.format_message().rstrip(".")
        command = error.ctx.command_path if error.ctx else "listener"
        return _failed(f"{text} (see {command} --help)", error.exit_code)
    except click.ClickException as error:
        return _failed(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ListenerError as error:
        return _failed(str(error), FAILED)
    except OSError as error:
        about = f"{error.filename}: " if error.filename else ""
        return _failed(f"{about}{error.strerror or error}", FAILED)
    return status if isinstance(status, int) else 0


def _failed(text: str, status: int) -> int:
    """Write on one line what went wrong; return the exit code."""
    click.echo(f"listener: {' '.join(text.split())}", err=True)
    return status
