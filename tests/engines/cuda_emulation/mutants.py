"""Mutation tests of the kernels: one error at a time in a copy; the tests must detect each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from posekit_engines import kernels
from tests.engines.cuda_emulation import tools
from tests.support.assets import ROOT

TESTS = {
    "decode_flip.cu": "tests/engines/kernels/test_decode_flip.py",
    "crop_normalize.cu": "tests/engines/kernels/test_crop_normalize.py",
    "fuse_views.cu": "tests/engines/kernels/test_fuse_views.py",
    "device.cuh": "tests/engines/kernels/test_decode_flip.py",
}

# The error, the text in the source, its replacement.
DECODE = (
    ("ties go to the larger index", "(u32)~at", "(u32)at"),
    (
        "a tie within a thread",
        "if (rank > best) { best = rank; at = v",
        "if (rank >= best) { best = rank; at = v",
    ),
    ("NaN is not above all", "if (value != value) return 0xffffffffu;", ""),
    ("-0 is below 0", "__float_as_uint(value + 0.0f)", "__float_as_uint(value)"),
    ("negative values reversed", "? ~bits : bits | 0x80000000u", "? bits : bits | 0x80000000u"),
    ("the mirror is off by one", "p.width - 1 - x + p.whole", "p.width - x + p.whole"),
    ("the vectors' mirror is off", "p.width - SIZE - x;", "x;"),
    ("whole columns are ignored", "&& p.whole == 0;", ";"),
    (
        "the shift goes the other way",
        "? near[from + 2] : near[from]",
        "? near[from] : near[from + 2]",
    ),
    ("the edge column is blended", "(u32)(i + p.toward) >= (u32)p.width", "false"),
    (
        "shares exchanged",
        "value * (1.0f - p.share) + near * p.share",
        "value * p.share + near * (1.0f - p.share)",
    ),
    ("no permutation", "p.mirror[k] * p.keypoint", "k * p.keypoint"),
    (
        "the column after a vector",
        "p.toward > 0 && x > 0 ? read(line[SIZE])",
        "false ? read(line[SIZE])",
    ),
    (
        "the column before a vector",
        "p.toward < 0 && first > 0 ? read(line[-1])",
        "false ? read(line[-1])",
    ),
    (
        "one shuffle too few",
        "for (int lanes = 16; lanes; lanes >>= 1)",
        "for (int lanes = 16; lanes > 1; lanes >>= 1)",
    ),
    (
        "a warp is left out",
        "for (int warp = 1; warp < WARPS; ++warp)",
        "for (int warp = 1; warp < WARPS - 1; ++warp)",
    ),
    (
        "no barrier after the warps",
        "keys[threadIdx.x >> 5] = best;\n    __syncthreads();",
        "keys[threadIdx.x >> 5] = best;",
    ),
    (
        "no barrier after the patch",
        "maps.at(y, x) : 0.0f;\n    }\n    __syncthreads();",
        "maps.at(y, x) : 0.0f;\n    }",
    ),
    (
        "no barrier after the rows",
        "rows[cell] = sum;\n    }\n    __syncthreads();",
        "rows[cell] = sum;\n    }",
    ),
    (
        "no barrier after the square",
        "0.5f * sum : sum;\n    }\n    __syncthreads();",
        "0.5f * sum : sum;\n    }",
    ),
    (
        "no barrier after the logarithms",
        "logs[cell] = logf(value);\n    }\n    __syncthreads();",
        "logs[cell] = logf(value);\n    }",
    ),
    (
        "idle threads leave early",
        "    const u64 best = block_best",
        "    if (threadIdx.x >= p.width) return;\n    const u64 best = block_best",
    ),
    ("the last row is not read", "per_row * p.height", "per_row * (p.height - 1)"),
    (
        "outside the map is its edge",
        "inside ? maps.at(y, x) : 0.0f",
        "maps.at(clamped(y, 0, p.height - 1), clamped(x, 0, p.width - 1))",
    ),
    ("not halved", "(other ? 0.5f : 1.0f)", "1.0f"),
    ("the blurred map is not halved", "maps.other ? 0.5f * sum : sum", "sum"),
    (
        "UDP without the peak's height",
        "p.refine == UDP ? peak / (middle <= TINY ? TINY : middle) : 1.0f",
        "1.0f",
    ),
    ("UDP without its ceiling", "p.refine == UDP && value >= UDP_CEILING", "false"),
    ("UDP with DARK's floor", "p.refine == UDP ? UDP_FLOOR : TINY", "TINY"),
    ("UDP outside the border", "px == 0 ? 0 : -1", "-1"),
    ("UDP below the border", "py == height - 1 ? 0 : 3", "3"),
    (
        "UDP's mixed difference",
        "at[down + right] + at[up + left]",
        "at[down + left] + at[up + right]",
    ),
    ("DARK's mixed difference", "- (at[-4] + at[4])", "+ (at[-4] + at[4])"),
    ("DARK's border", "p.refine == DARK ? 2 : 1", "1"),
    (
        "the quarter's border",
        "const bool across = px > 1",
        "const bool across = px > 0",
    ),
    ("the quarter's axes independent", "(apart ? py > 0 : down)", "(py > 0)"),
    ("mmpose 1.x's axes together", "(apart ? px > 0 : across)", "(across)"),
    ("mmpose 1.x's first row", "(apart ? py > 0 : down)", "(apart || down)"),
    ("mmpose 1.x's first column", "(apart ? px > 0 : across)", "(apart || across)"),
    ("the quarter's sign", "difference > 0.0f ? 0.25f", "difference > 0.0f ? -0.25f"),
    (
        "a step without a bound",
        "fminf(fmaxf((xy * y - yy * x) / determinant, -MAX_STEP), MAX_STEP)",
        "(xy * y - yy * x) / determinant",
    ),
    ("a step from a saddle", "determinant > FLAT + THIN * (trace * trace) && trace < 0.0f", "true"),
    ("a ridge is a peak", "FLAT + THIN * (trace * trace)", "0.0f"),
    ("a step without a peak", "!(peak > 0.0f) || p.refine", "p.refine"),
    ("x and y of the transform exchanged", "__fmaf_rn(m[1], y, m[2])", "__fmaf_rn(m[3], y, m[2])"),
    (
        "y after x has moved",
        "const float across = __fmaf_rn(m[0]",
        "float across = x = __fmaf_rn(m[0]",
    ),
    ("the first person's transform", "p.to_frame + 6 * n", "p.to_frame"),
    ("NaN as score", "score == score ? score : 0.0f", "score"),
    ("rows assumed contiguous", "own[y * p.row + x]", "own[y * p.width + x]"),
)
CROP = (
    ("mean left out", "p.scale[1], p.bias[1]", "p.scale[1], 0.0f"),
    ("red and blue exchanged", "p.bgr ? color.blue : color.red", "p.bgr ? color.red : color.blue"),
    (
        "a frame's width as pitch",
        "(i64)y * frame.pitch + 3 * x",
        "(i64)y * frame.width * 3 + 3 * x",
    ),
    ("not black to the right", "(u32)x >= (u32)frame.width ||", ""),
    ("the border cut short", "x > -1.0f && x < frame.width", "x >= 0.0f && x < frame.width"),
    ("truncated, not floored", "const float left = floorf(x)", "const float left = truncf(x)"),
    (
        "weights exchanged",
        "column + 1, row, right * (1.0f - down)",
        "column + 1, row, down * (1.0f - right)",
    ),
    (
        "a tap left out",
        "    add_tap<Format>(sum, frame, column + 1, row + 1, right * down, p);\n",
        "",
    ),
    ("the first frame only", "p.frames[p.frame_of[n]]", "p.frames[0]"),
    ("the first person's box", "p.to_frame + 6 * n", "p.to_frame"),
    ("not mirrored", "p.width, values[c], true)", "p.width, values[c], false)"),
    ("quads not reversed", "values[backwards ? QUAD - 1 - e : e]", "values[e]"),
    ("the rest of a row is left out", "(p.width + QUAD - 1) / QUAD", "p.width / QUAD"),
    (
        "one row too many",
        "if (item >= quads * p.height) return;",
        "if (item > quads * p.height) return;",
    ),
    ("columns outside a row", "if (column >= 0 && column < width)", "if (column < width)"),
    ("quads at any address", "width % QUAD == 0 && (u64)", "(u64)"),
    (
        "U and V exchanged",
        "(float)pair[0] - 128.0f, v = (float)pair[1]",
        "(float)pair[1] - 128.0f, v = (float)pair[0]",
    ),
    ("chroma of the wrong pair", "x / 2 * 2", "x"),
    ("NV12 is not clipped", "rintf(fminf(fmaxf(value, 0.0f), 255.0f))", "rintf(value)"),
)
FUSE = (
    ("views weigh alike", "powf(fmaxf(sum / (float)keypoints, LEAST_PEAK), POWER)", "1.0f"),
    ("one keypoint weighs the view", "k < keypoints; ++k) sum", "k < 1; ++k) sum"),
    ("no minimum peak", "fmaxf(sum / (float)keypoints, LEAST_PEAK)", "sum / (float)keypoints"),
    ("x as weight", "found[3 * k + 2]", "found[3 * k]"),
    ("the first person's peaks", "3 * (i64)(n * p.views + v) * keypoints", "3 * v * keypoints"),
    (
        "the first person's maps",
        "(n * p.views + v) * keypoints + p.holder",
        "v * keypoints + p.holder",
    ),
    ("sides are not exchanged", "p.holder[v * keypoints + k]", "k"),
    ("x and y of the transform exchanged", "__fmaf_rn(m[1], y, m[2])", "__fmaf_rn(m[3], y, m[2])"),
    ("the first view's transform", "p.to_view + 6 * v", "p.to_view"),
    ("the border cut short", "x > -1.0f && x < p.width", "x >= 0.0f && x < p.width"),
    ("truncated, not floored", "const float left = floorf(x)", "const float left = truncf(x)"),
    ("no border on the right", "(u32)x >= (u32)p.width ||", ""),
    ("a neighbor without a share", "if (right > 0.0f) add_tap", "if (true) add_tap"),
    ("a share is left out", "    sum.share += share;\n", "    sum.share = 1.0f;\n"),
    ("not divided by the share", "total / fmaxf(share, LEAST_SHARE)", "total"),
    ("zero divided by zero", "fmaxf(share, LEAST_SHARE)", "share"),
    (
        "no barrier after the weights",
        "    __syncthreads();\n    const int cell",
        "    const int cell",
    ),
)
SHARED = (
    ("bits as a number", "return from_half(cell.bits);", "return cell.bits;"),
    ("any address is aligned", "((u64)address & 15) == 0", "true"),
)
MUTANTS = (
    ("decode_flip.cu", DECODE),
    ("crop_normalize.cu", CROP),
    ("fuse_views.cu", FUSE),
    ("device.cuh", SHARED),
)


def planted(folder: Path, only: str) -> Iterator[tuple[str, str, Path]]:
    """Mutants whose file and name contain `only`: file, name, the folder of the kernels."""
    for file, mutants in MUTANTS:
        text = (kernels.FOLDER / file).read_text(encoding="utf-8")
        for number, (name, old, new) in enumerate(mutants):
            if old not in text:
                sys.exit(f"{file}: {name}: the source has changed, {old!r} is not in it")
            if only in f"{file} {name}":
                copy = folder / file / str(number)
                shutil.copytree(kernels.FOLDER, copy, ignore=shutil.ignore_patterns("*.py*"))
                (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
                yield file, name, copy


def detected(file: str, folder: Path) -> bool:
    """Whether the tests fail, or crash, on the kernels in `folder`."""
    library = tools.build(
        "emulation.so", "emulation.cpp", "-O1", "-w", "-shared", "-fPIC", folder=folder
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", TESTS[file]],
        env={**os.environ, "POSEKIT_EMULATION": str(library)},
        cwd=ROOT,
        capture_output=True,
    )
    return done.returncode != 0


def main(only: str = "", jobs: str = "2") -> int:
    """Try all, or those whose file and name contain `only`; returns the number not detected."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(int(jobs)) as pool:
        mutants = list(planted(Path(name), only))
        survivors = 0
        found = pool.map(lambda each: detected(each[0], each[2]), mutants)
        for (file, error, _), one in zip(mutants, found, strict=True):
            survivors += not one
            print("detected" if one else "SURVIVED", file, error, flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants detected")
    return survivors
