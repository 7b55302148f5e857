"""Data sets of the library `datasets`: of a hub, or saved by it."""

from typing import Any

from ofa.core.errors import DataError, one_line
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.decode import Decoder
from ofa.data.splits import names_of_numbers, split_named, with_class_names
from ofa.data.torch_dataset import DatasetStore


def huggingface(
    config: DataConfig,
    path: str | None = None,
    subset: str | None = None,
    image: str = "image",
    label: str = "label",
) -> Data:
    """Load a data set of the library `datasets`, which must be installed.

    Args:
        config: the section `data` of the recipe; `data.folder` is what `save_to_disk` wrote.
        path: in place of a folder, the name of a data set on the hub, or whatever `datasets.load_dataset` takes.
        subset: the name of a part of it, such as a language.
        image: the column of the images.
        label: the column of the labels.

    Raises:
        DataError: the library, the data set or a column is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError("data.name huggingface requires the package datasets; run `pip install datasets`") from error
    if (path is None) == (config.folder is None):
        raise DataError("give either data.folder, which save_to_disk wrote, or data.options.path, a name on the hub")
    try:
        loaded: Any = datasets.load_dataset(path, subset) if path else datasets.load_from_disk(str(config.folder))
    except Exception as error:  # of all kinds
        raise DataError(f"cannot load the data set {path or config.folder} ({one_line(error)})") from error
    by_name = loaded if isinstance(loaded, dict) else {"train": loaded}
    parts = {split: part for name, part in by_name.items() if (split := split_named(name))}
    if not parts:
        raise DataError(f"{path or config.folder} has the splits {sorted(by_name)}, but none is called train")
    for part in parts.values():
        for wanted in {image, label} - set(part.column_names):
            raise DataError(f"{path or config.folder} has no column {wanted!r}, only {part.column_names}")
    source = path or config.folder
    own = {split: getattr(part.features[label], "names", None) for split, part in parts.items()}
    classes = own.get("train") or next(filter(None, own.values()), None)
    texts = {  # without the format that was saved with it, such as tensors
        split: names_of_numbers(source, split, part.with_format(None)[label], own[split] or classes)
        for split, part in parts.items()
    }
    decoder = Decoder(config.in_channels, config.background)
    stores = {split: (DatasetStore(part, decoder, image), texts[split]) for split, part in parts.items()}
    name = str(path).rpartition("/")[2] if path else config.folder.absolute().name  # type: ignore[union-attr]  # one is given
    return with_class_names(name, stores, config, classes)
