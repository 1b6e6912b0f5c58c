"""Rows of a benchmark, as a table and as a picture."""

# Heading, entry of a row, and how to print it.
COLUMNS = [
    ("ratio", "ratio", "{:.1f}x"),
    ("memory", "memory_ratio", "{:.1f}x"),
    ("error", "max_relative_error", "{:.0e}"),
    ("of GEMM", "gemm_share", "{:.0%}"),
    ("ms", "seconds", "{:,.2f}"),
    ("other ms", "other_seconds", "{:,.2f}"),
    ("MB", "memory_mb", "{:,.1f}"),
    ("other MB", "other_memory_mb", "{:,.1f}"),
    # Not ours nor the other's: processes that disturbed.
    ("busy", "cpu_share_of_others", "{:.0%}"),
]


def table(rows):
    """Rows as aligned lines, with `-` where something does not apply."""
    cells = [["part", "case", "against", *(column[0] for column in COLUMNS)]]
    for row in rows:
        cells.append([row["part"], row["case"], row["against"]])
        for _, key, form in COLUMNS:
            value = row.get(key)
            if value is not None and key.endswith("seconds"):
                value *= 1000
            cells[-1].append("-" if value is None else form.format(value))
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line[:3], widths)]
        padded += [c.rjust(width) for c, width in zip(line[3:], widths[3:])]
        yield "  ".join(padded).rstrip()
    for row in rows:
        if "codes" in row:
            yield (
                f"{row['case']}: {row['sent_per_second']:.1f} requests/s sent, "
                f"{row['answered_per_second']:.1f} answered ({row['codes']}), "
                f"p50 {1000 * (row['seconds'] or 0):.0f} ms, "
                f"p95 {1000 * (row['p95'] or 0):.0f} ms, "
                f"p99 {1000 * (row['p99'] or 0):.0f} ms, server's memory "
                f"{row['server_rss_mb'][0]:.0f} to "
                f"{row['server_rss_mb'][-1]:.0f} MB"
            )


def draw(path, rows):
    """Draws the ratios as bars from 1, on a logarithmic axis."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.get("ratio")]
    labels = [f"{r['part']}: {r['case']}, against {r['against']}" for r in rows]
    ratios = [row["ratio"] for row in rows]
    parts = list(dict.fromkeys(row["part"] for row in rows))
    figure = Figure(figsize=(11, 1.2 + 0.3 * len(rows)), layout="constrained")
    axis = figure.subplots()
    colours = [f"C{parts.index(row['part'])}" for row in rows]
    widths = [ratio - 1 for ratio in ratios]
    axis.barh(range(len(rows)), widths, left=1, color=colours)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    for place, ratio in enumerate(ratios):
        # To the right of short bars too, clear of the names.
        end = max(ratio, 1) * 1.05
        axis.text(end, place, f"{ratio:.3g}x", verticalalignment="center")
    axis.set_yticks(range(len(rows)), labels)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=1)
    axis.margins(x=0.15, y=0.02)
    axis.set_xlabel("times as long as ours (to the right of 1, ours is faster)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
