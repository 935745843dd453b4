"""Prose and code out of Python source."""

from __future__ import annotations

import ast

from warmstart.corpus.python_text import code_of, prose_of, topics_of

SOURCE = '''#!/usr/bin/env python
# -*- coding: utf-8 -*-
# Copyright (c) 2001 by Somebody who licensed this file to everyone else.

"""This module explains how trees
grow in the forest.

    >>> grow(1)
    The output of the example that nobody should learn.

- The first item tells about the seeds of the tree.
- The second item tells about the leaves of the tree.

name      value     other words in columns of a table
"""
import os  # an inline comment that is not a block at all

TEXT = """a string that is
# not a comment although it looks very much like one
to the reader"""


class Tree:
    """A tree that stands in the :class:`Forest` of the examples."""

    # The height of the tree is measured in metres,
    # not in feet as in the older versions.
    height = 3
    # height = compute_the(height) if x else y

    def grow(self): "Too short"

    def fall(self):
        """Let the tree fall down on the ground with noise."""

    async def rest(self, x="é"):
        r"""Wait for the spring to come back again."""  # then
        return x  # trailing é
'''


def test_prose():
    assert prose_of(SOURCE).split("\n") == [
        "This module explains how trees grow in the forest.",
        "The first item tells about the seeds of the tree.",
        "The second item tells about the leaves of the tree.",
        "A tree that stands in the Forest of the examples.",
        "The height of the tree is measured in metres, not in feet as in the older versions.",
        "Let the tree fall down on the ground with noise.",
        "Wait for the spring to come back again.",
    ]


def test_code():
    code = code_of(SOURCE)
    assert "not a comment although" in code, "strings are kept"
    assert "#" not in code.replace("# not a comment", "")
    assert "spring" not in code and "explains" not in code and "metres" not in code
    assert "    def fall(self):\n        pass\n" in code
    assert 'def grow(self): "Too short"' in code, "one-line bodies are left alone"
    assert '    async def rest(self, x="é"):\n        return x\n' in code
    expected = ast.parse(SOURCE)
    for node in ast.walk(expected):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            one_line = getattr(node, "name", "") == "grow"
            if ast.get_docstring(node) and not one_line:
                node.body = node.body[1:] or [ast.Pass()]
    assert ast.dump(ast.parse(code)) == ast.dump(expected), "the same program"


def test_form_feeds_and_other_breaks_that_the_parser_does_not_count():
    """Some distributions ship the standard library with form feeds between its functions."""
    odd = SOURCE.replace("\n\nclass Tree", "\n\f\n\fclass Tree").replace("the reader", "\x85the\u2028reader")
    assert odd.count("\f") == 2
    assert prose_of(odd) == prose_of(SOURCE)
    plain = code_of(odd).replace("\f", "").replace("\x85", "").replace("\u2028", " ")
    assert plain == code_of(SOURCE)
    assert code_of(SOURCE.replace("\n", "\r\n")) == code_of(SOURCE)


def test_topics():
    text = "The assert statement\n***\n\nAssert statements are a way to insert checks.\n"
    source = f"topics = { ({'assert': text})!r}"
    assert topics_of(source) == {"assert": "Assert statements are a way to insert checks."}
    assert topics_of("x = 1") == {}
