"""``ghostnets tables``: tables of the papers, published and counted values side by side."""

from rich.table import Table

from ghostnets.bench.papers import TABLES, PaperTable, count_row
from ghostnets.cli.options.tables import TablesCommand
from ghostnets.cli.output import print_json, result_console

__all__ = ["run"]


def run(command: TablesCommand) -> int:
    if command.json:
        print_json([_as_dict(table) for table in TABLES])
        return 0
    console = result_console()
    for table in TABLES:
        rendered = Table("network", "params (M)", "counted", "MACs (M)", "counted", *table.results)
        for column in rendered.columns[1:]:
            column.justify = "right"
        for row in table.rows:
            cost = count_row(row, table.image_size)
            params, macs = ("", "") if cost is None else (f"{cost[0]:.2f}", f"{cost[1]:.1f}")
            published = [_cell(row.params), params, _cell(row.macs), macs]
            rendered.add_row(row.name, *published, *map(_cell, row.results))
        console.print(f"{table.title} ({table.source})", style="bold", soft_wrap=True)
        console.print(rendered)
        if table.remark:
            console.print(table.remark, soft_wrap=True)
        console.print()
    console.print(
        "MACs are multiply-adds of convolutions and linear layers (FLOPs in the papers). Accuracies are published by"
        " others, not measured here.",
        soft_wrap=True,
    )
    return 0


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _as_dict(table: PaperTable) -> dict[str, object]:
    rows = []
    for row in table.rows:
        cost = count_row(row, table.image_size)
        values = {key: value for key, value in vars(row).items() if key != "build"}
        rows.append({**values, "counted_params": cost and cost[0], "counted_macs": cost and cost[1]})
    return {
        "title": table.title,
        "source": table.source,
        "results": table.results,
        "image_size": table.image_size,
        "remark": table.remark,
        "rows": rows,
    }
