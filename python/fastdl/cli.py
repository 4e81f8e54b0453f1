"""The command ``fastdl``: train, eval, predict, info.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 2 the user can put it right
(one sentence on stderr, no file changed); 130 interrupted by Ctrl-C (what is there is saved).
Set ``FASTDL_TRACEBACK=1`` to see where an error comes from.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

INTERRUPTED = 130
USER_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = _show_warning(arguments.prog)
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        print(f"{arguments.prog}: interrupted; no file was changed", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, MemoryError) as error:
        if os.environ.get("FASTDL_TRACEBACK"):
            raise
        print(f"{arguments.prog}: {_sentence(error)}", file=sys.stderr)
        return USER_ERROR


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(prog: str) -> Callable[..., None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        print(f"{prog}: {message}", file=sys.stderr)

    return show


def _parser() -> _Parser:
    parser = _Parser("fastdl", description="Train neural networks straight from data.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.set_defaults(command=_no_command, prog="fastdl")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_train(_command(commands, "train", "train a network on a data set", _train))
    _add_eval(_command(commands, "eval", "test a trained model", _eval))
    _add_predict(_command(commands, "predict", "apply a trained model", _predict))
    info = _command(commands, "info", "describe a model file, or this installation", _info)
    info.add_argument("model", nargs="?", metavar="MODEL", help="a model file")
    return parser


def _command(commands: Any, name: str, text: str, function: Callable[..., int]) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function, prog=f"fastdl {name}")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser


_DATA = "digits, breast_cancer, wine, iris, diabetes; a .csv or .npz file; or an IDX folder"


def _add_train(parser: _Parser) -> None:
    add = parser.add_argument
    add("data", metavar="DATA", help=_DATA)
    add("--hidden", type=_sizes, metavar="128", help="hidden layers, as 128,64, or none")
    add("--epochs", type=_whole(1), metavar="60", help="rounds over the training rows")
    add("--batch-size", type=_whole(1), metavar="32", help="rows per step")
    add("--lr", type=_real(0, open_low=True), metavar="0.002", help="learning rate")
    add("--optimizer", choices=["adamw", "adam", "sgd"], help="default: adamw")
    add("--weight-decay", type=_real(0), metavar="0.01", help="weight decay")
    add("--schedule", choices=["cosine", "constant"], help="of the learning rate; cosine")
    add("--dropout", type=_real(0, 1, open_high=True), metavar="0", help="share of zeros")
    add("--label-smoothing", type=_real(0, 1), metavar="0.1", help="of the classes")
    add("--norm", choices=["none", "batch"], help="normalisation; default: none")
    add("--patience", type=_whole(0), metavar="0", help="epochs to wait for a better one; 0: all")
    add("--test-fraction", type=_real(0, 1, True, True), metavar="0.25", help="held-out share")
    add("--seed", type=_whole(0), metavar="0", help="of split, weights, shuffles, dropout")
    add("--task", choices=["classification", "regression"], help="default: found out")
    add("--target", metavar="COLUMN", help="name or position in a .csv; default: the last")
    add("--out", default="model.safetensors", metavar="FILE", help="default: model.safetensors")
    add("--plot", default="curves.png", metavar="FILE", help="default: curves.png; or none")
    add("--checkpoint", metavar="FILE", help="written after every epoch, for --resume")
    add("--resume", metavar="FILE", help="go on with the run in a model file or checkpoint")
    add("--quiet", action="store_true", help="print the result alone")


def _add_eval(parser: _Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument("--data", metavar="DATA", help=f"default: that of the training. {_DATA}")
    parser.add_argument("--target", metavar="COLUMN", help="target column of a .csv")
    parser.add_argument(
        "--part",
        choices=["test", "train", "all"],
        help="rows to test; default: those held out in training, all rows of other data",
    )


def _add_predict(parser: _Parser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument("data", metavar="DATA", help=f"the target may be missing. {_DATA}")
    parser.add_argument("--target", metavar="COLUMN", help="target column of a .csv")
    parser.add_argument("--out", metavar="FILE", help="a .csv file; default: stdout")
    parser.add_argument("--proba", action="store_true", help="add the classes' probabilities")


def _sizes(text: str) -> tuple[int, ...]:
    if text.strip().lower() in ("", "none"):
        return ()
    return tuple(_whole(1)(part) for part in text.split(","))


def _whole(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value < 2**62:
            raise argparse.ArgumentTypeError(f"must be a whole number >= {low}, got {text!r}")
        return value

    return parse


def _real(
    low: float, high: float = float("inf"), open_low: bool = False, open_high: bool = False
) -> Callable[[str], float]:
    left, right = ">" if open_low else ">=", "<" if open_high else "<="
    wanted = f"{left} {low:g}" + (f" and {right} {high:g}" if high < float("inf") else "")

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        inside = low <= value <= high and abs(value) != float("inf")
        if not inside or (open_low and value == low) or (open_high and value == high):
            raise argparse.ArgumentTypeError(f"must be a number {wanted}, got {text!r}")
        return value

    return parse


def _no_command(arguments: argparse.Namespace) -> int:
    if arguments.version:
        import fastdl

        print(fastdl.__version__)
        return 0
    raise ValueError("a command must be one of train, eval, predict, info, got none; see --help")


def _train(arguments: argparse.Namespace) -> int:
    from fastdl.train import commands

    return commands.train(arguments)


def _eval(arguments: argparse.Namespace) -> int:
    from fastdl.train import commands

    return commands.evaluate(arguments)


def _predict(arguments: argparse.Namespace) -> int:
    from fastdl.train import commands

    return commands.predict(arguments)


def _info(arguments: argparse.Namespace) -> int:
    from fastdl.train import commands

    return commands.info(arguments)
