"""Downloads with a checksum and a bar."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.errors import Unavailable
from benchmarks.images.data import Progress, download_folder, silent


def download(name: str, files: Mapping[str, tuple[str, str]], progress: Progress = silent) -> None:
    """Download files (name -> address and MD5) into `download_folder`, unless they exist with the right checksum.

    Raises `Unavailable` if a package is missing, a download fails or a checksum differs."""
    try:
        import pooch
        from filelock import FileLock
    except ImportError as error:
        raise Unavailable(f"{name} can't be downloaded: the package {error.name} is not installed") from error
    folder = download_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("ERROR")
    with FileLock(folder / ".lock"):
        for file, (address, md5) in files.items():
            fetcher = pooch.HTTPDownloader(progressbar=_Bar(f"{name}: {file}", progress), timeout=(5, 30))
            try:
                pooch.retrieve(address, f"md5:{md5}", fname=file, path=folder, downloader=fetcher)
            except ValueError as error:
                raise Unavailable(f"{address} has a checksum that differs from the official file's") from error
            except Exception as error:
                raise Unavailable(f"{address} can't be downloaded: {type(error).__name__}") from error


class _Bar:
    """Progress bar with pooch's interface (``total``, ``update``, ``reset``, ``close``), as lines of text."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress, self.total, self.done = what, progress, 0, 0

    def update(self, size: int) -> None:
        before, self.done = self.done, self.done + size
        if self.total and before * 20 // self.total != self.done * 20 // self.total:
            filled = min(20, self.done * 20 // self.total)
            self.progress(f"{self.what} [{'#' * filled:.<20}] {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB")

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
