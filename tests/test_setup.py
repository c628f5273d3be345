"""Packaging, the check of versions, and set-up by make."""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
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


def assert_complete(package, source):
    expected = {
        f'.mim/{name}/{path}'
        for name in ('configs', 'tools')
        for path in files_below(source / name)
    }
    expected |= {
        path
        for path in files_below(source / 'mmdet_longtail')
        if not path.startswith('.mim/')
    }
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
    metadata = (information / 'METADATA').read_text()
    for name in ('torch', 'mmcv', 'mmengine', 'mmdet'):
        assert f'Requires-Dist: {name}\n' not in metadata
        assert f'Requires-Dist: {name}>' not in metadata


def test_install_of_sdist_and_wheel(environment, source, tmp_path):
    packed = tmp_path / 'packed'
    environment('setup.py', '-q', 'sdist', '-d', packed, cwd=source)
    (sdist,) = packed.glob('*.tar.gz')
    unpacked = tmp_path / 'unpacked'
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked)
    (root,) = unpacked.iterdir()
    assert_complete(root / 'mmdet_longtail', source)

    environment(
        '-m',
        'pip',
        'wheel',
        '--no-deps',
        '--no-build-isolation',
        '--no-index',
        '-w',
        packed,
        root,
    )
    (wheel,) = packed.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        assert 'mmdet_longtail/.mim/tools/train.py' in archive.namelist()
    environment(*PIP_INSTALL, wheel)
    site_packages = find_installed(environment)
    assert_complete(site_packages / 'mmdet_longtail', source)


def test_editable_install_follows_edits(environment, source):
    environment(*PIP_INSTALL, '--editable', source)
    package = source / 'mmdet_longtail'
    (source / 'configs' / 'mine.py').write_text('a = 1\n')
    assert_complete(package, source)
    assert (package / '.mim' / 'configs').is_symlink()


def test_packing_keeps_the_links_of_an_editable_install(environment, source):
    environment(*PIP_INSTALL, '--editable', source)
    environment('setup.py', '-q', 'sdist', cwd=source)
    assert (source / 'mmdet_longtail' / '.mim' / 'configs').is_symlink()


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
    line = output.splitlines()[-1]
    assert line.startswith('ImportError: mmdet_longtail needs mmcv 2.1.x')
    assert 'onedl-mmcv' in line
    assert '`make setup`' in line
    return line


def without(*names):
    return 'import sys; ' + '; '.join(
        f'sys.modules[{name!r}] = None' for name in names
    )


def test_import_without_mmcv_and_mmdet(tmp_path):
    line = import_error(tmp_path, without('mmcv', 'mmdet'))
    assert 'mmcv not installed, mmdet not' in line


def test_import_without_anything(tmp_path):
    line = import_error(
        tmp_path, without('torch', 'mmengine', 'mmcv', 'mmdet')
    )
    assert 'found torch not installed, mmengine not installed, ' in line


def test_import_with_mmcv_without_ops(tmp_path):
    line = import_error(tmp_path, ops=None)
    assert 'mmcv 2.1.0 without ops, mmdet 3.3.0;' in line


def test_import_with_the_real_mmcv_without_ops():
    status, output = run(
        sys.executable,
        '-c',
        'import sys; sys.modules["mmcv._ext"] = None; import mmdet_longtail',
        cwd=CHECKOUT,
    )
    assert status == 1
    assert ' without ops, mmdet 3.' in output.splitlines()[-1]


def test_import_with_ops_of_another_torch(tmp_path):
    line = import_error(
        tmp_path, ops='raise ImportError("undefined symbol: _ZN3c105")'
    )
    assert 'another torch (undefined symbol: _ZN3c105)' in line


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


def test_import_with_an_mmdet_that_refuses_mmcv(tmp_path):
    line = import_error(
        tmp_path, mmdet='assert False, "MMCV==2.2.0 is used.\\nInstall."'
    )
    assert 'mmdet not importable (MMCV==2.2.0 is used.)' in line


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
def test_make_without_python_headers(source, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(
        'import sysconfig\nsysconfig.get_path = lambda name: "/nowhere"\n'
    )
    status, output = run(
        'make',
        'setup',
        f'PYTHON={sys.executable}',
        cwd=source,
        PYTHONPATH=tmp_path,
        CXX='sh',
    )
    assert status != 0
    version = '.'.join(map(str, sys.version_info[:2]))
    assert 'has no Python.h' in error_line(output)
    assert f'apt install python{version}-dev' in error_line(output)
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


@needs_make
def test_make_without_python(source):
    status, output = run('make', 'setup', 'PYTHON=no-python', cwd=source)
    assert status != 0
    assert 'no no-python runs here' in error_line(output)


@needs_make
def test_make_with_unknown_stack(source):
    status, output = run('make', 'setup', 'STACK=other', cwd=source)
    assert status != 0
    assert "STACK is 'other', expected openmmlab, onedl, cl" in output


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
def test_make_has_nothing_to_do_the_second_time(fake_setup):
    fake_setup()
    installs, output = fake_setup()
    assert installs == []
    assert '/6]' not in output


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
def test_make_with_another_torch_rebuilds_what_needs_it(fake_setup):
    fake_setup()
    wanted = 'torch>=2.6 --index-url https://example.org/whl'
    torch, mmcv, package = fake_setup(f'TORCH={wanted}')[0]
    assert torch == wanted
    assert mmcv.endswith('mmcv==2.1.0')
    assert package.endswith('--editable .')
    assert fake_setup()[0] == []


@needs_make
def test_make_compiles_mmcv_once_for_a_torch(fake_setup, source):
    fake_setup()
    shutil.rmtree(source / '.venv')
    installs, output = fake_setup()
    assert not any('bdist_wheel' in call for call in installs)
    assert 'compiled' not in output


@needs_make
def test_make_names_the_log_when_mmcv_does_not_compile(fake_setup):
    _, output = fake_setup(fail_on='bdist_wheel')
    line = error_line(output)
    assert 'mmcv==2.1.0 did not compile; the log is /' in line
    assert Path(line.split('the log is ')[1]).is_file()


def test_ci_runs_make_test(source, tmp_path):
    make_executable(tmp_path / 'make', '#!/bin/sh\necho "$PWD: $*"; exit 7\n')
    status, output = run(
        'bash',
        source / '.ci' / 'run',
        cwd=tmp_path,
        PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
    )
    assert (status, output.strip()) == (7, f'{source}: test')
