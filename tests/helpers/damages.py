"""Damage as disks, editors and transfers do it: bytes in, other bytes out, the same for the same generator."""

from __future__ import annotations

import random


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one damage; never equal to it."""
    while True:
        kind = draw.choice((*(_flip,) * 4, _cut, _zeros, _lost, _twice, _more, _text, _empty, _swapped, _digit, _digit))
        if (found := kind(content, draw)) != content:
            return found


def _part(content: bytes, draw: random.Random) -> tuple[int, int]:
    first = draw.randrange(len(content) + 1)
    return first, min(len(content), first + draw.choice((1, 7, 64, 512)))


def _flip(content: bytes, draw: random.Random) -> bytes:
    """One bit."""
    if not content:
        return content
    changed = bytearray(content)
    changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _digit(content: bytes, draw: random.Random) -> bytes:
    """A digit of a text is another one, as a slip of a person."""
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit() and byte < 128]
    if not places:
        return content
    place = draw.choice(places)
    return content[:place] + str(draw.randrange(10)).encode() + content[place + 1 :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _zeros(content: bytes, draw: random.Random) -> bytes:
    first, last = _part(content, draw)
    return content[:first] + bytes(last - first) + content[last:]


def _lost(content: bytes, draw: random.Random) -> bytes:
    first, last = _part(content, draw)
    return content[:first] + content[last:]


def _twice(content: bytes, draw: random.Random) -> bytes:
    first, last = _part(content, draw)
    return content[:last] + content[first:last] + content[last:]


def _more(content: bytes, draw: random.Random) -> bytes:
    return content + draw.randbytes(draw.choice((1, 100)))


def _text(content: bytes, draw: random.Random) -> bytes:
    """Something that an encoding, an editor or a merge puts into a text."""
    odd = (b"\xff", b"\xef\xbb\xbf", b"\x00", b"\\ud800", b"<<<<<<< HEAD\n", b"NaN", b"1e999", b"null", b"\r\n", b"}")
    place = draw.randrange(len(content) + 1)
    return content[:place] + draw.choice(odd) + content[place:]


def _empty(content: bytes, draw: random.Random) -> bytes:
    return b""


def _swapped(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    return content[place:] + content[:place]
