.PHONY: install test slow lint train tensorboard

install:
	pip install -c constraints.txt -e ".[dev]"

test:
	pytest

slow:
	pytest -m slow

lint:
	ruff check . && ruff format --check . && mypy

train:
	python scripts/train.py env=cartpole dist=bernoulli

tensorboard:
	tensorboard --logdir outputs
