"""Tables, as Markdown and as CSV."""

import csv

from acnn_tf.files.atomic import replacing


def markdown(heading, rows):
    """A table in Markdown.

    Args:
        heading: List of strings.
        rows: Lists of strings.

    Returns:
        String.

    Example:

    >>> print(markdown(["", "mIoU"], [["ours", "0.4"]]))
    |  | mIoU |
    |---|---|
    | ours | 0.4 |
    """
    lines = [f"| {' | '.join(cells)} |" for cells in [heading, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(heading), *lines[1:]])


def write_csv(path, rows):
    """Replaces a CSV file.

    Args:
        path: File.
        rows: List of dictionaries; what a row lacks is left empty.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    with (
        replacing(path) as partial,
        open(partial, "w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
