"""ncnn, Tencent's runtime for phones, on the CPU; needs the extra `ncnn`. Free of torch."""

import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import check_image_shape, check_installed, check_number, one_line
from ofa.core.errors import DeviceError
from ofa.core.files import parse_json

PARAM, BIN, DESCRIPTION = "model.param", "model.bin", "model.json"
"""Files in a model's archive: ncnn's two, and `input_shape` with the metadata."""
INPUT, OUTPUT = "in0", "out0"
_ADVICE = "export the network again"


class NcnnModel:
    """A model that ncnn has loaded from an archive of its files; safe to call from many threads.

    Attributes:
        input_shape: of one image.

    Raises:
        DeviceError: ncnn is not installed, or the file is no such archive.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_number("threads", threads, 1, 1024, whole=True)
        check_ncnn()
        import ncnn

        with one_line(DeviceError, f"ncnn cannot load {path.name}", _ADVICE), tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(path) as archive:
                for name in (PARAM, BIN):
                    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"{name} is compressed")
                    archive.extract(name, folder)
                self.input_shape = tuple(map(int, parse_json(archive.read(DESCRIPTION))["input_shape"]))
            self._net = ncnn.Net()
            options = self._net.opt
            options.num_threads, options.use_vulkan_compute = threads, False
            options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
            for load, name in ((self._net.load_param, PARAM), (self._net.load_model, BIN)):
                if load(str(Path(folder, name))):
                    raise ValueError(f"{name} is not ncnn's")
        self._matrix = ncnn.Mat

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `[n, classes]` of images `[n, channels, height, width]`; DeviceError if the model fails."""
        check_image_shape(self.input_shape, images)  # ncnn would read beyond them
        return np.stack([self._run(np.ascontiguousarray(image)) for image in images])

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        extractor = self._net.create_extractor()
        code = extractor.input(INPUT, self._matrix(image).clone())  # layers in place would crash on borrowed memory
        code, logits = extractor.extract(OUTPUT) if code == 0 else (code, None)
        if code:
            raise DeviceError(f"ncnn cannot run the model on {image.shape}: it returns {code}; {_ADVICE}")
        return np.array(logits, dtype=np.float32)


def check_ncnn() -> None:
    """Raise DeviceError if ncnn is not installed."""
    check_installed("ncnn", "ncnn", "ncnn")
