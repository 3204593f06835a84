"""`aesg demo` in its short form: the figures are there, and the exit code tells whether all came back."""

import json

import pytest

from aesg.exceptions import AESGStorageError
from aesg.tools import demo


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo") / "out"
    assert demo.main(["--short", "--out", str(directory)]) == 0
    return directory


def test_the_result_holds_what_was_measured(out):
    result = json.loads((out / "demo.json").read_text())
    assert set(result["loss"]) == {"with_memory", "reads_off", "online", "baseline"}
    assert result["loss"]["with_memory"] != result["loss"]["reads_off"]
    assert result["counts"]["concepts"] > 0
    assert result["steps"] == demo.SHORT["steps"]


@pytest.mark.parametrize("what", ["counts", "loss"])
def test_a_difference_is_an_error(out, what, capsys):
    file = out / "demo.json"
    text = file.read_text()
    result = json.loads(text)
    if what == "counts":
        result["counts"]["edges"] += 1
    else:
        result["loss"]["with_memory"] += 1e-12
    file.write_text(json.dumps(result))
    try:
        assert demo.main(["--resume", str(out)]) == 1
        assert "DIFFERENT" in capsys.readouterr().out
    finally:
        file.write_text(text)


def test_resume_needs_an_earlier_demo(tmp_path):
    with pytest.raises(AESGStorageError, match=r"found no demo\.json"):
        demo.main(["--resume", str(tmp_path)])


def test_a_foreign_directory_is_spared(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(AESGStorageError, match="something else"):
        demo.main(["--short", "--out", str(tmp_path)])
    assert (tmp_path / "thesis.txt").exists()
