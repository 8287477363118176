"""What led to what, as a tree."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from cli.console import to_json
from cli.rendering.events import event_json, event_line
from orderstream.events.v1.event_service_pb2 import CausationNode, GetCausationTreeResponse


def causation_tree(answer: GetCausationTreeResponse, marked: int = 0) -> RenderableType:
    """Each event below the one that led to it. The one at position `marked` is pointed at."""
    roots: list[Tree] = []
    trees: dict[int, Tree] = {}
    for node in answer.nodes:
        position = node.event.position
        above = trees.get(node.parent_position)
        label = _label(node, outside=above is None, marked=position == marked)
        if above is None:
            trees[position] = Tree(label)
            roots.append(trees[position])
        else:
            trees[position] = above.add(label)
    return Group(*roots) if roots else "no events"


def node_json(node: CausationNode) -> dict[str, Any]:
    """A node as JSON."""
    rest = CausationNode(parent_position=node.parent_position, depth=node.depth)
    return {"event": event_json(node.event), **to_json(rest)}


def _label(node: CausationNode, *, outside: bool, marked: bool) -> Text:
    line = event_line(node.event, position_width=1)
    metadata = node.event.metadata
    if metadata.actor or metadata.reason:
        who = ": ".join(part for part in (metadata.actor, metadata.reason) if part)
        line.append(f"  ({who})", style="italic")
    if outside and node.parent_position:
        line.append(f"  ← event {node.parent_position}", style="dim")
    if marked:
        line.append("  ◀", style="bold yellow")
    return line
