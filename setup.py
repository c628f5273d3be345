import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
MIM_FOLDER = ROOT / 'mmdet_longtail' / '.mim'
SHIPPED = ('configs', 'tools')


def read_version() -> str:
    text = (ROOT / 'mmdet_longtail' / '__init__.py').read_text()
    return text.split("__version__ = '")[1].split("'")[0]


def fill_mim_folder(copy: bool) -> None:
    """Put configs and tools where MIM and an installed package find them.

    Args:
        copy (bool): Copy them, since what is packed holds no links. Else link
            them, so that in an editable install an edit counts at once.
    """
    MIM_FOLDER.mkdir(exist_ok=True)
    for name in SHIPPED:
        source, target = ROOT / name, MIM_FOLDER / name
        if not source.exists():
            continue  # an unpacked sdist: it has them in the MIM folder only
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            shutil.rmtree(target)
        if copy:
            unwanted = shutil.ignore_patterns('__pycache__')
            shutil.copytree(source, target, ignore=unwanted)
        else:
            target.symlink_to(Path('..', '..', name))


if __name__ == '__main__':
    fill_mim_folder(copy=bool({'sdist', 'bdist_wheel'} & set(sys.argv)))
    setup(
        name='mmdet_longtail',
        version=read_version(),
        description='The long-tail toolbox for MMDetection 3.x',
        license='Apache-2.0',
        keywords='object detection, long tail, LVIS, MMDetection',
        packages=find_packages(include=['mmdet_longtail*']),
        include_package_data=True,
        python_requires='>=3.10',
        # torch, mmcv, mmdet and mmengine are not here: pip would put other
        # builds over those that someone has. The import checks them.
        install_requires=[
            'filelock>=3.30',
            'hotcoco>=1.3,<2',
            'jinja2>=3.1',
            'matplotlib>=3.8',
            'numpy>=1.24',
            'packaging>=23',
            'pycocotools>=2.0.8',
            'rich>=13',
            'scipy>=1.10',
        ],
        extras_require={
            'lvis': ['lvis>=0.5.3'],
            'classification': ['mmpretrain>=1.2,<2'],
            # openmim reads options wrongly with a newer click and needs
            # pkg_resources; a newer opendatalab would pin setuptools,
            # requests, rich, tqdm, packaging and filelock to old releases.
            'mim': [
                'openmim>=0.3.9',
                'click>=8.0,<8.3',
                'opendatalab<0.0.10',
                'setuptools>=60,<81',
            ],
        },
    )
    fill_mim_folder(copy=False)
