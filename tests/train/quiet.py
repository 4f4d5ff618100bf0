"""Training without progress output and report, which most tests do not need."""

from functools import partial

from ghostnets.train import start

train_model = partial(start.train_model, progress=False, report=False)
resume_training = partial(start.resume_training, progress=False, report=False)
