"""The C library's memory allocator."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_KEPT = 2**31 - 1  # bytes; what an int can say
_LARGEST = 2**25  # bytes; what older versions take as a threshold for mmap


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed, and take blocks of any size from there.

    By default it maps blocks of 128 KiB and more one by one and hands them back when they are freed, so that each
    activation of a large batch costs page faults again. The process keeps its peak of memory until it ends. Variables
    of the environment (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`) are overruled.

    Returns:
        whether the C library is glibc and has taken the thresholds.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    mapped = any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in (_KEPT, _LARGEST))
    return mapped and bool(libc.mallopt(_M_TRIM_THRESHOLD, _KEPT))
