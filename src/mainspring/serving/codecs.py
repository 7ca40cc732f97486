"""MLServer's content types: what a client says the elements of a tensor are, beyond the protocol's datatype."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np

from mainspring.errors import InvalidInput

AS_THEY_ARE = ("np", "pd", "str", "datetime")
"""Content types whose elements are what the datatype says: arrays, columns of a frame, texts, times as ISO texts."""


def decoded(tensor: str, values: Any, content_type: object) -> Any:
    """The tensor that a content type means; nothing is read as what it is not.

    Args:
        tensor: Its name, for errors.
        values: Its elements.
        content_type: Its parameter ``content_type``, or None.

    Raises:
        InvalidInput: The content type is not one of a model's columns, or an element is not of it.
    """
    if content_type is None or content_type in AS_THEY_ARE:
        return values
    if content_type != "base64":
        raise InvalidInput(
            f"tensor `{tensor}`: the content type {content_type!r} is not offered",
            hint=f"send one of {', '.join(AS_THEY_ARE)}, base64, or none",
        )
    if values.dtype != object:
        raise InvalidInput(f"tensor `{tensor}`: base64 is for BYTES", hint="leave the content type out")
    try:
        texts = [base64.b64decode(str(text), validate=True).decode() for text in values.ravel()]
    except (binascii.Error, UnicodeError, ValueError):
        raise InvalidInput(f"tensor `{tensor}` is not base64 of UTF-8 texts", hint="encode each element") from None
    made = np.empty(len(texts), dtype=object)
    made[:] = texts
    return made.reshape(values.shape)
