"""Writing files that are never seen half-written."""

from etils import epath


def write_whole(path: epath.PathLike, data: bytes) -> None:
    """Writes a file under another name and renames it, so that it is the old or the new one."""
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(data)
    temporary.replace(path)
