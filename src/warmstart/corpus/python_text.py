"""English prose and bare code out of Python source."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Iterator

_LEGAL = re.compile(
    r"copyright|\(c\) ?\d{4}|licen[cs]e[ds]?\b|all rights reserved|permission is|warrant(y|ies)|without fee"
    r"|redistribut|disclaims?\b|provided .as is",
    re.IGNORECASE,
)
_MARKS = re.compile(
    r"^(type:|noqa|pylint|pragma|fmt:|mypy:|ruff:|flake8|-\*-|!|vi:|vim:|coding[:=]|\$Id|XXX$)"
)
_RULE = re.compile(r"^\W*$")
_BULLET = re.compile(r"^\s*([-*+•]|\d+[.)]|\(?[a-z]\))\s+")
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]+?)(?:\s*<[^>]*>)?`")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_CODE_SIGN = re.compile(
    r"^\s*(>>>|\.\.\. |\$ |def |class |import |from \S+ import|return |raise |assert |@\w"
    r"|[\w.]+\(.*\)\s*(->|$)"
    r"|[\w.,\s]+\s[-+*/|&]?=\s|if .*:$|for .*:$|while .*:$|else:$|try:$|except.*:$|print\()"
)
_STATEMENT = re.compile(
    r"[=()\[\]{}]|^(pass|return|raise|break|continue|del|global|import|from|assert|else|try|finally)\b"
)


def prose_of(source: str) -> str:
    """The English of a module: its docstrings and comment blocks in order, as paragraphs.

    Lines of a paragraph are joined; doctests, code, tables, rules, signatures, licence and encoding lines are
    dropped; a paragraph stays if it reads like sentences (see `is_prose`).

    Raises:
        SyntaxError: The source does not parse.
    """
    tree = ast.parse(source)
    pieces = [*_docstrings(tree), *_comments(source, tree)]
    seen: set[str] = set()
    kept: list[str] = []
    for _, text in sorted(pieces):
        for paragraph in paragraphs(text):
            if paragraph not in seen:
                seen.add(paragraph)
                kept.append(paragraph)
    return "\n".join(kept)


def topics_of(source: str) -> dict[str, str]:
    """The reference texts behind `help("topic")`, by topic, cleaned like docstrings."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            texts = ast.literal_eval(node.value)
            cleaned = {name: "\n".join(paragraphs(text)) for name, text in texts.items()}
            return {name: text for name, text in cleaned.items() if text}
    return {}


def code_of(source: str) -> str:
    """The module without docstrings, comments and the blank lines they leave; still valid Python.

    A body that was only a docstring becomes `pass`.

    Raises:
        SyntaxError: The source does not parse.
    """
    source = _with_plain_breaks(source)
    lines = [line + "\n" for line in source.split("\n")]
    cuts: list[tuple[int, int, int, int, str]] = []  # line and column where the cut starts and ends, new text
    tree = ast.parse(source)
    for node in (tree, *_statements(tree)):
        docstring = _docstring_node(node)
        if docstring is not None:
            alone = len(node.body) == 1 and not isinstance(node, ast.Module)  # type: ignore[attr-defined]
            start, end = (
                (docstring.lineno, docstring.col_offset),
                (docstring.end_lineno, docstring.end_col_offset),
            )
            if not _shares_line(lines, docstring):
                cuts.append((*start, int(end[0] or 0), int(end[1] or 0), "pass" if alone else ""))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line = lines[token.start[0] - 1]
            start_byte, end_byte = (len(line[:column].encode()) for column in (token.start[1], token.end[1]))
            cuts.append((token.start[0], start_byte, token.end[0], end_byte, ""))
    raw = [line.encode() for line in lines]
    touched: set[int] = set()
    for first, start_column, last, end_column, text in sorted(cuts, reverse=True):
        raw[first - 1 : last] = [
            raw[first - 1][:start_column] + text.encode() + raw[last - 1][end_column:],
            *[b""] * (last - first),
        ]
        touched.update(range(first - 1, last))
    kept = []
    for number, encoded in enumerate(raw):
        line = encoded.decode()
        if number not in touched:
            kept.append(line.rstrip("\r\n"))
        elif line.strip():
            kept.append(line.rstrip())
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(kept)).strip("\n") + "\n"


def paragraphs(text: str) -> Iterator[str]:
    """The prose paragraphs of a docstring or comment block, each on one line."""
    block: list[str] = []
    doctest = False
    for line in [*inspect.cleandoc(text).expandtabs().splitlines(), ""]:
        stripped = line.strip()
        if doctest and stripped:
            continue
        doctest = stripped.startswith(">>>")
        new_item = bool(_BULLET.match(line))
        indented = bool(block) and len(line) - len(line.lstrip()) >= 4 + _indent(block[0])
        if not stripped or doctest or _RULE.match(stripped) or new_item or indented:
            yield from _paragraph(block)
            block = []
        if stripped and not doctest and not _RULE.match(stripped):
            block.append(line)


def is_prose(text: str) -> bool:
    """Whether a line of text reads like English sentences rather than code, a table or a signature.

    At least five words, most of them lower-case; at least 85 % letters, spaces and common punctuation; no
    start like a statement; no licence terms.
    """
    words = _WORD.findall(text)
    if len(words) < 5 or _LEGAL.search(text) or _CODE_SIGN.match(text):
        return False
    lower = sum(word.islower() for word in words)
    plain = sum(char.isalpha() or char in " ,.;:'\"-" for char in text)
    return lower >= 0.6 * len(words) and plain >= 0.85 * len(text) and "  " not in text.strip()


def _paragraph(block: list[str]) -> Iterator[str]:
    if not block or any(_CODE_SIGN.match(line) for line in block[:1]):
        return
    if any(re.search(r"\S {3,}\S", line) for line in block):  # columns of a table
        return
    text = " ".join(line.strip() for line in block)
    text = _ROLE.sub(r"\1", text).replace("``", "").replace("**", "")
    text = re.sub(r"^\s*([-*+•]|\d+[.)])\s+", "", " ".join(text.split()))
    if is_prose(text):
        yield text


def _with_plain_breaks(source: str) -> str:
    """With the line breaks that the parser counts; `splitlines` also breaks at form feeds and others."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements at all depths. Far fewer nodes than `ast.walk`, which also visits every expression."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        for name in _BODIES:
            inner = getattr(node, name, None)
            if isinstance(inner, list):
                stack.extend(inner)
                yield from inner


def _docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in (tree, *_statements(tree)):
        docstring = _docstring_node(node)
        if docstring is not None:
            yield docstring.lineno, str(docstring.value)


def _string_lines(tree: ast.Module) -> set[int]:
    """Lines that continue a string, where a # is text."""
    inside: set[int] = set()
    for statement in _statements(tree):
        if getattr(statement, "end_lineno", 1) == getattr(statement, "lineno", 0):
            continue
        for name, value in ast.iter_fields(statement):
            if name in _BODIES:
                continue
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    for node in ast.walk(part):
                        if isinstance(node, ast.Constant | ast.JoinedStr):
                            inside.update(range(node.lineno + 1, (node.end_lineno or 0) + 1))
    return inside


def _docstring_node(node: ast.AST) -> ast.Constant | None:
    if (
        not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        or not node.body
    ):
        return None
    first = node.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        return first.value
    return None


def _shares_line(lines: list[str], node: ast.Constant) -> bool:
    """Whether other code stands on the docstring's lines (`def f(): "text"`), which is then left alone."""
    before = lines[node.lineno - 1].encode()[: node.col_offset].strip()
    after = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].strip()
    return bool(before) or bool(after and not after.startswith(b"#"))


def _comments(source: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Blocks of whole-line comments at one indentation, without what is not meant for readers."""
    inside = _string_lines(tree)
    block: list[str] = []
    first, last, column = 0, -1, -1
    for line, text in enumerate(_with_plain_breaks(source).split("\n"), start=1):
        stripped = text.lstrip()
        if not stripped.startswith("#") or line in inside:
            continue
        indent = len(text) - len(stripped)
        if line != last + 1 or indent != column:
            if block:
                yield first, "\n".join(block)
            block, first, column = [], line, indent
        last = line
        comment = re.sub(r"^#+:?", "", stripped)
        if _MARKS.match(comment.strip()) or _is_code(comment):
            comment = ""
        block.append(comment.removeprefix(" "))
    if block:
        yield first, "\n".join(block)


def _is_code(line: str) -> bool:
    """Whether a comment line is code that was switched off."""
    stripped = line.strip()
    if not _STATEMENT.search(stripped):
        return False
    try:
        ast.parse(stripped.rstrip(":") if stripped.endswith(":") else stripped)
    except (SyntaxError, ValueError):
        return False
    return True
