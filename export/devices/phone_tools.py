"""Programs that time the runs of a model on a phone, as the projects of the runtimes build them; see docs/agent.md."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Protocol

from export.ncnn_session import PARAM
from ofa.core.errors import DeviceError

_WARMUP_RUNS = 4  # beside the tool's own: a process is new, and so are its caches and the phone's clocks


class Tool(Protocol):
    """A program on a phone.

    Attributes:
        runtime: as the description of a device names it.
        program: file name.
        files: that belong beside it.
        advice: what to do if it prints something unexpected.
    """

    runtime: str
    program: str
    files: tuple[str, ...]
    advice: str

    def pushed(self, file: Path, folder: Path) -> Path:
        """Return the file that the program reads of a model's file; it may be written to a folder."""
        ...

    def command(self, model: str, input_shape: Sequence[int], n: int, threads: int) -> str:
        """Return the shell's command, in the program's folder, that times `n` runs of a pushed file and prints them."""
        ...

    def times_ms(self, printed: str, n: int) -> list[float]:
        """Return the milliseconds of the `n` runs that a command printed, fewer if they are not all there."""
        ...


class OnnxRuntimeTool:
    """ONNX Runtime's performance test.

    Its options: `-I` creates an input, of batch 1 where the file takes any, from seed `-S`; `-x` and `-y` are threads
    within and between operators; `-o 99` is all optimizations; `-Z` keeps threads from spinning between runs, as in
    `export.session`.
    """

    runtime, program = "onnxruntime", "onnxruntime_perf_test"
    files: tuple[str, ...] = ("libonnxruntime.so",)
    advice = "use a newer ONNX Runtime"
    # A line of a result file: name of the model's folder, seconds, peak memory in bytes, processor use in percent, run.
    _line = re.compile(r"[^,]*,([0-9.]+(?:e[+-]?[0-9]+)?),[0-9]+,-?[0-9]+,[0-9]+")

    def pushed(self, file: Path, folder: Path) -> Path:  # noqa: ARG002
        """See `Tool.pushed`."""
        return file

    def command(self, model: str, input_shape: Sequence[int], n: int, threads: int) -> str:  # noqa: ARG002
        """See `Tool.command`."""
        result = quote(f"{model}.csv")
        return (
            f"rm -f {result} && LD_LIBRARY_PATH=. ./{self.program} -e cpu -m times -r {_WARMUP_RUNS + n} "
            f"-x {threads} -y 1 -o 99 -Z -I -S 1 {quote(model)} {result} 1>&2 && cat {result}"
        )

    def times_ms(self, printed: str, n: int) -> list[float]:  # noqa: ARG002
        """See `Tool.times_ms`."""
        times_ms = [float(match[1]) * 1e3 for match in map(self._line.fullmatch, printed.split()) if match]
        return times_ms[_WARMUP_RUNS:]


class MnnTool:
    """MNN's benchmark, which prints the mean of its runs; it computes in float32, as `export.mnn_session` does."""

    runtime, program = "mnn", "benchmark.out"
    files: tuple[str, ...] = ("libMNN.so",)
    advice = "build the program of MNN 3 or later"
    _mean = re.compile(r"avg = *([0-9.]+) ms")

    def pushed(self, file: Path, folder: Path) -> Path:  # noqa: ARG002
        """See `Tool.pushed`."""
        return file

    def command(self, model: str, input_shape: Sequence[int], n: int, threads: int) -> str:  # noqa: ARG002
        """See `Tool.command`. The program runs all files in a folder; forward type 0 is the CPU, precision 1 high."""
        folder = quote(f"{model}.folder")
        return (
            f"mkdir -p {folder} && ln -sf {quote(model)} {folder}/ && "
            f"LD_LIBRARY_PATH=. ./{self.program} {folder} {n} {_WARMUP_RUNS} 0 {threads} 1"
        )

    def times_ms(self, printed: str, n: int) -> list[float]:
        """See `Tool.times_ms`."""
        return _means(self._mean, printed, n, resolution_ms=0.001)


class NcnnTool:
    """ncnn's benchmark, which prints the mean of its runs to hundredths of a millisecond.

    It reads no weights, and computes in 16 bits where the phone's processor can.
    """

    runtime, program = "ncnn", "benchncnn"
    files: tuple[str, ...] = ()
    advice = "build the program of ncnn 20240102 or later, which knows param= and shape="
    _mean = re.compile(r"min = *[0-9.]+ +max = *[0-9.]+ +avg = *([0-9.]+)")

    def pushed(self, file: Path, folder: Path) -> Path:
        """See `Tool.pushed`."""
        try:
            with zipfile.ZipFile(file) as archive:
                return Path(archive.extract(PARAM, folder))
        except (zipfile.BadZipFile, KeyError) as error:
            raise DeviceError(f"{file.name} is not a model of the format ncnn; export it again") from error

    def command(self, model: str, input_shape: Sequence[int], n: int, threads: int) -> str:
        """See `Tool.command`. All cores may be used, and no GPU; there is no pause to cool down."""
        shape = ",".join(map(str, reversed(input_shape)))
        options = " ".join(quote(option) for option in (f"param={model}", f"shape=[{shape}]"))
        return f"./{self.program} {n} {threads} 0 -1 0 {options} 2>&1"

    def times_ms(self, printed: str, n: int) -> list[float]:
        """See `Tool.times_ms`."""
        return _means(self._mean, printed, n, resolution_ms=0.01)


def _means(pattern: re.Pattern[str], printed: str, n: int, resolution_ms: float) -> list[float]:
    """Return a mean for each of `n` runs; one that is printed as 0 is half of what can be told from it."""
    means = [max(float(match), resolution_ms / 2) for match in pattern.findall(printed)]
    return means * n if len(means) == 1 else []
