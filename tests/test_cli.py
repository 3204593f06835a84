"""The command line: version, dispatch, errors as one line."""

import subprocess
import sys
import types

import pytest

import aesg
from aesg import AESGConfig, AESGMemory, cli
from aesg.exceptions import AESGMemoryError


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"aesg {aesg.__version__}\n"


def test_no_command_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 2
    assert "usage: aesg" in capsys.readouterr().err


def test_commands_get_their_arguments(monkeypatch):
    seen = []
    fake = types.ModuleType("aesg.tools.demo")
    fake.main = lambda argv: seen.append(argv) or 7
    monkeypatch.setitem(sys.modules, "aesg.tools.demo", fake)
    assert cli.main(["demo", "--data", "there", "-x"]) == 7
    assert seen == [["--data", "there", "-x"]]


def test_an_aesg_error_is_one_line(monkeypatch, capsys):
    def fail(argv):
        raise AESGMemoryError("expected this, got that")

    fake = types.ModuleType("aesg.tools.demo")
    fake.main = fail
    monkeypatch.setitem(sys.modules, "aesg.tools.demo", fake)
    assert cli.main(["demo"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "aesg: memory: expected this, got that\n"
    assert captured.out == ""


def test_other_errors_keep_their_traceback(monkeypatch):
    fake = types.ModuleType("aesg.tools.demo")
    fake.main = lambda argv: 1 // 0
    monkeypatch.setitem(sys.modules, "aesg.tools.demo", fake)
    with pytest.raises(ZeroDivisionError):
        cli.main(["demo"])


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    with AESGMemory(tmp_path / "m", AESGConfig(vector_dim=4)) as memory:
        memory.save()
    command = [sys.executable, "-m", "aesg", "inspect", str(tmp_path / "m")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize("name", ["nothing", "../demo", "os"])
def test_unknown_benchmark(name, capsys):
    assert cli.main(["bench", name]) == 2
    assert f"no benchmark '{name}'" in capsys.readouterr().err


def test_all_that_is_listed_is_a_benchmark(capsys):
    assert cli.main(["bench", "--help"]) == 0
    listed = capsys.readouterr().out.split("benchmarks: ")[1].strip().split(", ")
    assert {"all", "lm", "seeds"} <= set(listed)
    for name in listed:
        with pytest.raises(SystemExit) as caught:
            cli.main(["bench", name, "--help"])
        assert caught.value.code == 0, name
        assert capsys.readouterr().out.startswith(f"usage: aesg bench {name} "), name


def test_import_stays_quick():
    code = "import aesg, aesg.cli, sys; print([m for m in ('torch', 'numpy', 'tqdm') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_lazy_names():
    assert aesg.AESGConfig().vector_dim == 256
    assert sorted(aesg.__all__) == sorted([*aesg._HOME_OF, "__version__"])
    assert set(aesg.__all__) <= set(dir(aesg))
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = aesg.Nothing
