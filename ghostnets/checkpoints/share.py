"""Checkpoints on the Hugging Face hub: upload with a model card, and download."""

import json
import os

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from ghostnets.checkpoints.fetch import HUB_PREFIX, download
from ghostnets.checkpoints.load import read_checkpoint
from ghostnets.checkpoints.save import Checkpoint
from ghostnets.errors import CheckpointError
from ghostnets.files import find_checkpoint

__all__ = ["from_hub", "model_card", "push_to_hub"]

WEIGHTS_FILE = "model.safetensors"
MAX_CLASSES = 50  # names in a card
PIPELINES = {  # by task: the hub's name for it
    "classify": "image-classification",
    "detect": "object-detection",
    "segment": "image-segmentation",
}


def push_to_hub(
    path: str | os.PathLike[str], repository: str, *, private: bool = True, token: str | None = None
) -> str:
    """Upload a checkpoint as ``model.safetensors``, and a model card unless the repository has one, in one commit.

    Args:
        path: Checkpoint of this package, such as ``runs/NAME/best.safetensors``, or the folder of the run.
        repository: ``"OWNER/NAME"``; created if there is none.
        private: Whether a new repository can be read by its owner only; an existing one keeps its visibility.
        token: Access token with the right to write; by default that of ``hf auth login``.

    Returns:
        URL of the commit.

    Raises:
        CheckpointError: The file is not a checkpoint of this package, or the hub rejects it or cannot be reached.
    """
    path = find_checkpoint(path)
    card = model_card(read_checkpoint(path, task=None), repository)
    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        files = [CommitOperationAdd(WEIGHTS_FILE, path)]
        if not api.file_exists(repository, "README.md"):
            files.append(CommitOperationAdd("README.md", card.encode()))
        return str(api.create_commit(repository, files, commit_message=f"{WEIGHTS_FILE} by ghostnets").commit_url)
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} could not be uploaded to {repository} ({reason}); check the name OWNER/NAME, the network, and that"
            " 'hf auth login' or token= gives the right to write."
        ) from error


def from_hub(repository: str) -> Checkpoint:
    """Download the checkpoint that ``push_to_hub`` uploaded, unless it is cached.

    Args:
        repository: ``"OWNER/NAME"``.

    Returns:
        The checkpoint; its ``build()`` makes the network, and its ``task`` says what it is for.

    Raises:
        CheckpointError: There is no network or no such repository, or its file is not a checkpoint of this package.
    """
    return read_checkpoint(download(f"{HUB_PREFIX}{repository}"), task=None)


def model_card(checkpoint: Checkpoint, repository: str) -> str:
    """Model card (Markdown with the hub's YAML header) generated from the metadata of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        repository: ``"OWNER/NAME"``, for the example.
    """
    names = checkpoint.class_names
    shown = ", ".join(json.dumps(name, ensure_ascii=False) for name in names[:MAX_CLASSES])
    more = f", and {len(names) - MAX_CLASSES} more" if len(names) > MAX_CLASSES else ""
    facts = {
        "architecture": {checkpoint.architecture: checkpoint.arguments},
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "training": checkpoint.training,
    }
    pipeline = PIPELINES[checkpoint.task]
    details = "\n".join(
        f"**{title}**\n\n```json\n{json.dumps(value, indent=2)}\n```\n" for title, value in facts.items() if value
    )
    return f"""---
library_name: ghostnets
pipeline_tag: {pipeline}
tags: [ghostnet, {pipeline}]
---
# {repository.rpartition("/")[2]}

A `{checkpoint.architecture}` with {len(names)} classes: {shown}{more}.

```python
from ghostnets.checkpoints import from_hub

network = from_hub({json.dumps(repository)}).build()
```

To be added by the owner: intended uses and limitations; source and terms of the images; licence.

{details}"""
