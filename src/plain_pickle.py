"""Unpickling what strangers wrote: plain values and what a table allows, in no more memory than the file is large."""

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

PLAIN_KEYS = (str, bytes, int, float, bool, type(None))
SIZED = (str, bytes, bytearray, list, tuple, dict)
OTHER_OBJECTS = b"".join((
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
    pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET,
))  # fmt: skip


class PlainUnpickler(pickle._Unpickler):  # in Python: the one in C takes as much memory as a file claims to need
    """Builds numbers, text, lists, tuples, dictionaries, and what the functions of a table return; nothing else.

    A subclass has the table, says where a pickle is to be found, and may let it set the state of what the table builds.
    """

    known: Mapping[str, Any]  # by full name, what a pickle may call, or pass to what it calls
    place: str  # for the error: what is not known has no place in …

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="latin1")  # as numpy and torch need for what Python 2 wrote
        self.room = 2 * file.getbuffer().nbytes  # arrays are copied twice where a pickle has bytes as text

    def set_state(self, built: Any, state: Any) -> None:
        """Set the state of an object, where that is allowed."""
        raise pickle.UnpicklingError(
            f"it sets the state of a {type(built).__name__}, which has no place in {self.place}"
        )

    def find_class(self, module: str, name: str) -> Any:
        """What the table has; raises UnpicklingError for all others."""
        if f"{module}.{name}" not in self.known:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which has no place in {self.place}")
        return self.known[f"{module}.{name}"]

    def _charge(self, arguments: Any) -> None:
        """Refuse what has the same part copied again and again, which would fill the memory from a small file."""
        self.room -= sum(len(part) for part in arguments if isinstance(part, SIZED)) if arguments else 0
        if self.room < 0:
            raise pickle.UnpicklingError("it builds more than it holds")

    def _reduce(self) -> None:
        self._charge(self.stack[-1])
        self.load_reduce()

    def _build(self) -> None:
        state = self.stack.pop()
        self._charge(state)
        self.set_state(self.stack[-1], state)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(self.stack[-1], dict) or not isinstance(key, PLAIN_KEYS):
            # A tuple in a tuple in a tuple … as a key would overflow the stack of the interpreter
            raise pickle.UnpicklingError(f"a {type(key).__name__} is a key in a {type(self.stack[-1]).__name__}")
        self.stack[-1][key] = value

    def _bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))  # read ends where the file does

    def _refuse(self) -> None:
        raise pickle.UnpicklingError(f"it builds objects or sets, which have no place in {self.place}")

    dispatch = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.BYTEARRAY8[0]: _bytearray,
        **dict.fromkeys(OTHER_OBJECTS, _refuse),
    }


def ordered_dict(*items: Any) -> OrderedDict:
    """Stand-in for OrderedDict, which a pickle builds from nothing, or from a list of pairs."""
    result: OrderedDict = OrderedDict()
    for key, value in items[0] if items else ():
        if not isinstance(key, PLAIN_KEYS):
            raise pickle.UnpicklingError(f"a {type(key).__name__} is a key")
        result[key] = value
    return result
