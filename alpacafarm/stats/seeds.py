"""Seeds that follow from what they are for."""

import hashlib
import json


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from JSON values: the same in every process, on every machine, for every order of work.

    Python's `hash` of a string is salted per process. Parts are told apart by type and place: "1" is not 1,
    and "ab", "c" is not "a", "bc". Tuples count as lists. A part that is not JSON is a TypeError.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
