"""The demo's text: whole files on one side or the other, the same split everywhere."""

import pytest

from aesg.exceptions import AESGTrainingError
from aesg.tools.corpus import load_corpus, openings


def write(root, count=60, size=1000):
    for i in range(count):
        file = root / f"d{i % 3}" / f"f{i}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(f"file {i} ".encode() * (size // 7))


def test_whole_files_on_one_side(tmp_path):
    write(tmp_path)
    corpus = load_corpus(str(tmp_path))
    assert len(corpus.train) + len(corpus.held_out) == 60
    assert 1 <= len(corpus.held_out) <= 15
    assert not set(corpus.train) & set(corpus.held_out)
    assert load_corpus(str(tmp_path)) == corpus


def test_the_split_depends_on_names_alone(tmp_path):
    write(tmp_path)
    before = {text[:8] for text in load_corpus(str(tmp_path)).held_out}
    (tmp_path / "d0" / "f0.txt").write_bytes(b"file 0 " * 50)
    (tmp_path / "d9.txt").write_bytes(b"new " * 50)
    after = {text[:8] for text in load_corpus(str(tmp_path)).held_out}
    assert {t for t in after if not t.startswith(b"new")} == before


def test_one_large_file_is_cut(tmp_path):
    (tmp_path / "one.txt").write_bytes(bytes(range(1, 256)) * 1000)
    corpus = load_corpus(str(tmp_path))
    assert sum(map(len, corpus.train)) + sum(map(len, corpus.held_out)) == 255_000
    assert corpus.held_out


def test_what_is_no_text_is_left_out(tmp_path):
    write(tmp_path)
    (tmp_path / "picture").write_bytes(b"\x89PNG\0" * 5000)
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "x.txt").write_bytes(b"not mine " * 100)
    texts = [*load_corpus(str(tmp_path)).train, *load_corpus(str(tmp_path)).held_out]
    assert len(texts) == 60


def test_the_standard_library_is_there():
    corpus = load_corpus(None, max_bytes=500_000)
    assert sum(map(len, corpus.train)) + sum(map(len, corpus.held_out)) == 500_000


@pytest.mark.parametrize("what", ["missing", "file", "small"])
def test_too_little(tmp_path, what):
    place = tmp_path / "t"
    if what == "file":
        place.write_text("x")
    if what == "small":
        place.mkdir()
        (place / "a.txt").write_text("x" * 100)
    with pytest.raises(AESGTrainingError, match="got 100$" if what == "small" else "directory of text files"):
        load_corpus(str(place))


def test_openings():
    assert openings([b"abcd", b"efgh", b"ij"], 7, each=9) == [b"abcd", b"efg"]
    assert openings([b"abcd", b"efgh"], 100, each=3) == [b"abc", b"efg"]
    assert openings([b"abcd", b"efgh"], 5, each=4) == [b"abcd"]
