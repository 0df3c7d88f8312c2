.PHONY: install test slow faults lint audit extras lowest newest train tensorboard

install:
	pip install -c constraints.txt -e ".[dev]"

test:
	pytest -n auto

slow:
	pytest -n auto -m slow

faults:
	pytest -m faults

lint:
	ruff check . && ruff format --check . && mypy

audit:
	bash .ci/audit

extras:
	python .ci/extras

lowest newest:
	bash .ci/versions $@

train:
	python scripts/train.py env=cartpole dist=bernoulli

tensorboard:
	tensorboard --logdir outputs
