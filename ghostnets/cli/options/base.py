"""Base class of the option classes: how tyro parses them and shows their help."""

import ast
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import MISSING, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ghostnets.files import find_checkpoint
from ghostnets.terminal import escape_control

__all__ = ["CheckpointPath", "CommandOptions", "JsonOutput", "show", "show_all"]

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> Any:
    """An option of type ``X | None`` is shown as one of type X; ``None`` is still accepted."""
    kinds = [kind for kind in get_args(info.type) if kind is not type(None)]
    if len(kinds) != 1 or len(get_args(info.type)) != 2 or get_origin(info.type) is Annotated:
        return None
    inner = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(inner, PrimitiveConstructorSpec):
        return inner
    return PrimitiveConstructorSpec(
        nargs=inner.nargs,
        metavar=inner.metavar,
        instance_from_str=lambda words: None if words == ["None"] else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else inner.str_from_instance(value),
    )


# A checkpoint, or the folder of a run, meaning its best.safetensors.
CheckpointPath = Annotated[
    Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="CHECKPOINT|RUN",
        instance_from_str=lambda words: find_checkpoint(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda value: [str(value)],
    ),
]
JsonOutput = Annotated[bool, tyro.conf.arg(name="json", help="Print the result as JSON on stdout.")]


def show(annotation: Any, *, pair: bool = False, **config: Any) -> Any:
    """Annotation of an option whose help shows its default unless that is None.

    Args:
        annotation: Type of the option.
        pair: For a switch: ``--x`` and ``--no-x`` instead of the one that changes the default.
        config: Arguments of ``tyro.conf.arg``.
    """
    is_switch = annotation is bool or get_args(annotation)[:1] == (bool,)
    markers = (tyro.conf.FlagCreatePairsOff,) if is_switch and not pair else ()
    return Annotated[(annotation, *markers, tyro.conf.arg(help_behavior_hint=_describe_default, **config))]


def show_all(cls: type, annotations: Mapping[str, Any] | None = None) -> None:
    """Apply ``show`` to the annotations of a class, by default its own, before it becomes a dataclass."""
    hints = dict(annotations or inspect.get_annotations(cls))
    for name, hint in hints.items():
        origin: Any = get_origin(hint)
        if origin is not ClassVar:
            hints[name] = show(hint, pair=getattr(cls, name, None) is True)
    cls.__annotations__ = hints


def _join_lines(cls: type) -> None:
    """Make each paragraph of the help one line, which tyro wraps; it keeps the line breaks of the source."""
    cls.__doc__ = "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", cls.__doc__ or ""))
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(definition, ast.ClassDef)
    for node, following in pairwise(definition.body):
        match node, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                cls.__annotations__[name] = Annotated[
                    cls.__annotations__[name], tyro.conf.arg(help=" ".join(text.split()))
                ]


def _describe_default(default: str) -> str:
    if default in ("", "None", "False"):
        return ""
    return f"(default: {'on' if default == 'True' else default})"


def _rename(argument: str, renamed: Mapping[str, str]) -> str:
    name, *value = argument.split("=", 1)
    return "=".join([renamed.get(name, name), *value])


@contextmanager
def _escape_output() -> Iterator[None]:
    """Escape control characters in what tyro prints: a message about an invalid argument contains that argument."""
    output, errors = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            yield
    finally:
        sys.stdout.write(escape_control(output.getvalue()))
        sys.stderr.write(escape_control(errors.getvalue()))


@dataclass(frozen=True)
class CommandOptions:
    """Options of a command.

    Attributes:
        command: Name of the command.
        renamed: Earlier spelling of an option -> its name; both are accepted.
        arguments: The parsed arguments, without the command; for reports that repeat them.
    """

    command: ClassVar[str]
    renamed: ClassVar[Mapping[str, str]] = {}
    arguments: ClassVar[tuple[str, ...]] = ()  # set per instance, not an option

    def __init_subclass__(cls, **_: Any) -> None:
        show_all(cls)

    @classmethod
    def parse(cls, arguments: list[str], *, default: Self | None = None) -> Self:
        """Parse the arguments of the command; exits with 0 after help, and with 2 if they are invalid.

        Args:
            arguments: The arguments, without the command.
            default: Values of the options that are not given.
        """
        if not arguments and cls._is_incomplete():
            sys.stderr.write(f"{cls.describe_use()}\n")
            raise SystemExit(2)
        if not {"-h", "--help"}.isdisjoint(arguments):
            _join_lines(cls)
        spelled = [_rename(argument, cls.renamed) for argument in arguments]
        defaults: dict[str, Any] = {} if default is None else {"default": default}
        with _escape_output() if any(escape_control(word) != word for word in arguments) else nullcontext():
            options = tyro.cli(cls, prog=f"ghostnets {cls.command}", args=spelled, registry=REGISTRY, **defaults)
        return options.with_arguments(arguments)

    @classmethod
    def _is_incomplete(cls) -> bool:
        """Whether the command cannot run without arguments."""
        return any(f.default is MISSING and f.default_factory is MISSING for f in fields(cls))

    @classmethod
    def describe_use(cls) -> str:
        """Summary and examples of the command, for a command line without arguments."""
        assert cls.__doc__ is not None
        text = " ".join(cls.__doc__.split())
        summary, _, examples = text.partition(" Example")
        first = re.split(r"(?<=\.) ", summary)[0]
        tries = "".join(f"  {each.strip()}\n" for each in examples.partition(": ")[2].split(" | "))
        return f"{first}\n\nFor example:\n\n{tries}\nAll options: ghostnets {cls.command} --help"

    def with_arguments(self, arguments: list[str], **changes: Any) -> Self:
        """A copy with these arguments and other values."""
        made = replace(self, **changes)
        object.__setattr__(made, "arguments", tuple(arguments))
        return made

    def check(self) -> None:
        """Reject invalid arguments before anything is imported or computed.

        Raises:
            GhostNetsError: An option, a file or a library is missing, unknown or unsuitable.
        """
