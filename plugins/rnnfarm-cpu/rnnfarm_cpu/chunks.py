"""Long blocks of C cut into chunks, so that the time to compile one grows with its length alone.

Compilers allocate registers for all values of a block at once, which takes time that grows with the
square of their number: a cell of a thousand terms took half a minute. Between two chunks values lie
in memory. Nothing that is computed changes, and a short block stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Lines of a block that is cut, and of a chunk.
LONG, CHUNK = 400, 64
_NAME = re.compile(r"\bq\d+\b")
_DEFINITION = re.compile(r"const (vec|mask) (q\d+) = ")
#: The compiler may not keep what lies in ``keep`` in registers across this.
_BARRIER = '__asm__ volatile("" : : "r"(keep) : "memory");'


def chunked(head: Sequence[str], body: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the lines of a row, once and in a loop over its units, cut where they are many."""
    if len(head) + len(body) <= LONG:
        return list(head), list(body)
    chunks = [
        list(part[k : k + CHUNK]) for part in (head, body) for k in range(0, len(part), CHUNK)
    ]
    first = -(-len(head) // CHUNK)  # of the body's
    used = [{name for line in chunk for name in _NAME.findall(line)} for chunk in chunks]
    kinds: dict[str, str] = {}
    home: dict[str, int] = {}
    for number, chunk in enumerate(chunks):
        for line in chunk:
            if found := _DEFINITION.match(line):
                kinds[found[2]], home[found[2]] = found[1], number
    last = _last_uses(used, home, first)
    slots = _slots(home, last)
    texts = [_text(chunk, number, used[number], kinds, home, slots)
             for number, chunk in enumerate(chunks)]  # fmt: skip
    count = max(slots.values(), default=0) + 1
    new_head = [f"vec keep[{count}];", *(line for text in texts[:first] for line in text)]
    return new_head, [line for text in texts[first:] for line in text]


def _last_uses(used: list[set[str]], home: dict[str, int], first: int) -> dict[str, int]:
    """The last chunk that reads each value of an earlier one; the end where the loop reads it."""
    last: dict[str, int] = {}
    for number, names in enumerate(used):
        for name in names:
            if home[name] < number:
                again = home[name] < first <= number
                last[name] = len(used) if again else number
    return last


def _slots(home: dict[str, int], last: dict[str, int]) -> dict[str, int]:
    """A place for each value that is kept, used again once nobody reads it."""
    slots: dict[str, int] = {}
    free: list[int] = []
    held: list[tuple[int, int]] = []  # (last chunk, place)
    count = 0
    for name in sorted(last, key=lambda n: (home[n], int(n[1:]))):
        free += [place for end, place in held if end < home[name]]
        held = [(end, place) for end, place in held if end >= home[name]]
        if free:
            place = free.pop()
        else:
            place, count = count, count + 1
        slots[name] = place
        held.append((last[name], place))
    return slots


def _text(
    chunk: list[str],
    number: int,
    used: set[str],
    kinds: dict[str, str],
    home: dict[str, int],
    slots: dict[str, int],
) -> list[str]:
    """A chunk in a scope of its own: what it reads from memory, its lines, and what it leaves."""
    given = sorted((n for n in used if home[n] < number), key=lambda n: int(n[1:]))
    lines = ["{", *(f"const {kinds[n]} {n} = ({kinds[n]})keep[{slots[n]}];" for n in given)]
    for line in chunk:
        lines.append(line)
        found = _DEFINITION.match(line)
        if found and found[2] in slots:
            lines.append(f"keep[{slots[found[2]]}] = (vec){found[2]};")
    return [*lines, "}", _BARRIER]
