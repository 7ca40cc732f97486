"""How a listening socket is given up without cutting off whoever the kernel is just connecting to it.

Between the last ``accept`` and ``close`` the kernel may complete another connection, which the close then resets. So
the socket stops answering new callers first, and is closed once those before them have been accepted.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26
_FLAGS_BYTE, _SYN_ACK, _SYN = 13, 0x12, 0x02
# Load the flags of the TCP header; of SYN and ACK, if only SYN is set, drop the segment, otherwise keep all of it.
_NO_NEW_CALLERS = (
    (0x30, 0, 0, _FLAGS_BYTE),
    (0x54, 0, 0, _SYN_ACK),
    (0x15, 0, 1, _SYN),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def admit_no_more(listener: socket.socket) -> None:
    """Has the kernel overlook new callers of a listening socket; they ask again after a second, or reach its successor.

    Connections that are being made come about all the same. Where the kernel has no such filter (it is Linux's, see
    socket(7), ``SO_ATTACH_FILTER``) nothing changes.
    """
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CALLERS))
    program = struct.pack("HP", len(_NO_NEW_CALLERS), ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
