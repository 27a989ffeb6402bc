"""Hints in configs and file names. A config is parsed, never run: its literal values alone count.

mmpose's .py (0.x and 1.x), Microsoft's and HRNet's .yaml, Hugging Face's .json.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from posekit import skeletons
from posekit.checkpoints.files import read_json
from posekit.checkpoints.resolve import Convention, SpecHints
from posekit.errors import CheckpointError, InputError
from posekit.inputs.parsing import number
from posekit.types import Decode, Skeleton

_KNOWN = {
    "coco": skeletons.COCO_17,
    "mpii": skeletons.MPII_16,
    "aic": skeletons.AIC_14,
}
# Data sets with as many keypoints as COCO, MPII or AIC, but other ones.
_UNKNOWN_DATA_SETS = (
    "crowdpose",
    "ap10k",
    "apt36k",
    "h36m",
    "animalpose",
    "jhmdb",
    "posetrack",
    "wholebody",
)
_CONFIGS = (".py", ".yaml", ".yml")
_LARGEST = 1 << 20  # bytes of a config
_LONGEST = 1 << 16  # characters of a value that others name: names of names double it each time


def find(path: Path, given: Path | None) -> tuple[Path | None, SpecHints]:
    """The config that goes with a checkpoint, and its hints.

    `given`, else one whose name begins the checkpoint's, else the only one in its folder.
    Raises CheckpointError.
    """
    config = given or (path / "config.json" if path.is_dir() else _beside(path))
    if config is None:
        return None, SpecHints()
    if config.suffix == ".json":
        return config, _hugging_face(config)
    text = _text(config)
    hints = mmpose(text) if config.suffix == ".py" else _microsoft(text)
    if hints == SpecHints() and given:
        raise CheckpointError(f"{config}: holds nothing of a pose model's config")
    return (config if hints != SpecHints() else None), hints


def _text(config: Path) -> str:
    """Raises CheckpointError: cannot be read, too large, or not UTF-8."""
    try:
        with config.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise CheckpointError(f"{config}: larger than {_LARGEST:,} bytes; no config is")
        return data.decode()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config}: cannot be read ({error})") from error


def _beside(path: Path) -> Path | None:
    """The config whose name begins the checkpoint's (the longest), or the only one."""
    configs = sorted(file for file in path.parent.glob("*.*") if file.suffix in _CONFIGS)
    named = [config for config in configs if path.name.startswith(config.stem)]
    if named:
        return max(named, key=lambda config: len(config.stem))
    return configs[0] if len(configs) == 1 else None


def from_name(path: Path) -> SpecHints:
    """Hints in a file's name: 256x192 (H x W; the larger is the height), udp, dark, data set.

    Raises CheckpointError for a variant that the network does not cover.
    """
    name = path.name.lower()
    if "caffe" in re.split(r"[^a-z0-9]+", name):
        raise CheckpointError(f"{path}: a caffe-style ResNet (stride in conv1) is not supported")
    words = set(re.split(r"[^a-z0-9]+", name))
    size = re.search(r"(?<![0-9])([1-9]\d{1,3})x([1-9]\d{1,3})(?![0-9])", name)
    sides = sorted((int(size[1]), int(size[2]))) if size else None
    sets = set(re.findall(r"(?<![a-z])(coco|mpii|aic)", name))
    hints = SpecHints(skeleton=_KNOWN[sets.pop()] if len(sets) == 1 else None)
    if any(word in name for word in _UNKNOWN_DATA_SETS):
        hints = SpecHints(skeleton=Skeleton(_unknown_data_set(name), (), (), (), ()))
    if sides:
        hints = replace(hints, input_size=(sides[0], sides[1]))
    if "udp" in words:
        return replace(hints, convention="udp")
    return replace(hints, decode="dark") if "dark" in words else hints


def _unknown_data_set(name: str) -> str:
    """The data set's name; its empty skeleton fits no head, so that --skeleton is required."""
    return next(word for word in _UNKNOWN_DATA_SETS if word in name)


def mmpose(text: str) -> SpecHints:
    """Hints of an mmpose config, 0.x or 1.x, from its text; empty where it is another file."""
    values = _literals(text)
    if isinstance(values.get("codec"), dict):
        return _mmpose_1(values)
    if isinstance(values.get("data_cfg"), dict):
        return _mmpose_0(values, text)
    return SpecHints()


def dataset(meta: Mapping[str, Any]) -> SpecHints:
    """The skeleton that an mmpose 1.x checkpoint carries in its `dataset_meta`, if it does."""
    try:
        names = meta["keypoint_id2name"]
        skeleton = Skeleton(
            name=str(meta.get("dataset_name", "custom")),
            keypoints=tuple(str(names[k]) for k in range(len(names))),
            bones=tuple((int(a), int(b)) for a, b in meta["skeleton_links"]),
            mirror=tuple(int(k) for k in meta["flip_indices"]),
            sigmas=tuple(float(s) for s in meta["sigmas"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, InputError):
        return SpecHints()
    same = [known for known in _KNOWN.values() if known.keypoints == skeleton.keypoints]
    return SpecHints(skeleton=same[0] if same else skeleton)


def _mmpose_1(values: Mapping[str, Any]) -> SpecHints:
    codec, model = values["codec"], _table(values, "model")
    processor, test = _table(model, "data_preprocessor"), _table(model, "test_cfg")
    convention: Convention = "udp" if codec.get("type") == "UDPHeatmap" else "msra"
    if codec.get("type") not in ("UDPHeatmap", "MSRAHeatmap"):
        raise CheckpointError(
            f"config: codec {codec.get('type')}; wanted MSRAHeatmap or UDPHeatmap (one map a joint)"
        )
    plain: Decode = "dark" if codec.get("unbiased") else "quarter-axis"
    return SpecHints(
        input_size=_pair(codec.get("input_size")),
        skeleton=_by_dataset(values.get("dataset_type")),
        color="rgb" if processor.get("bgr_to_rgb") else "bgr" if processor else None,
        mean=_triple(processor.get("mean")),
        std=_triple(processor.get("std")),
        convention=convention,
        flip_shift=_shift(test.get("shift_heatmap"), convention),
        sigma=_number(codec.get("sigma")),
        decode="udp" if convention == "udp" else plain,
        blur=_odd(codec.get("blur_kernel_size")),
    )


def _mmpose_0(values: Mapping[str, Any], text: str) -> SpecHints:
    test, data = _table(_table(values, "model"), "test_cfg"), values["data_cfg"]
    convention: Convention = "udp" if test.get("use_udp") else "msra"
    plain: Decode = "dark" if test.get("post_process") == "unbiased" else "quarter"
    steps = [s for s in values.get("train_pipeline") or [] if isinstance(s, dict)]
    target = next((s for s in steps if s.get("type") == "TopDownGenerateTarget"), {})
    scale = next((s for s in steps if s.get("type") == "NormalizeTensor"), {})
    named = re.search(r"TopDown(Coco|Mpii|Aic)Dataset", text)
    return SpecHints(
        input_size=_pair(data.get("image_size")),
        skeleton=_KNOWN[named[1].lower()] if named else None,
        mean=_triple(scale.get("mean"), 255),
        std=_triple(scale.get("std"), 255),
        convention=convention,
        flip_shift=_shift(test.get("shift_heatmap"), convention),
        sigma=_number(target.get("sigma")),
        decode="udp" if convention == "udp" else plain,
        blur=_odd(test.get("modulate_kernel")),
    )


def _microsoft(text: str) -> SpecHints:
    """SimpleBaseline's, HRNet's, DarkPose's and Semi_Human_Pose's experiment files."""
    values = yaml_values(text)
    model, data, test = (_table(values, name) for name in ("MODEL", "DATASET", "TEST"))
    if not model:
        return SpecHints()
    named = data.get("TEST_DATASET", data.get("DATASET"))
    blur = _odd(test.get("BLUR_KERNEL"))
    # Their test code shifts by a whole cell if its config says so; else 0.75 is the exact value.
    shifted = test.get("SHIFT_HEATMAP")
    shift = (1.0 if shifted else 0.75) if isinstance(shifted, bool) else None
    return SpecHints(
        input_size=_pair(model.get("IMAGE_SIZE")),
        skeleton=_KNOWN.get(str(named)),
        color="rgb" if data.get("COLOR_RGB") is True else "bgr",
        flip_shift=shift,
        sigma=_number(_table(model, "EXTRA").get("SIGMA", model.get("SIGMA"))),
        decode="dark" if blur else None,
        blur=blur,
    )


_HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}


def _hugging_face(config: Path) -> SpecHints:
    """config.json and preprocessor_config.json of a VitPose folder. Raises CheckpointError."""
    values = read_json(config)
    if values.get("model_type") != "vitpose":
        raise CheckpointError(
            f"{config}: model_type {values.get('model_type')!r}; wanted vitpose (top-down heatmaps)"
        )
    backbone = _table(values, "backbone_config")
    heads, width = (
        int(
            number(
                backbone.get(key, usual),
                name=f"{config}: {key}",
                low=1,
                high=1e6,
                whole=True,
                error=CheckpointError,
            )
        )
        for key, usual in (("num_attention_heads", 12), ("hidden_size", 768))
    )
    if _HEADS.get(width) != heads:
        raise CheckpointError(
            f"{config}: {heads} attention heads at {width} channels; wanted one of {_HEADS}"
        )
    size = _pair(backbone.get("image_size", [256, 192]))
    hints = SpecHints(input_size=size and (size[1], size[0]), color="rgb", convention="udp")
    other = config.with_name("preprocessor_config.json")
    if not other.is_file():
        return hints
    prepare = read_json(other)
    mean, std = (_triple(prepare.get(name), 255) for name in ("image_mean", "image_std"))
    return replace(hints, mean=mean, std=std)


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The table called `name`, or an empty one."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6
    return float(value) if fits else None


_WIDEST = 1000  # side of a blur


def _odd(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number and number % 2 == 1 and number < _WIDEST else None


def _numbers(value: Any, count: int) -> list[float] | None:
    """`count` positive numbers, or None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    numbers = [number for v in value if (number := _number(v)) is not None]
    return numbers if len(numbers) == count else None


def _pair(value: Any) -> tuple[int, int] | None:
    numbers = _numbers(value, 2)
    return (int(numbers[0]), int(numbers[1])) if numbers else None


def _triple(value: Any, scale: float = 1.0) -> tuple[float, float, float] | None:
    numbers = _numbers(value, 3)
    return (numbers[0] * scale, numbers[1] * scale, numbers[2] * scale) if numbers else None


def _shift(value: Any, convention: Convention) -> float | None:
    """mmpose's `shift_heatmap`: a whole cell; none is right for UDP alone."""
    if value is True:
        return 1.0
    return 0.0 if value is False and convention == "udp" else None


def _by_dataset(name: Any) -> Skeleton | None:
    return {"CocoDataset": _KNOWN["coco"], "MpiiDataset": _KNOWN["mpii"]}.get(
        str(name), _KNOWN["aic"] if name == "AicDataset" else None
    )


class _Literals(ast.NodeTransformer):
    """Turns an expression into a literal one: dict(a=1) and known names and items are replaced.

    Whatever would have to be run becomes None.
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = known

    def visit(self, node: ast.AST) -> Any:
        """The node with literal children, or None's node."""
        match node:
            case ast.Constant():
                return node
            case ast.List() | ast.Tuple() | ast.Dict() | ast.UnaryOp(op=ast.USub()):
                return self.generic_visit(node)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=pairs):
                keys: list[ast.expr | None] = [ast.Constant(pair.arg) for pair in pairs]
                return ast.Dict(keys, [self.visit(pair.value) for pair in pairs])
            case ast.Name() | ast.Subscript():
                return _expression(self._value(node))
            case ast.expr_context() | ast.USub():
                return node
            case _:
                return ast.Constant(None)

    def _value(self, node: ast.AST) -> Any:
        """The value of a known name, or of an item of one."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            whole, key = self._value(node.value), node.slice.value
            return whole.get(key) if isinstance(whole, dict) else None
        return None


def _expression(value: Any) -> ast.expr:
    text = repr(value)
    return ast.parse(text if len(text) < _LONGEST else "None", mode="eval").body


def _literals(text: str) -> dict[str, Any]:
    """Top-level names of a Python file and their literal values; nothing is run."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    known: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                value = ast.literal_eval(_Literals(known).visit(statement.value))
            except (ValueError, TypeError, RecursionError):
                continue
            known[statement.targets[0].id] = value
    return known


def yaml_values(text: str) -> dict[str, Any]:
    """Tables, lists and scalars of a plain YAML file, as experiment files are.

    Anchors, flow tables, tables in lists and multi-line strings are not understood.
    """
    root: dict[str, Any] = {}
    open_tables: list[tuple[int, dict[str, Any]]] = [(-1, root)]
    owner: tuple[dict[str, Any], str] = (root, "")
    for line in text.splitlines():
        body = re.sub(r"(^|\s)#.*", "", line).strip()
        if body.startswith("- "):
            table, key = owner
            if not isinstance(table.get(key), list):
                table[key] = []
            table[key].append(_scalar(body))
        elif ":" in body:
            key, _, rest = body.partition(":")
            depth = len(line) - len(line.lstrip())
            while open_tables[-1][0] >= depth:
                open_tables.pop()
            owner = (open_tables[-1][1], key.strip())
            owner[0][owner[1]] = _scalar(rest) if rest.strip() else {}
            if not rest.strip():
                open_tables.append((depth, owner[0][owner[1]]))
    return root


def _scalar(text: str) -> Any:
    """A YAML scalar or flow list of them."""
    text = text.strip().removeprefix("- ").strip()
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(part) for part in text[1:-1].split(",") if part.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
