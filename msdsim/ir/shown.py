"""How a statement finds its line in the kernel's text when somebody wants to know, and copies of statements that do."""

from __future__ import annotations

from typing import Any


class Shown:
    """What has a line in the kernel's text.  Statements of a built kernel find it, and themselves as the text has them, when
    somebody wants to know: most kernels run without being read."""

    def __getattr__(self, name: str) -> Any:
        shown = self.__dict__.get("_shown")
        if shown is None or name not in ("line", "written"):
            raise AttributeError(f"'{type(self).__name__}' has no '{name}'")
        text = shown()
        self.__dict__.update({"line": text.line, "written": text})
        return self.__dict__[name]


def nothing() -> None:
    """No line yet."""
    # A default of the class would be found where a statement does not know yet.
    return None


def copied(item: Any, **changes: Any) -> Any:
    """A frozen object with some fields changed; what it finds later, the copy finds too."""
    found = object.__new__(type(item))
    found.__dict__.update(item.__dict__)
    found.__dict__.update(changes)
    return found
