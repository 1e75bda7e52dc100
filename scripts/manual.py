"""manual: man pages, bash completion and the annotated example, made from the parser and the configuration's sections.

Owns how they look. What an option or a key means is said where it is parsed; what a page says beyond that is in
`docs/man/PAGE.in`, plain man(7) with one of these words on a line of its own where the made parts go:

    @NAME@ @SYNOPSIS@ @OPTIONS@   of the page's command
    @COMMANDS@                    all commands, with what they do
    @DETAILS@                     the same where commands have no pages of their own: with their options
    @KEYS@ @REFUSED@              the configuration's keys, librdkafka's properties that are refused
    @CHECKS@                      what check_scratchd judges

A command without such a file gets a page with what is known of it. `python scripts/manual.py` writes everything; a test
fails when something else stands there.
"""

from __future__ import annotations

import argparse
import email.utils
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SOURCE), str(SOURCE / "haproxy"), str(SOURCE / "monitoring")]

from scratchd import __version__, cli  # noqa: E402 - found by the line above
from scratchd.config.librdkafka import REFUSED  # noqa: E402
from scratchd.tools import reference  # noqa: E402
from scratchd_monitoring import check, graphite  # noqa: E402
from scratchd_rollout import cli as rollout  # noqa: E402

PAGES = SOURCE / "docs/man"
COMPLETION = SOURCE / "debian/scratchd.bash-completion"
ROLLOUT_COMPLETION = SOURCE / "debian/scratchd-rollout.bash-completion"
CHANGELOG = SOURCE / "debian/changelog"
COMPLETE = SOURCE / "examples/complete.json"
ANNOTATED = SOURCE / "examples/annotated.jsonc"

_PLAIN_PAGE = """\
@NAME@
@SYNOPSIS@
.SH DESCRIPTION
@DESCRIPTION@
@OPTIONS@
.SH SEE ALSO
.BR scratchd (1),
.BR scratchd.json (5)
"""

_COMPLETION = """\
# bash completion for {program}. Made by scripts/manual.py, as the man pages are.
# shellcheck shell=bash disable=SC2207 # words without spaces, and paths by lines

_{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local before= command= word IFS=$' \\t\\n'
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        case $before in
            {valued}) ;;
            *)
                case $word in
                    {commands}) command=$word ;;
                esac
                ;;
        esac
        before=$word
    done
    COMPREPLY=()
    case $previous in
{values}
        *)
            case $command in
{options}
            esac
            ;;
    esac
}}
complete -F _{function} {program}
"""


def made() -> dict[Path, str]:
    """Every file that is made, with what belongs into it."""
    whole = cli.command_line()
    files = {
        PAGES / "scratchd.1": _page("scratchd.1", whole, ""),
        PAGES / "scratchd.json.5": _page("scratchd.json.5", whole, ""),
    }
    for name, command in commands(whole).items():
        files[PAGES / f"scratchd-{name}.1"] = _page(f"scratchd-{name}.1", command, name)
    files[COMPLETION] = _completion(whole)
    files[PAGES / "scratchd-rollout.8"] = _page("scratchd-rollout.8", rollout.command_line(), "")
    files[PAGES / "check_scratchd.8"] = _page("check_scratchd.8", check.command_line(), "check")
    files[PAGES / "scratchd-graphite.8"] = _page("scratchd-graphite.8", graphite.command_line(), "graphite")
    files[ROLLOUT_COMPLETION] = _completion(rollout.command_line())
    files[ANNOTATED] = _annotated()
    return files


def commands(whole: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands, by name; without other names of the same."""
    for action in _actions(whole):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no public name for it
            return {name: command for name, command in action.choices.items() if command.prog.endswith(f" {name}")}
    raise TypeError("expected a parser with commands")


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse has no public way


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in _actions(parser) if not isinstance(action, argparse._SubParsersAction))  # noqa: SLF001


def _page(file: str, parser: argparse.ArgumentParser, command: str) -> str:
    title, _, section = file.rpartition(".")
    source = PAGES / f"{file}.in"
    text = source.read_text(encoding="utf-8") if source.exists() else _PLAIN_PAGE
    about = {
        "scratchd": "collector of web analytics beacons",
        "scratchd.json": "configuration of scratchd",
        "check_scratchd": "plugin for Nagios and Icinga",
        "scratchd-graphite": "send figures of scratchd to Graphite",
        "scratchd-rollout": "move visitors from a legacy service to scratchd, step by step",
    }
    what = about.get(title) or str(parser.description).rstrip(".")
    parts = {
        "NAME": f".SH NAME\n{title.replace('-', chr(92) + '-')} \\- {_inline(what[0].lower() + what[1:])}",
        "DESCRIPTION": _inline(str(parser.description)),
        "SYNOPSIS": _synopsis(parser, command),
        "OPTIONS": ".SH OPTIONS\n" + "\n".join(map(_option, _options(parser))),
        "COMMANDS": _commands(parser) if not command else "",
        "DETAILS": _details(parser) if not command else "",
        "CHECKS": "\n".join(map(_check, check.CHECKS)),
        "KEYS": _keys(),
        "REFUSED": "\n".join(f".TP\n.B {_plain(pattern)}\n{_inline(reason)}" for pattern, reason in REFUSED.items()),
    }
    text = re.sub(r"^@([A-Z]+)@$", lambda match: parts[match[1]], text, flags=re.MULTILINE)
    made_by = f'.\\" Made by scripts/manual.py from {file}.in and the program itself.'
    # Of the package's newest entry: a page is as old as its release.
    newest = CHANGELOG.read_text(encoding="utf-8").partition("\n -- ")[2].partition("\n")[0].partition("  ")[2]
    date = email.utils.parsedate_to_datetime(newest).date()
    return f'{made_by}\n.TH {title.upper()} {section} {date} "scratchd {__version__}" "scratchd"\n{text}'


def _synopsis(parser: argparse.ArgumentParser, command: str) -> str:
    words = [f".B {_plain(parser.prog)}", *_signatures(_options(parser))]
    if not command:
        words.append("\\fICOMMAND\\fR ...")
    return ".SH SYNOPSIS\n" + "\n".join(words)


def _signatures(options: Iterable[argparse.Action]) -> list[str]:
    """The options as in a synopsis: in brackets what may be left out."""
    shown = [action for action in options if action.dest != "help"]
    words = [_signature(action) for action in shown]
    return [
        word if action.required or not action.option_strings else f"[{word}]"
        for action, word in zip(shown, words, strict=True)
    ]


def _signature(action: argparse.Action) -> str:
    """An option as it is written: its longest name and its value."""
    name = f"\\fB{_plain(action.option_strings[-1])}\\fR" if action.option_strings else ""
    value = "" if action.nargs == 0 else _value(action)
    if action.nargs in ("?", "*"):
        value = f"[{value}]"
    return f"{name} {value}".strip() + (" ..." if action.nargs in ("*", "+") else "")


def _value(action: argparse.Action) -> str:
    if action.choices is not None:
        return " | ".join(f"\\fB{_plain(str(choice))}\\fR" for choice in action.choices)
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return f"\\fI{_plain(metavar)}\\fR"


def _option(action: argparse.Action) -> str:
    names = ", ".join(f"\\fB{_plain(name)}\\fR" for name in action.option_strings)
    value = "" if action.nargs == 0 else f" {_value(action)}"
    help_text = _inline(str(action.help))
    return f".TP\n{(names + value).strip()}\n{help_text[0].upper()}{help_text[1:].rstrip('.')}."


def _commands(whole: argparse.ArgumentParser) -> str:
    entries = []
    for name, command in commands(whole).items():
        entries.append(f".TP\n.BR scratchd\\-{name} (1)\n{_inline(str(command.description))}")
    return "\n".join(entries)


def _details(whole: argparse.ArgumentParser) -> str:
    found = commands(whole)
    taken = [{option.dest for option in _options(command)} for command in found.values()]
    common = set.intersection(*taken)
    parts = [".SH COMMANDS"]
    for name, command in found.items():
        own = [option for option in _options(command) if option.dest not in common]
        synopsis = " ".join([f"\\fB{_plain(name)}\\fR", *_signatures(own)])
        parts.append(f".TP\n{synopsis}\n{_inline(str(command.description))}")
        notes = [f"{_signature(option)}: {_inline(str(option.help)).rstrip('.')}." for option in own]
        parts += [f".br\n{note}" for note in notes]
    parts.append(".SH OPTIONS\nAll commands take:")
    parts += [_option(option) for option in _options(next(iter(found.values()))) if option.dest in common]
    return "\n".join(parts)


def _check(name: str) -> str:
    found = check.CHECKS[name]
    ranges = ", ".join(
        f"{level} \\fB{_plain(text)}\\fR"
        for level, text in (("warning", found.warning), ("critical", found.critical))
        if text
    )
    return f".TP\n.B {name}\n{_inline(found.about[0].upper() + found.about[1:])} ({ranges or 'no threshold'})."


def _keys() -> str:
    parts = []
    for name, about, keys in reference.sections():
        parts.append(f".SS {_plain(name)}")
        if about:
            parts.append(_inline(about))
        for key in keys:
            default = "" if key.default == "required" else "default: "
            kind = f"{_inline(key.type)}; {default}{_inline(key.default)}" + ("; restart" if key.needs_restart else "")
            parts.append(f".TP\n\\fB{_plain(key.name)}\\fR ({kind})\n{_inline(key.meaning)}")
    return "\n".join(parts)


def _inline(markdown: str) -> str:
    """A line of Markdown, with code and bold text, as man(7); never one that begins a request."""
    pieces = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", markdown)
    text = "".join(
        f"\\fB{_plain(piece[1:-1])}\\fR"
        if piece.startswith("`")
        else f"\\fB{_plain(piece[2:-2])}\\fR"
        if piece.startswith("**")
        else _plain(piece)
        for piece in pieces
    )
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _plain(text: str) -> str:
    return (
        text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("≥", "\\(>=")
    )


def _completion(whole: argparse.ArgumentParser) -> str:
    found = commands(whole)
    replies: dict[str, set[str]] = {}
    options = []
    for name, parser in [("", whole), *found.items()]:
        for action in _options(parser):
            if action.nargs != 0:
                for flag in action.option_strings:
                    replies.setdefault(flag, set()).add(_reply(action))
        flags = [flag for action in _options(parser) for flag in action.option_strings if flag.startswith("--")]
        options.append("        " + _case(name or '""', _words(flags if name else [*found, *flags])))
    values = []
    for flag, different in replies.items():
        # Where commands mean different things by one option, everything is offered that one of them takes.
        values.append(_case(flag, "; ".join(sorted(reply for reply in different if reply)) or ":"))
    return _COMPLETION.format(
        program=whole.prog,
        function=whole.prog.replace("-", "_"),
        commands=" | ".join(found),
        valued=" | ".join(replies),
        values="\n".join(values),
        options="\n".join(options),
    )


def _reply(action: argparse.Action) -> str:
    if action.choices is not None:
        return _words(map(str, action.choices))
    files = action.metavar in {"PATH", "FILE", "DIRECTORY"}
    taken = r"""compopt -o filenames; IFS=$'\n'; COMPREPLY+=($(compgen -f -- "$current"))"""
    return taken if files else ""


def _words(words: Iterable[str]) -> str:
    return f'COMPREPLY+=($(compgen -W "{" ".join(words)}" -- "$current"))'


def _case(pattern: str, reply: str) -> str:
    return f"        {pattern}) {reply} ;;"


def _annotated() -> str:
    """The complete example with every key's meaning above it, once."""
    known = {key.name.removeprefix("flavors[]."): key for _, _, keys in reference.sections() for key in keys}
    lines = [
        "// Every key, below what it means. JSON has no comments: to make a configuration of it,",
        "//     grep -v '^ *//' annotated.jsonc > config.json",
    ]
    section = ""
    for line in COMPLETE.read_text(encoding="utf-8").splitlines():
        opened = re.match(r' {2}"(\w+)": \{$', line)
        section = f"{opened[1]}." if opened else "" if line.startswith(("  }", "  ]")) else section
        found = re.match(r' +"([\w]+)":', line)
        key = known.pop(section + found[1], None) if found else None
        if key:
            margin = " " * (len(line) - len(line.lstrip())) + "// "
            default = "" if key.default == "required" else f" Default: {key.default}."
            default += " Needs a restart." if key.needs_restart else ""
            meaning = re.sub(r"\*\*", "", key.meaning + default)
            lines += textwrap.wrap(
                meaning,
                116,
                initial_indent=margin,
                subsequent_indent=margin,
                break_long_words=False,
                break_on_hyphens=False,
            )
        lines.append(line)
    if known:
        raise ValueError(f"{COMPLETE.name}: lacks {', '.join(known)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes every file that is not what it should be."""
    for path, text in made().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(SOURCE))


if __name__ == "__main__":
    main()
