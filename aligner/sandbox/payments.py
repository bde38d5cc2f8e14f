"""Puts the payment into a parsed template: for turns of loops, lists that are made, things compared, texts joined."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, nodes
from jinja2.visitor import NodeTransformer


class Payments(NodeTransformer):
    """Sends what a template does through the filters `steps`, `paid`, `made` and the one for ~ of its environment."""

    def __init__(self, environment: Environment, joined: str) -> None:
        self._environment, self._joined = environment, joined

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """The node with all that is in it paid for, innermost first."""
        node = self.generic_visit(node)
        if isinstance(node, nodes.For):
            node.iter = self._through("steps", node.iter)
        elif isinstance(node, nodes.Compare):
            for part in (node, *node.ops):
                part.expr = self._through("paid", part.expr)
        elif isinstance(node, nodes.Concat):
            return self._through(self._joined, nodes.List(node.nodes, lineno=node.lineno))
        elif isinstance(node, nodes.Tuple) and node.ctx == "load":
            return self._through("paid", node)  # all it holds is gone through where it is a key
        elif isinstance(node, nodes.List | nodes.Dict) or _is_slice(node):
            return self._through("made", node)
        return node

    def _through(self, name: str, node: nodes.Expr) -> nodes.Filter:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        return made.set_environment(self._environment)


def _is_slice(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
