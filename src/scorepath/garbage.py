"""Python's search for cycles of garbage, kept away from the hundreds of thousands of objects that torch's import makes.

Each search walks all of them: it takes a third of the time of the imports, and most of a second when the process ends.
"""

import gc


def postpone() -> None:
    """No search until `resume`: for the start of a process, which makes no garbage worth the time."""
    gc.disable()


def resume() -> None:
    """Searches again, though never among what is there now. Nothing happens where no search was postponed."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def skip_last() -> None:
    """No search among what is there now when the process ends."""
    gc.freeze()
