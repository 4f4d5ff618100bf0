"""One artefact at work: its networks, and what it wants images to be like."""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets.data import Preprocessing, decode
from ghostnets.errors import CheckpointError, ImageError
from ghostnets.predict import Predictor, load_predictor
from ghostnets.serve.batching import Batcher
from ghostnets.serve.settings import Settings

__all__ = ["Model", "open_model"]
