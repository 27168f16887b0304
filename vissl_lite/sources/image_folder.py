"""A folder of image files."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from vissl_lite import SOURCES
from vissl_lite.errors import ConfigError
from vissl_lite.progress import counter
from vissl_lite.sources._classes import TargetWriter
from vissl_lite.sources._columns import Strings, bytes_writer
from vissl_lite.sources._files import EXTENSIONS, read_excluded
from vissl_lite.sources._index import prepared, stamp
from vissl_lite.sources._source import IndexedSource, existing, existing_file


@SOURCES.register("image_folder")
class ImageFolder(IndexedSource):
    """Image files below a folder, in the order of their paths; sub-folders may be classes.

    The files are listed once; the listing is kept (`_index.py`) and made again when the folder
    or one of its direct sub-folders has changed. What changes deeper needs `refresh`. Names that
    start with a dot are left out, links are followed.

    Args:
        path: the folder.
        classes: "folders": each direct sub-folder is a class, ids in the order of the sorted names,
            as torchvision numbers them; "none": no labels; "auto": "folders" if `path` has
            sub-folders and no images of its own, else "none".
        extensions: endings of image files, lower case; the default is torchvision's list.
        exclude: text file of images to leave out, one path below `path` or file name per line.
        index: folder for the listing, instead of one in the cache.
        refresh: list again.

    Raises:
        ConfigError: no such folder, no images in it or in one of its classes, or images beside
            the classes.
    """

    def __init__(
        self,
        path: str,
        classes: Literal["auto", "folders", "none"] = "auto",
        extensions: tuple[str, ...] = EXTENSIONS,
        exclude: str | None = None,
        index: str | None = None,
        refresh: bool = False,
    ):
        self.path = existing(path, "image_folder.path")
        if not self.path.is_dir():
            raise ConfigError(f"image_folder.path: {str(self.path)!r} is a file; name a folder")
        left_out = existing_file(exclude, "image_folder.exclude") if exclude else None
        identity = {
            "path": str(self.path),
            "classes": classes,
            "extensions": list(extensions),
            "exclude": str(left_out),
        }
        state = {"folders": _state(self.path), "excluded": left_out and stamp(left_out)}
        build = partial(_build, self.path, classes, tuple(extensions), left_out)
        folder, notes = prepared("image_folder", identity, state, build, index, refresh)
        super().__init__(folder, notes)
        self._paths = Strings(folder, "paths")

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> tuple[str, str]:
        name = self._paths[index]
        return os.path.join(self.path, name), name


def _state(root: Path) -> list[int]:
    """Times of last change of a folder and its direct sub-folders, in the order of their names."""
    with os.scandir(root) as entries:
        folders = sorted(entry.path for entry in entries if entry.is_dir())
    return [os.stat(folder).st_mtime_ns for folder in (root, *folders)]


def _build(
    root: Path, classes: str, extensions: tuple[str, ...], exclude: Path | None, folder: Path
):
    """Lists the images into columns `paths` and, with classes, `labels`."""
    left_out = read_excluded(exclude)
    files, folders = _listed(root, extensions)
    if classes == "folders" and files:
        raise ConfigError(
            f"image_folder: {root} holds images beside its class folders, {files[0]!r} for one;"
            " move them away or set classes: none"
        )
    named = classes == "folders" or (classes == "auto" and bool(folders) and not files)
    targets = TargetWriter(folder, "labels" if named else None, folders, "image_folder")
    paths, total = bytes_writer(folder, "paths"), 0
    with counter(f"listing {root}") as progress:
        for group in folders if named else [""]:
            before = total
            for path in _walk(root, group, extensions):
                if path in left_out or os.path.basename(path) in left_out:
                    continue
                paths.add(os.fsencode(path))
                targets.add(group, path)
                progress.add()
                total += 1
            _check(root / group, total - before, extensions, named)
    _check(root, total, extensions, False)
    paths.close()
    return targets.finish()


def _walk(root: Path, below: str, extensions: tuple[str, ...], above: tuple = ()) -> Iterator[str]:
    """Paths of images relative to `root`: the sorted files of a folder, then its sorted folders."""
    state = os.stat(root / below)
    if (state.st_dev, state.st_ino) in above:  # a link to a folder that it lies in
        return
    above = (*above, (state.st_dev, state.st_ino))
    files, folders = _listed(root / below, extensions)
    for name in files:
        yield os.path.join(below, name)
    for name in folders:
        yield from _walk(root, os.path.join(below, name), extensions, above)


def _listed(folder: Path, extensions: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the images and of the folders in one folder, each sorted."""
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(extensions):
                    files.append(entry.name)
    except OSError as error:
        raise ConfigError(
            f"image_folder: {folder} cannot be listed ({error.strerror}); mend its permissions or"
            " leave it out"
        ) from error
    return sorted(files), sorted(folders)


def _check(folder: Path, count: int, extensions: tuple[str, ...], named: bool) -> None:
    if count == 0:
        remedy = (
            "; remove this class or set classes: none" if named else "; check path and extensions"
        )
        raise ConfigError(
            f"image_folder: no images in {folder}, looked for {', '.join(extensions)}{remedy}"
        )
