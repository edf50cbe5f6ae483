"""The body of every request: an order as JSON, the same for all contenders. Pure, and of the standard library only."""

from random import Random
from string import ascii_lowercase, digits
from typing import Final

_NAMES: Final = ("lamp", "desk", "chair", "shelf", "clock", "mirror", "rug", "stool", "vase", "frame")
_WITH_CUSTOMER: Final = 512  # bytes from which an order names its customer


def order(size: int) -> str:
    """Return a JSON object of exactly that many bytes, at least 64, in ASCII; the same for the same size.

    Its ids, names and amounts are pseudo-random, so that it compresses about as well as an order of a shop, and not as
    one letter that repeats.
    """
    chance = Random(size)  # noqa: S311 -- no secret: the same body in every run
    head = f'{{"id":"ord_{_word(chance, 12)}",'
    if size >= _WITH_CUSTOMER:
        head += _customer(chance)
    head, tail, items = f'{head}"items":[', '],"note":""}', list[str]()
    left = size - len(head) - len(tail)
    while len(item := _item(chance)) + 1 <= left:
        items.append(item)
        left -= len(item) + 1
    if items:
        left += 1  # there is no comma before the first one
    text = head + ",".join(items) + tail
    return f'{text[:-2]}{_word(chance, left)}"}}'


def _customer(chance: Random) -> str:
    street, city = (
        f"{_word(chance, 9)} {chance.randint(1, 199)}",
        f"{chance.randint(10_000, 99_999)} {_word(chance, 7)}",
    )
    return (
        f'"customer":{{"id":"cus_{_word(chance, 12)}","email":"{_word(chance, 8)}@{_word(chance, 6)}.example",'
        f'"address":{{"street":"{street}","city":"{city}"}}}},'
        f'"total":{{"amount":{chance.randint(1_000, 99_999)},"currency":"EUR"}},'
    )


def _item(chance: Random) -> str:
    return (
        f'{{"id":"itm_{_word(chance, 12)}","name":"{chance.choice(_NAMES)} {_word(chance, 5)}",'
        f'"quantity":{chance.randint(1, 9)},"amount":{chance.randint(100, 9_999)}}}'
    )


def _word(chance: Random, length: int) -> str:
    return "".join(chance.choices(ascii_lowercase + digits, k=length))
