"""The fixed tree over lanes: sums that do not depend on who computes which lane.

Lanes ``0 … n-1`` are the leaves of one binary tree that depends on ``n`` alone. A worker adds up
the parts of the tree whose lanes it all has; what is left is added where the parts meet. Every sum
is made of the same additions in the same grouping, so its bits do not depend on the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")
#: A node of the tree: the lanes ``[first, last)`` below it.
Node = tuple[int, int]


def children(node: Node) -> tuple[Node, Node]:
    """The two halves of a node; the left one is the largest power of two below the whole."""
    first, last = node
    half = 1 << ((last - first - 1).bit_length() - 1)
    return (first, first + half), (first + half, last)


def owned_nodes(lanes: int, mine: Iterable[int]) -> list[Node]:
    """The largest nodes of the tree over ``lanes`` all of whose lanes are among ``mine``."""
    have = set(mine)

    def search(node: Node) -> list[Node]:
        if all(lane in have for lane in range(*node)):
            return [node]
        if node[1] - node[0] == 1:
            return []
        left, right = children(node)
        return search(left) + search(right)

    return search((0, lanes))


def reduce_tree(node: Node, parts: Mapping[Node, T], add: Callable[[T, T], T]) -> T:
    """The sum at a node, from the sums of nodes below it that cover it.

    Args:
        parts: sums by node; a leaf is ``(k, k + 1)``.
        add: adds two sums; it may do so in place in the first one.
    """
    if node in parts:
        return parts[node]
    if node[1] - node[0] == 1:
        raise KeyError(f"no part covers lane {node[0]}")
    left, right = children(node)
    return add(reduce_tree(left, parts, add), reduce_tree(right, parts, add))


def deal(lanes: int, workers: int) -> list[range]:
    """Which lanes each worker gets: neighbours, as evenly as it goes."""
    cuts = [k * lanes // workers for k in range(workers + 1)]
    return [range(first, last) for first, last in pairwise(cuts)]
