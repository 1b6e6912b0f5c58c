"""Tables, as Markdown and as CSV."""

import csv
import io

from acnn_tf.files.atomic import write_text


def markdown(heading, rows):
    """A table in Markdown, of strings.

    >>> print(markdown(["", "mIoU"], [["ours", "0.4"]]))
    |  | mIoU |
    |---|---|
    | ours | 0.4 |
    """
    lines = [f"| {' | '.join(cells)} |" for cells in [heading, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(heading), *lines[1:]])


def write_csv(path, rows):
    """Replaces a CSV file by dictionaries; what one lacks is left empty."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
