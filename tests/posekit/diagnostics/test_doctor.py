"""Doctor and providers: findings on sound and on broken installations, without mocks.

Broken installations are made of real `.dist-info` folders on a path of their own.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from posekit.diagnostics import doctor
from posekit.errors import DeviceError, MissingExtraError
from posekit.inference import providers
from tests.architecture.tree import ROOT
from tests.support import needs


@pytest.fixture(scope="module")
def report() -> doctor.Report:
    return doctor.examine()


def install(folder: Path, name: str, version: str = "9.9") -> None:
    """What pip records of an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")


def test_sound_installation_passes() -> None:
    providers.check_onnxruntime()
    assert doctor.onnxruntime_conflict() is None
    assert len(providers.installed()) == 1


def test_two_onnxruntimes_are_named_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "onnxruntime-gpu" if "onnxruntime" in providers.installed() else "onnxruntime"
    install(tmp_path, other)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError) as caught:
        providers.check_onnxruntime()
    message = str(caught.value)
    assert "onnxruntime-gpu" in message
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in message
    assert "pip install 'posekit[gpu]'" in message
    assert doctor.onnxruntime_conflict() == message


def test_missing_onnxruntime_names_the_extras() -> None:
    """An interpreter that sees numpy alone, and posekit from the source tree."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from posekit.diagnostics import doctor\n"
        "from posekit.inference import providers\n"
        "from posekit.errors import MissingExtraError\n"
        "try:\n    providers.check_onnxruntime()\n"
        "except MissingExtraError as error:\n    print(error)\n"
        "print('works:', doctor.examine().works)\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert "posekit[cpu]" in run.stdout
    assert "posekit[gpu]" in run.stdout
    assert "works: False" in run.stdout  # and no crash, although everything is missing
    assert issubclass(MissingExtraError, ImportError)


def test_tiny_graph_is_the_sum_it_says() -> None:
    onnx = needs.package("onnx")
    model = onnx.load_from_string(doctor.TINY_GRAPH)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ("Add", ["x", "x"], ["y"])


def test_cpu_provider_runs_and_others_may_not_fall_back() -> None:
    assert doctor.try_provider("CPUExecutionProvider") is None
    import onnxruntime

    if "AzureExecutionProvider" in onnxruntime.get_available_providers():
        assert doctor.try_provider("AzureExecutionProvider")


def test_report_says_what_to_do_about_each_problem(report: doctor.Report) -> None:
    assert [each.name for each in report.checks if each.status in ("warning", "failed")] == [
        each.name for each in report.checks if each.status in ("warning", "failed") and each.fix
    ]
    assert report.works == all(each.status != "failed" for each in report.checks)


def test_report_covers_what_posekit_uses(report: doctor.Report) -> None:
    names = {each.name for each in report.checks}
    assert {"Python", "CPU", "OpenCV", "provider CPU", "NVIDIA GPU", "video"} <= names
    assert {"encoder h264", "encoder vp9", "encoder av1"} <= names
    assert any(name.startswith("model ") for name in names)


def test_this_machine_works(report: doctor.Report) -> None:
    assert report.works, [each for each in report.checks if each.status == "failed"]


def test_opencv_doubles_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "opencv-contrib-python")
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = [each for each in doctor.examine().checks if each.name == "OpenCV"]
    assert check.status == "warning"
    assert "pip uninstall -y" in check.fix


def test_a_cgroup_that_grants_less_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n", encoding="ascii")
    limits = partial(providers.cgroup_cpus, tmp_path, tmp_path / "none")
    monkeypatch.setattr(providers, "cgroup_cpus", limits)
    assert "its cgroup grants 0.5 CPUs, so posekit starts 1" in doctor._cpu().found


def test_packages_and_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(doctor.BASE) == sorted(map(_name, project["dependencies"]))
    for extra, names in doctor.EXTRAS.items():
        listed = {_name(each) for each in project["optional-dependencies"][extra]}
        assert set(names) <= listed, extra


def test_cpu_and_gpu_share_no_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    for extra, requirements in extras.items():
        names = {_name(each) for each in requirements}
        assert not {"onnxruntime", "onnxruntime-gpu"} <= names, extra


def _name(requirement: str) -> str:
    return requirement.partition(">")[0].partition("=")[0].partition("[")[0].strip()


def test_provider_check_is_cheap() -> None:
    """It runs once a session, which takes tens of milliseconds to open at best."""
    import time

    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        providers.check_onnxruntime()
        best = min(best, time.perf_counter() - start)
    assert best < 0.02
