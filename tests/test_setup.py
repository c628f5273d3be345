"""Packaging, the check of versions, and set-up by make."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
# `STACK=onedl make test` hands its settings down to every make.
UNCHANGED = {
    name: value
    for name, value in os.environ.items()
    if name not in ('STACK', 'TORCH', 'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS')
}


def run(*command, cwd=None, **environment):
    """Run a command; return its exit status and all that it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**UNCHANGED, **{k: str(v) for k, v in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def run_well(*command, cwd=None, **environment):
    status, output = run(*command, cwd=cwd, **environment)
    assert status == 0, output
    return output


@pytest.fixture
def source(tmp_path):
    """A copy of what is needed to install, without what was built in it."""
    folder = tmp_path / 'source'
    folder.mkdir()
    unwanted = shutil.ignore_patterns('.mim', '__pycache__')
    for name in ('mmdet_longtail', 'configs', 'tools', 'requirements', '.ci'):
        if (CHECKOUT / name).exists():
            shutil.copytree(CHECKOUT / name, folder / name, ignore=unwanted)
    for path in CHECKOUT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


# ---------------------------------------------------------------- packaging


@pytest.fixture
def environment(tmp_path):
    """An empty environment, whose pip and setuptools are borrowed."""
    folder = tmp_path / 'environment'
    venv.create(folder, with_pip=False)
    borrowed = tmp_path / 'borrowed'
    borrowed.mkdir()
    site_packages = Path(sysconfig.get_path('purelib'))
    for pattern in ('pip*', 'setuptools*', '_distutils_hack'):
        for path in site_packages.glob(pattern):
            (borrowed / path.name).symlink_to(path)

    def run_python(*arguments, cwd=tmp_path):
        return run_well(
            folder / 'bin' / 'python',
            *arguments,
            cwd=cwd,
            PYTHONPATH=borrowed,
            PYTHONDONTWRITEBYTECODE=1,
        )

    return run_python


PIP_INSTALL = (
    '-m',
    'pip',
    'install',
    '--no-deps',
    '--no-build-isolation',
    '--no-index',
)


def files_below(folder):
    return {
        Path(parent, name).relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if '__pycache__' not in parent
    }


def assert_complete(package, source, is_linked=False):
    expected = {
        f'.mim/{name}/{path}'
        for name in ('configs', 'tools')
        for path in files_below(source / name)
        if not path.startswith('benchmarks/') or is_linked
    }
    expected |= {
        path
        for path in files_below(source / 'mmdet_longtail')
        if not path.startswith('.mim/')
    }
    expected.add('.mim/model-index.yml')
    assert '.mim/tools/train.py' in expected
    assert files_below(package) == expected


def find_installed(environment):
    where = environment(
        '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'
    )
    return Path(where.strip())


def test_install(environment, source):
    environment(*PIP_INSTALL, source)
    site_packages = find_installed(environment)
    assert_complete(site_packages / 'mmdet_longtail', source)
    information = next(site_packages.glob('mmdet_longtail-*.dist-info'))
    assert (information / 'top_level.txt').read_text() == 'mmdet_longtail\n'
    scripts = (information / 'entry_points.txt').read_text()
    assert 'longtail = mmdet_longtail.cli.main:main' in scripts
    metadata = (information / 'METADATA').read_text()
    for name in ('torch', 'mmcv', 'mmengine', 'mmdet'):
        assert f'Requires-Dist: {name}\n' not in metadata
        assert f'Requires-Dist: {name}>' not in metadata


def test_install_of_sdist(environment, source, tmp_path):
    environment('setup.py', '-q', 'sdist', '-d', tmp_path, cwd=source)
    (sdist,) = tmp_path.glob('*.tar.gz')
    environment(*PIP_INSTALL, sdist)
    site_packages = find_installed(environment)
    assert_complete(site_packages / 'mmdet_longtail', source)


def test_editable_install_follows_edits(environment, source):
    environment(*PIP_INSTALL, '--editable', source)
    package = source / 'mmdet_longtail'
    (source / 'configs' / 'mine.py').write_text('a = 1\n')
    assert_complete(package, source, is_linked=True)
    assert (package / '.mim' / 'configs').is_symlink()


def imported_names(folder):
    """Return the top-level names of all imports below a folder."""
    found = set()
    for path in folder.glob('**/*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split('.')[0])
    return found - set(sys.stdlib_module_names)


def test_what_is_imported_is_required(source):
    """By `pip install .`, an extra, or the check of the stack."""
    shutil.rmtree(source / 'tools' / 'benchmarks')
    imported = imported_names(source / 'mmdet_longtail')
    imported |= imported_names(source / 'tools')
    lines = (source / 'requirements' / 'runtime.txt').read_text().splitlines()
    required = {
        re.split('[<>=]', line)[0]
        for line in lines
        if line and not line.startswith('#')
    }
    assert imported >= required - {'pillow'}
    elsewhere = {
        *('torch', 'mmengine', 'mmcv', 'mmdet', 'mmdet_longtail'),
        *('mmpretrain', 'torchvision', 'lvis', 'cv2'),  # extras
        'pandas',  # of to_frame
        *('PIL', 'markupsafe', 'contourpy'),  # of pillow, jinja2, matplotlib
    }
    assert imported <= required | elsewhere


# ------------------------------------------------------- check of versions


def version(number):
    return f'__version__ = {number!r}\n'


def import_error(folder, setup='', ops='', **contents):
    """Import the package beside stubs; return the last line printed.

    Args:
        folder (Path): Where the stubs are written.
        setup (str): What runs before the import.
        ops (str, optional): Content of mmcv._ext, None for no such module.
        contents (str): Content of a stub, where it is not a fitting version.
    """
    stack = dict(
        torch='2.13.0', mmengine='0.10.7', mmcv='2.1.0', mmdet='3.3.0'
    )
    for name, number in stack.items():
        (folder / name).mkdir()
        (folder / name / '__init__.py').write_text(
            contents.get(name, version(number))
        )
    if ops is not None:
        (folder / 'mmcv' / '_ext.py').write_text(ops)
    status, output = run(
        sys.executable,
        '-c',
        f'{setup}\nimport mmdet_longtail',
        PYTHONPATH=f'{folder}{os.pathsep}{CHECKOUT}',
    )
    assert status == 1, output
    (line,) = output.splitlines()
    assert line.startswith('error: mmdet_longtail needs mmcv 2.1.x')
    assert 'onedl-mmcv' in line
    assert '`make setup`' in line
    return line


def without(*names):
    return 'import sys; ' + '; '.join(
        f'sys.modules[{name!r}] = None' for name in names
    )


@pytest.mark.parametrize(
    'contents, expected',
    [
        (dict(setup=without('mmcv')), 'mmcv not installed, mmdet 3.3.0;'),
        (dict(setup=without('torch')), 'found torch not installed, mmengine'),
        (dict(ops=None), 'mmcv 2.1.0 without ops, mmdet 3.3.0;'),
        (
            dict(ops='raise ImportError("undefined symbol: _ZN3c105")'),
            'another torch (undefined symbol: _ZN3c105)',
        ),
        (
            dict(mmdet='assert False, "MMCV==2.2.0 is used.\\nInstall."'),
            'mmdet not importable (MMCV==2.2.0 is used.)',
        ),
    ],
)
def test_import_with_an_incomplete_stack(tmp_path, contents, expected):
    assert expected in import_error(tmp_path, **contents)


def test_import_without_mmdet_registers_nothing(tmp_path):
    names = ('torch', 'mmengine', 'mmcv', 'mmdet')
    program = f'{without(*names)}\nimport mmdet_longtail.structures'
    run_well(sys.executable, '-c', program, cwd=CHECKOUT)


@pytest.mark.parametrize(
    'versions',
    [
        dict(mmcv='2.2.0'),
        dict(mmdet='3.2.0'),
        dict(mmengine='0.10.5'),
        dict(mmcv='2.3.6', mmengine='0.10.12'),
        dict(mmdet='3.5.1', mmengine='0.10.12'),
        dict(mmcv='1.7.2', mmdet='2.28.2'),
    ],
)
def test_import_with_other_versions(tmp_path, versions):
    line = import_error(
        tmp_path,
        **{name: version(number) for name, number in versions.items()},
    )
    for name, number in versions.items():
        assert f'{name} {number}' in line


# ------------------------------------------------------------------- make

needs_make = pytest.mark.skipif(
    shutil.which('make') is None, reason='make is not installed'
)


def make_executable(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def error_line(output):
    (line,) = [
        line for line in output.splitlines() if line.startswith('error: ')
    ]
    return line


@needs_make
def test_make_without_compiler(source, tmp_path):
    programs = tmp_path / 'programs'
    programs.mkdir()
    for name in ('make', 'sh', 'cat', 'grep', 'echo', 'dirname', 'env'):
        (programs / name).symlink_to(shutil.which(name))
    status, output = run(
        'make',
        'setup',
        f'PYTHON={sys.executable}',
        cwd=source,
        PATH=programs,
        CXX='c++',
    )
    assert status != 0
    assert 'no C++ compiler (c++)' in error_line(output)
    assert 'apt install build-essential' in error_line(output)
    assert not (source / '.venv').exists()


@needs_make
@pytest.mark.parametrize(
    'script, expected',
    [
        ('echo 3.13', 'is Python 3.13, 3.10 to 3.12 is needed'),
        (
            'case $2 in *ensurepip*) exit 1;; *) echo 3.11;; esac',
            'apt install python3.11-venv',
        ),
    ],
)
def test_make_with_unfit_python(source, tmp_path, script, expected):
    python = make_executable(tmp_path / 'python', f'#!/bin/sh\n{script}\n')
    status, output = run('make', 'setup', f'PYTHON={python}', cwd=source)
    assert status != 0
    assert expected in error_line(output)


FAKE_PYTHON = """#!/bin/sh
echo "$*" >> {folder}/calls.log
if [ -n "$FAIL_ON" ]; then case "$*" in *$FAIL_ON*) exit 1;; esac; fi
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"cache dir") echo {folder}/cache ;;
    *version_info*) echo 3.11 ;;
    *cpp_extension*) echo 2.13.0+fake ;;
    *" download "*) cp {folder}/mmcv.tar.gz .venv*/mmcv/2.13.0+fake/ ;;
    "setup.py "*) echo "[1/2] c++ first"; echo "[2/2] c++ second"
        mkdir "$4" && touch "$4/mmcv.whl" ;;
    *" --find-links "*) ls {folder}/cache/mmcv-for-torch/*/mmcv.whl ;;
esac
"""


@pytest.fixture
def fake_setup(source, tmp_path):
    """Run `make setup` with a Python that only writes down its arguments."""
    log = tmp_path / 'calls.log'
    python = make_executable(
        tmp_path / 'python', FAKE_PYTHON.format(folder=tmp_path)
    )
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / 'setup.py').write_text('')
    with tarfile.open(tmp_path / 'mmcv.tar.gz', 'w:gz') as archive:
        archive.add(tmp_path / 'mmcv', 'mmcv')

    def setup(*options, fail_on=''):
        log.write_text('')
        status, output = run(
            'make',
            'setup',
            f'PYTHON={python}',
            *options,
            cwd=source,
            FAIL_ON=fail_on,
            CXX='sh',
        )
        assert (status == 0) == (not fail_on), output
        calls = [
            line.removeprefix('-m pip --disable-pip-version-check ')
            for line in log.read_text().splitlines()
        ]
        return [
            call.removeprefix('install ').removeprefix('setup.py ')
            for call in calls
            if call.startswith(('install ', 'setup.py '))
        ], output

    return setup


@needs_make
@pytest.mark.parametrize(
    'stack, names',
    [
        ('openmmlab', ['torch==2.13.0', 'mmengine==0.10.7', 'mmcv==2.1.0']),
        (
            'onedl',
            ['torch==2.13.0', 'onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6'],
        ),
        (
            'classification',
            ['torch==2.14.1', 'mmpretrain==1.2.0', 'mmcv==2.1.0'],
        ),
        ('mim', ['torch==2.13.0', 'openmim==0.3.9', 'mmcv==2.1.0']),
    ],
)
def test_make_installs_the_pinned_stack(fake_setup, stack, names):
    installs, output = fake_setup(f'STACK={stack}')
    _, torch, others, opencv, cached, compiled, mmcv, package = installs
    assert torch == names[0]
    assert names[1] in others.split()
    assert names[0] not in others.split()
    assert opencv == '--no-deps opencv-python-headless==5.0.0.93'
    assert mmcv.endswith(f'/mmcv-for-torch/2.13.0+fake {names[2]}')
    assert cached == mmcv
    assert compiled.startswith('bdist_wheel')
    assert 'compiled 1 of 2' in output
    editable = '--force-reinstall' if stack == 'mim' else '--editable'
    assert package.endswith(f'{editable} .')


@needs_make
@pytest.mark.parametrize(
    'step, done',
    [
        ('wheel', 0),
        ('torch==', 1),
        ('lvis==', 2),
        ('headless==', 3),
        ('bdist_wheel', 4),
        ('editable', 7),
    ],
)
def test_make_goes_on_after_an_interruption(fake_setup, step, done):
    everything = 8
    interrupted, _ = fake_setup(fail_on=step)
    assert any(step in call for call in interrupted[done:])
    resumed, _ = fake_setup()
    assert len(resumed) == everything - done
    assert fake_setup()[0] == []


@needs_make
def test_make_names_the_log_when_mmcv_does_not_compile(fake_setup):
    _, output = fake_setup(fail_on='bdist_wheel')
    line = error_line(output)
    assert 'mmcv==2.1.0 did not compile; the log is /' in line
    assert Path(line.split('the log is ')[1]).is_file()
