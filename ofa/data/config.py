"""Which images to use, and how to split and augment them."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ofa.core.config import Config, UserPath


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the first value must not be above the second")
    return limits


def _known_to_timm(policy: str) -> str:
    from timm.data import create_transform

    create_transform(32, is_training=True, auto_augment=policy)  # asserts that it knows the policy
    return policy


Byte = Annotated[int, Field(ge=0, le=255)]
Area = Annotated[float, Field(ge=0.01, le=1)]
AspectRatio = Annotated[float, Field(ge=0.1, le=10)]


class AugmentConfig(Config):
    """Training augmentation, by timm's `create_transform`."""

    scale: Annotated[tuple[Area, Area], AfterValidator(_ascending)] = Field((0.7, 1.0), strict=False)
    """Range of the area of the random crop, as a share of the image."""
    ratio: Annotated[tuple[AspectRatio, AspectRatio], AfterValidator(_ascending)] = Field((0.85, 1.18), strict=False)
    """Range of the aspect ratio of the random crop."""
    hflip: float = Field(0.0, ge=0, le=1)
    """Probability of a horizontal flip."""
    auto_augment: Annotated[str, AfterValidator(_known_to_timm)] | None = None
    """Policy such as `rand-m9-mstd0.5-inc1` (RandAugment)."""
    erase: float = Field(0.0, ge=0, le=1)
    """Probability of random erasing."""
    mixup: float = Field(0.0, ge=0, le=100)
    """Alpha of mixup over a batch, such as 0.8; 0 disables it."""
    cutmix: float = Field(0.0, ge=0, le=100)
    """Alpha of cutmix, such as 1.0; 0 disables it. With mixup and cutmix, each batch uses one of them."""
    on_device: bool = False
    """Resizes, flips and erases where the network is trained, so that workers only decode and crop: for a GPU that
    waits for images. `auto_augment` must be left out, as its policies work on pictures in the workers."""

    @model_validator(mode="after")
    def _policies_work_on_pictures(self) -> Self:
        if self.on_device and self.auto_augment is not None:
            raise ValueError(
                f"on_device = true goes without auto_augment = {self.auto_augment}, whose policies work on pictures in "
                "the workers; leave one of them out"
            )
        return self


class DataConfig(Config):
    """Which images to use, and how to split and augment them."""

    name: str
    """A registered data set: `image_folder`, `csv`, `arrays`, `webdataset`, `parquet`, `huggingface`, `digits`,
    `emoji`, `fashion_mnist`; or `torchvision:NAME`; or the path of a Python file that defines `data(...)`."""
    folder: UserPath | None = None
    """Where the images lie: a folder, or one file. `image_folder`: the folder of `class/image`, or of
    `train/class/image` and optionally `validation` and `test` like it. `~` stands for the home directory."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the data set, such as `label: category` for the column of the labels; see its file in
    `ofa/data/sources/`."""
    in_channels: Literal[1, 3] = 3
    """3 for color, 1 for gray; `digits` and `fashion_mnist` are gray."""
    background: tuple[Byte, Byte, Byte] = Field((255, 255, 255), strict=False)
    """Red, green and blue, from 0 to 255, of what transparent parts of an image are blended onto."""
    validation_percent: float = Field(15.0, gt=0, le=40)
    """Share of the training images used for validation if the data set has no validation split."""
    test_percent: float = Field(20.0, gt=0, le=40)
    """Share of all images used for the test if the data set has no test split."""
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    """The training images of an epoch: each once, or `balanced`: as many of each class, some more than once."""
    workers: int = Field(0, ge=0, le=64)
    """Processes that load images; 0 loads them in the main process. Batches do not depend on it."""
    cache_mib: int = Field(128, ge=0, le=1_000_000)
    """Memory in MiB for images that were prepared to evaluate several subnets, and as much for those that BatchNorm is
    re-estimated on; the others are prepared again."""
    augment: AugmentConfig = AugmentConfig()
