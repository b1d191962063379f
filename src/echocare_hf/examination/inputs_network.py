"""Studies behind an address that the user names: fetched to a folder first, then read like any other."""

from pathlib import Path

from .inputs_found import Progress


def fetch_study(address: str, work: Path, progress: Progress) -> tuple[Path, str, list[tuple[str, str]]]:
    """Fetch what an address stands for.

    Args:
        address: `dicom://...`, `dicoms://...`, `dicomweb+http://...` or `dicomweb+https://...`.
        work: folder; what an earlier run fetched is used again.
        progress: called as instances arrive.

    Returns:
        The folder, what it is called in names of files, and the name and reason of what could not be fetched.

    Raises:
        ValueError: if the address is of another kind, or not complete, or stands for nothing.
        ImportError: if the extra `network` is not installed.
        OSError: if the host cannot be reached or refuses.
    """
    scheme = address.partition("://")[0].lower()
    if scheme in ("dicom", "dicoms"):
        from .dicom_node import fetch_from_node

        return fetch_from_node(address, work, progress)
    if scheme in ("dicomweb+http", "dicomweb+https"):
        from .dicomweb import fetch_from_web

        return fetch_from_web(address, work, progress)
    raise ValueError(
        f"{scheme}://: this kind of address is not supported; give dicom://AE@host:port/STUDYUID,"
        " dicomweb+https://host/path/studies/STUDYUID, or a file"
    )
