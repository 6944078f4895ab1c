"""The frames of a GIF, found without decoding them.

TensorFlow decodes all frames even where it is asked for the first, and each has a size of
its own. Source: "Graphics Interchange Format, Version 89a", CompuServe, 1990.
"""

_EXTENSION, _IMAGE = 0x21, 0x2C
# First bytes of the canvas, and of the colours and blocks.
_CANVAS, _CONTENTS = 6, 13


def problem(gif: bytes) -> str | None:
    """Why a GIF must not be decoded, or None: it must hold one frame, no larger than its canvas.

    Args:
        gif: the file; if it is damaged, only the part before the damage counts.
    """
    frames = _first_frames(gif)
    if len(frames) > 1:
        return "animated GIF, of which TensorFlow would decode every frame"
    height, width = _sides(gif, _CANVAS)
    if any(frame[0] > height or frame[1] > width for frame in frames):
        return f"GIF with a frame of {frames[0]} pixels, more than its canvas of {(height, width)}"
    return None


def _first_frames(gif):
    """Height and width of the first frame and the second, if there are any."""
    frames, position = [], _CONTENTS + _colour_bytes(gif, _CANVAS + 4)
    while len(frames) < 2:
        kind, position = _byte(gif, position), position + 1
        if kind == _IMAGE:
            frames.append(_sides(gif, position + 4))
            # One more byte holds the size of the first codes.
            position += 9 + _colour_bytes(gif, position + 8) + 1
        elif kind == _EXTENSION:
            position += 1
        else:
            break
        while block_bytes := _byte(gif, position):
            position += 1 + block_bytes
        position += 1
    return frames


def _byte(gif, position):
    return gif[position] if position < len(gif) else 0


def _sides(gif, position):
    width, height = (int.from_bytes(gif[p : p + 2], "little") for p in (position, position + 2))
    return height, width


def _colour_bytes(gif, position):
    """Size of the table of colours that the flags at this place announce."""
    flags = _byte(gif, position)
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
