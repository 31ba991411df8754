"""Symbols as text for people: ``sigmoid(f) * c + sigmoid(i) * tanh(g)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rnnfarm.equations.graph import Parameter, Symbol, ordered

_INFIX = {
    "add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2),
    "less": ("<", 0), "less_equal": ("<=", 0),
}  # fmt: skip
#: How tightly a text binds: a comparison, a sum, a product, a sign or matrix product, a name.
_SIGN, _NAME = 3, 4
#: How many operations are written into one another before a name is given.
_DEEPEST = 30


class Printer:
    """Writes symbols as text, by name where they have one and in full where they have not.

    Attributes:
        names: the names of symbols; what is not in it is written out in place.
    """

    def __init__(
        self, names: dict[Symbol, str], calls: Mapping[Symbol, tuple[str, Symbol]] | None = None
    ) -> None:
        """``calls``: symbols that are written as one call on another, such as ``exp({})``."""
        self.names = names
        self.calls = calls or {}

    def text(self, symbol: Symbol) -> str:
        """The symbol's name, or what it is computed from."""
        return self._text(symbol, 0)

    def tight(self, symbol: Symbol) -> str:
        """The text, in brackets if it is a sum or product."""
        return self._text(symbol, _NAME)

    def definition(self, symbol: Symbol) -> str:
        """What a symbol is computed from, even where it has a name."""
        return self._expression(symbol)[0]

    def parts(self, symbol: Symbol) -> tuple[Symbol, ...]:
        """The symbols that a definition is written with."""
        return (self.calls[symbol][1],) if symbol in self.calls else symbol.args

    def reached(self, roots: Iterable[Symbol]) -> set[Symbol]:
        """The roots, and all that they are written with, through all definitions."""
        found: set[Symbol] = set()
        waiting = list(roots)
        while waiting:
            symbol = waiting.pop()
            if symbol not in found:
                found.add(symbol)
                waiting.extend(self.parts(symbol))
        return found

    def repeated(self, roots: Iterable[Symbol]) -> list[Symbol]:
        """Symbols without a name that are used more than once and too long to write twice.

        Those in which too much is nested are among them.
        """
        uses: dict[Symbol, int] = {}
        for symbol in self.reached(roots):
            for arg in set(self.parts(symbol)):
                uses[arg] = uses.get(arg, 0) + 1
        found, depth = [], dict.fromkeys(self.names, 0)
        for symbol in ordered(uses.keys() - self.names.keys()):
            depth[symbol] = 1 + max((depth.get(part, 0) for part in self.parts(symbol)), default=0)
            if (uses[symbol] > 1 and not self.is_short(symbol)) or depth[symbol] > _DEEPEST:
                found.append(symbol)
                depth[symbol] = 0
        return found

    def is_short(self, symbol: Symbol) -> bool:
        """A leaf, or one function of a name or leaf."""
        if symbol.op in ("slice", "fill", "neg"):
            return self.is_short(symbol.args[0])
        parts = self.parts(symbol)
        simple = all(part in self.names or not part.args for part in parts)
        return simple and len(parts) < 2 and symbol.op not in ("matmul", "matmul_transposed")

    def _text(self, symbol: Symbol, tightness: int) -> str:
        if symbol in self.names:
            return self.names[symbol]
        text, own = self._expression(symbol)
        return f"({text})" if own < tightness else text

    def _expression(self, symbol: Symbol) -> tuple[str, int]:
        """The text of a symbol's operation, and how tightly it binds."""
        op, args = symbol.op, symbol.args
        if symbol in self.calls:
            call, argument = self.calls[symbol]
            return call.format(self.text(argument)), _NAME
        if op == "constant":
            return f"{symbol.attribute:g}", _NAME if symbol.attribute >= 0 else _SIGN
        if op == "unit_index":
            return f"unit_index({symbol.width})", _NAME
        if op in ("input", "parameter"):
            return str(symbol.attribute), _NAME
        if op in ("matmul", "matmul_transposed"):
            return f"{self._text(args[0], _SIGN)}·{weights_text(symbol)}", _SIGN
        if op == "slice":
            return "{}[{}:{}]".format(self._text(args[0], _NAME), *symbol.attribute), _NAME
        if op == "concat":
            return f"[{', '.join(self.text(a) for a in args)}]", _NAME
        if op in ("fill", "copy"):
            return self._broadcast(args[0])
        if op == "neg":
            return f"-{self._text(args[0], _SIGN)}", _SIGN
        if op in _INFIX:
            return self._infix(symbol)
        return f"{op}({', '.join(self.text(a) for a in args)})", _NAME

    def _broadcast(self, symbol: Symbol) -> tuple[str, int]:
        return (self.names[symbol], _NAME) if symbol in self.names else self._expression(symbol)

    def _infix(self, symbol: Symbol) -> tuple[str, int]:
        sign, binding = _INFIX[symbol.op]
        a, b = symbol.args
        if symbol.op == "mul" and a is b:
            return f"{self._text(a, _NAME)}²", _SIGN
        if symbol.op == "add" and self._comes_first(b) and not self._comes_first(a):
            a, b = b, a
        if symbol.op == "add" and self._is_negative(a) and not self._is_negative(b):
            a, b = b, a
        if symbol.op == "add" and self._is_negative(b):
            sign, b = "-", b.args[0]
        # What stands right of a minus or a division needs brackets against its own kind.
        right = binding + 1 if sign in "-/" else binding
        return f"{self._text(a, binding)} {sign} {self._text(b, right)}", binding

    def _comes_first(self, symbol: Symbol) -> bool:
        """A sum within a sum reads best at the left."""
        return symbol.op == "add" and symbol not in self.names

    def _is_negative(self, symbol: Symbol) -> bool:
        return symbol.op == "neg" and symbol not in self.names


def weights_text(symbol: Symbol) -> str:
    """The weights of a product: ``W.h``, ``[W.h | M.h]``, ``W.hᵀ``."""
    weights: tuple[Parameter, ...] = symbol.attribute
    text = weights[0].name if len(weights) == 1 else f"[{' | '.join(w.name for w in weights)}]"
    return text + "ᵀ" if symbol.op == "matmul_transposed" else text
