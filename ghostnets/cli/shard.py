"""``ghostnets shard FOLDER OUT``: pack a folder of images into shards for streaming."""

from ghostnets.cli.options.shard import ShardCommand
from ghostnets.cli.output import message, print_json, progress_bars, result_console
from ghostnets.data import DataSpec, ImageFolder, check_val_share, describe_source, summarize_source, write_shards
from ghostnets.errors import DataError

__all__ = ["run"]


def run(command: ShardCommand) -> int:
    source = DataSpec(command.folder, skip_corrupt=command.skip_corrupt).open(
        val_share=command.val_share, seed=command.seed
    )
    if not isinstance(source, ImageFolder):
        raise DataError(f"{command.folder} holds shards already; pass images as for train.")
    if command.val_share != ShardCommand.val_share:
        check_val_share(source, command.val_share)
    for sentence in describe_source(source):
        message(sentence)
    with progress_bars() as bars:
        task = bars.add_task("packing images", total=source.num_images)
        shards, skipped = write_shards(
            source,
            command.target,
            images_per_shard=command.images_per_shard,
            seed=command.seed,
            max_pixels=command.max_pixels,
            on_image=lambda: bars.advance(task),
        )
    splits = {
        name: {"shards": len(files), "images": sum(len(f.labels) for f in files), "bytes": sum(f.bytes for f in files)}
        for name, files in shards.splits.items()
    }
    if skipped:
        message(f"unreadable images left out: {len(skipped)}: {' '.join(skipped[:5])}")
    if command.json:
        print_json({"folder": shards.root, "parts": splits, "skipped": skipped, "data": summarize_source(source)})
    else:
        for name, numbers in splits.items():
            size = f"{numbers['bytes'] / 1e6:,.1f} MB"
            result_console().print(f"{name:<6}{numbers['images']:>10,} images, shards: {numbers['shards']}, {size}")
        result_console().print(f"train on them: ghostnets train {command.target}", soft_wrap=True)
    return 0
