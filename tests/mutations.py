"""Ways to damage a file, drawn from a generator of random numbers."""

import io
import random
import re
import struct
from collections.abc import Callable, Sequence

import torch

VALUES = (  # what takes the place of a number or a text in a text file
    "1e999", "-1e999", "NaN", "-1", "0", "null", "true", "[]", "{}", "[[1]]", '""', '"x"', "2147483648", "-" * 9,
    "9" * 30, "9" * 5000, '"\\ud800"', '"\\u0000"', '"a\\nb"', '{"a": {"b": null}}', "1e-400", "١", "²", "",
    "1:1:1:1", '"' + "x" * 10_000 + '"', "0x" + "f" * 9000, "2001-01-01", "*a", "&a [*a]",
    "!!python/object/apply:os.system [exit]",
)  # fmt: skip
INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)

STRANGE = (  # what takes the place of a part of what torch saved
    lambda: None, lambda: -1, lambda: True, lambda: 2**70, lambda: float("nan"), lambda: "a\nb", lambda: [],
    lambda: {}, lambda: [[1]], lambda: {"a": {1: None}}, lambda: (), lambda: torch.zeros(()), lambda: torch.ones(2, 3),
    lambda: torch.zeros(3, dtype=torch.complex64), lambda: torch.zeros(1).expand(10**12), lambda: torch.empty(0),
    lambda: torch.zeros(10**12, device="meta"), lambda: torch.eye(3).to_sparse(),
    lambda: torch.nn.Parameter(torch.ones(2)), lambda: torch.full((2,), torch.nan),
    lambda: bytearray(3), lambda: {1, 2}, lambda: torch.Size((2,)), lambda: torch.float16, lambda: 1j,
)  # fmt: skip


def truncate(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content))]


def flip_bits(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        damaged[_place(damaged, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, length = _place(content, rng), rng.choice((1, 4, 8, 64, 1000))
    filling = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return content[:start] + filling + content[start + length :]


def insert(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start = _place(content, rng)
    return content[:start] + rng.randbytes(rng.choice((1, 4, 100))) + content[start:]


def duplicate(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, length = _place(content, rng), rng.choice((1, 16, 500))
    return content[: start + length] * rng.choice((1, 1, 2)) + content[start:]


def cut_out(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start = _place(content, rng)
    return content[:start] + content[start + rng.choice((1, 4, 50, 1000)) :]


def claim(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Put an integer, such as a size, where another may have been."""
    kind = rng.choice(("<B", "<H", "<I", ">I", "<Q"))
    number = struct.pack(kind, rng.choice(INTEGERS) % 2 ** (8 * struct.calcsize(kind)))
    start = _place(content, rng)
    return content[:start] + number + content[start + len(number) :]


def swap(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """The file of another format, or a part of it."""
    other = rng.choice(others)
    return rng.choice((other, content[: len(content) // 2] + other, other[: len(other) // 2] + content))


def change_value(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Another value in place of a number or a text."""
    return _substitute(rb'-?\d[\d.e-]*|"[^"\n]*"|\w+', rng.choice(VALUES), content, rng)


def change_key(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return _substitute(rb'"?\w+"?(?=:)|[A-Za-z]\w*', rng.choice(("x", '"x"', "[1]", "<<", "a b", "")), content, rng)


def drop_line(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    return _substitute(rb"[^\n]*\n", "", content, rng)


def nest(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    start, depth = _place(content, rng), rng.choice((100, 1000, 100_000))
    return content[:start] + rng.choice((b"[", b"{", b'{"a":', b"- ", b"(")) * depth + content[start:]


def change_content(content: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Something else in place of a part of what torch saved, in a file that is valid otherwise."""
    parts = [torch.load(io.BytesIO(content), weights_only=True)]
    while isinstance(inner := rng.choice(_parts(parts[-1])), dict | list) and inner and rng.random() < 0.8:
        parts.append(inner)
    whole, key = parts[-1], None
    if isinstance(whole, dict):
        key = rng.choice(list(whole))
        if rng.random() < 0.3:
            whole[rng.choice(("x", "a\nb", 3, (1, (2,)), None, key))] = whole.pop(key)
        else:
            whole[key] = rng.choice(STRANGE)()
    else:
        whole[rng.randrange(len(whole))] = rng.choice(STRANGE)()
    damaged = io.BytesIO()
    torch.save(parts[0], damaged, _use_new_zipfile_serialization=content.startswith(b"PK"))
    return damaged.getvalue()


def _parts(content: dict | list) -> list:
    return list(content.values()) if isinstance(content, dict) else content


BINARY = (truncate, flip_bits, overwrite, insert, duplicate, cut_out, claim, claim, swap)
TEXT = (*BINARY, *(change_value,) * 9, *(change_key, drop_line, nest) * 3)
TORCH = (*BINARY, *(change_content,) * len(BINARY))
Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def mutate(content: bytes, rng: random.Random, others: Sequence[bytes], ways: Sequence[Mutation]) -> tuple[str, bytes]:
    """Damage a file in one of some ways, or in two; says how."""
    chosen = sorted((rng.choice(ways) for _ in range(rng.choice((1, 1, 2)))), key=lambda way: way is not change_content)
    for i, mutation in enumerate(chosen):
        if i == 0 or mutation is not change_content:  # of a valid file alone
            content = mutation(content or b"x", rng, others)
    return " and ".join(mutation.__name__ for mutation in chosen), content


def _place(content: bytes, rng: random.Random) -> int:
    """A position, more often near the beginning or the end: there formats keep what they say of themselves."""
    near = min(len(content), 200)
    return rng.choice((rng.randrange(near), len(content) - 1 - rng.randrange(near), rng.randrange(len(content))))


def _substitute(pattern: bytes, value: str, content: bytes, rng: random.Random) -> bytes:
    found = list(re.finditer(pattern, content))
    if not found:
        return value.encode()
    start, stop = rng.choice(found).span()
    return content[:start] + value.encode() + content[stop:]
