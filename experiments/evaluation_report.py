"""One page about an evaluation: tables, curves, the best and worst queries.

The page is a file of its own: it loads nothing and runs nothing, so that it can
be sent, kept and opened anywhere. Whatever comes from a dataset is escaped.
"""

import base64
import html

import numpy as np

import acnn_tf
from acnn_tf.files.atomic import write_text

# Answers of a query, and queries of each kind, that are shown.
_NUM_ANSWERS, _NUM_QUERIES = 5, 5
# Of the curves over k, and of the best answers that count as right.
_KS, _CURVE_IOUS, _RIGHT = range(1, 11), (0.3, 0.5, 0.7), 0.5
# What tables are called on the page.
_NAMES = {
    "model": "the model",
    "predictions": "the predictions",
    "shuffled": "the model, with shuffled sentences",
    "chance": "windows at random",
}


def write(
    path,
    *,
    title,
    facts,
    tables,
    moments,
    predictions,
    protocol,
    frames_of=lambda moment: None,
    curve_of=None,
    texts=(),
):
    """Writes the page.

    Args:
        path: Path of the file, `.html`.
        title: Dataset and split in words.
        facts: Dictionary of what else stands at the top, such as the model.
        tables: Dictionary from `"model"` or `"predictions"`, then `"shuffled"`
            and `"chance"`, to what `acnn_tf.evaluation.evaluate` returned.
        moments: List of `Moment`.
        predictions: For each moment `[N, 3]`: start, end, score, best first.
        protocol: `suppression` and `nms_threshold` of the evaluation.
        frames_of: Function from a `Moment` to frames of its video, or `None`.
        curve_of: Function from a `Moment` to `(times, scores)`, or none; see
            `acnn_tf.evaluation.score_curve`.
        texts: List of further tables, as text.
    """
    ious = sorted({*acnn_tf.evaluation.IOUS, *acnn_tf.evaluation.MAP_IOUS})
    hits = acnn_tf.evaluation.query_hits(
        moments, predictions, ns=_KS, ious=ious, **protocol
    )
    videos = {moment.video_id for moment in moments}
    facts = {
        "queries": f"{len(moments):,}",
        "videos": f"{len(videos):,}",
        **facts,
    }
    best, worst = _choose(hits["iou"], predictions)
    num_silent = sum(not len(predicted) for predicted in predictions)

    def queries(rows):
        return "".join(
            _query(
                moments[row],
                predictions[row],
                {name: values[row] for name, values in hits.items()},
                frames_of(moments[row]),
                curve_of(moments[row]) if curve_of else None,
            )
            for row in rows
        )

    main = next(iter(tables.values()))
    parts = [
        f"<h1>Moment retrieval: {_escape(title)}</h1>",
        _facts(facts),
        _headline(main),
        "<h2>Recall</h2>",
        f"<p>Of {len(moments):,} queries, % with one of the first n answers "
        "at this IoU or more. Suppression of answers that overlap: "
        f"{_escape(main['protocol'])}.</p>",
        _tables(tables),
        *(f"<pre>{_escape(text)}</pre>" for text in texts),
        '<div class="charts">',
        _recall_over_iou(hits, ious, tables.get("chance")),
        _recall_over_k(hits),
        "</div>",
        "<h2>The best queries</h2>",
        "<p>Those whose first answer fits best.</p>",
        queries(best),
        "<h2>The worst queries</h2>",
        "<p>Those whose first answer fits worst; of equals, those with the "
        "highest scores, where it was most sure.</p>",
        queries(worst),
    ]
    if num_silent:
        parts.append(
            f"<p>{num_silent:,} queries have no answer and count as misses: "
            "the model knows none of their words, or there is no prediction."
            "</p>"
        )
    body = "\n".join(parts)
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{_escape(title)}: {len(moments):,} queries</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
<footer>Made by acnn_tf {acnn_tf.__version__}, experiments.evaluate.</footer>
</main>
</body>
</html>
""",
    )


def _escape(text):
    return html.escape(str(text))


def _choose(iou, predictions):
    """Rows of the best queries, and of the worst, none of them in both."""
    answered = np.flatnonzero([len(predicted) for predicted in predictions])
    score = np.array([predictions[row][0][2] for row in answered], float)
    iou = iou[answered]
    count = min(_NUM_QUERIES, (len(answered) + 1) // 2)
    best = np.lexsort((-score, -iou))[:count]
    worst = [
        place
        for place in np.lexsort((-score, iou))[:_NUM_QUERIES]
        if place not in best
    ]
    return answered[best], answered[worst]


def _facts(facts):
    items = "".join(
        f"<div><dt>{_escape(name)}</dt><dd>{_escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>'


def _headline(results):
    names = ("R@1,IoU=0.5", "R@1,IoU=0.7", "mIoU", "mAP")
    items = "".join(
        f"<div><dt>{name.replace(',', ', ')}</dt>"
        f"<dd>{_percent(results[name])}&thinsp;%</dd></div>"
        for name in names
        if name in results
    )
    return f'<dl class="headline">{items}</dl>'


def _percent(fraction):
    return f"{100 * fraction:.1f}"


def _tables(tables):
    ious = acnn_tf.evaluation.IOUS
    heading = "".join(f'<th scope="col">{m:g}</th>' for m in ious)
    groups = []
    for name, results in tables.items():
        miou = f"mIoU {_percent(results['mIoU'])}"
        groups.append(
            f'<tbody><tr><th colspan="{len(ious) + 1}" scope="rowgroup">'
            f"{_escape(_NAMES.get(name, name))}, {miou}</th></tr>"
        )
        for n in acnn_tf.evaluation.NS:
            cells = "".join(
                f"<td>{_percent(results[f'R@{n},IoU={m:g}'])}</td>"
                for m in ious
            )
            groups.append(f'<tr><th scope="row">R@{n}</th>{cells}</tr>')
        groups.append("</tbody>")
    return (
        '<div class="wide"><table><thead><tr><th scope="row">IoU</th>'
        f"{heading}</tr></thead>{''.join(groups)}</table></div>"
    )


def _recall_over_iou(hits, ious, chance):
    series = {
        f"R@{n}": [(m, hits[f"R@{n},IoU={m:g}"].mean()) for m in ious]
        for n in acnn_tf.evaluation.NS
    }
    if chance:
        series["R@1 at random"] = [
            (m, chance[f"R@1,IoU={m:g}"]) for m in acnn_tf.evaluation.IOUS
        ]
    return _chart(
        "Recall over IoU",
        "IoU of the answer and the truth",
        series,
        [(m, f"{m:g}") for m in (0.1, 0.3, 0.5, 0.7, 0.9)],
    )


def _recall_over_k(hits):
    series = {
        f"IoU ≥ {m:g}": [(k, hits[f"R@{k},IoU={m:g}"].mean()) for k in _KS]
        for m in _CURVE_IOUS
    }
    return _chart(
        "Recall over the number of answers",
        "answers that count",
        series,
        [(k, str(k)) for k in _KS],
    )


def _chart(title, xlabel, series, ticks):
    """A figure of lines, `{name: [(x, fraction)]}`, from 0 to 100 %."""
    left, right, top, bottom = 44, 348, 10, 200
    places = [x for points in series.values() for x, _ in points]
    low, high = min(places), max(places)

    def x_of(value):
        return left + (right - left) * (value - low) / (high - low or 1)

    def y_of(fraction):
        return bottom - (bottom - top) * fraction

    parts = []
    for quarter in range(5):
        y = y_of(quarter / 4)
        parts.append(
            f'<path class="grid" d="M{left} {y:.1f}H{right}"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{25 * quarter} %</text>"
        )
    parts += [
        f'<text x="{x_of(x):.1f}" y="{bottom + 18}" text-anchor="middle">'
        f"{label}</text>"
        for x, label in ticks
    ]
    parts.append(
        f'<text x="{(left + right) / 2}" y="{bottom + 36}" '
        f'text-anchor="middle">{_escape(xlabel)}</text>'
    )
    legend, said = [], []
    for number, (name, points) in enumerate(series.items()):
        line = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line s{number}" points="{line}"/>')
        legend.append(
            '<li><svg class="key" viewBox="0 0 28 8" aria-hidden="true">'
            f'<path class="line s{number}" d="M0 4H28"/></svg>'
            f"{_escape(name)}</li>"
        )
        (first, start), (last, end) = points[0], points[-1]
        said.append(
            f"{name}: {_percent(start)} % at {first:g}, {_percent(end)} % at "
            f"{last:g}"
        )
    label = _escape(f"{title}. {'; '.join(said)}.")
    return (
        f"<figure><figcaption>{_escape(title)}</figcaption>"
        f'<svg viewBox="0 0 360 242" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
        f'<ul class="legend">{"".join(legend)}</ul></figure>'
    )


def _query(moment, predicted, hits, frames, curve):
    rank = next((k for k in _KS if hits[f"R@{k},IoU={_RIGHT}"]), None)
    about = [
        f"<b>IoU {hits['iou']:.2f}</b>",
        f"first right answer (IoU ≥ {_RIGHT}): "
        + (f"#{rank}" if rank else "none of ten"),
        f"video {_escape(moment.video_id)}, {moment.duration:.1f} s",
        f"query {_escape(moment.query_id)}",
    ]
    return (
        f"<article><h3>“{_escape(moment.query.strip())}”</h3>"
        f"<p>{' · '.join(about)}</p>"
        f"{_timeline(moment, predicted[:_NUM_ANSWERS], frames, curve)}"
        "</article>"
    )


def _timeline(moment, predicted, frames, curve):
    """Bars of the truth and of the answers, on the time of the video."""
    duration = moment.duration

    def bar(kind, start, end):
        left = 100 * start / duration
        width = 100 * (end - start) / duration
        return f'<i class="{kind}" style="left:{left:.2f}%;width:{width:.2f}%">'

    shade = "".join(f"{bar('shade', *s)}</i>" for s in moment.segments)
    truth = "".join(f"{bar('truth', *s)}</i>" for s in moment.segments)
    rows, said = [], []
    if frames is not None:
        rows.append(_row("", f'<div class="frames">{_images(frames)}</div>'))
    rows.append(_row("truth", f'<div class="track">{truth}</div>'))
    said += [
        f"truth {start:.1f} to {end:.1f} s" for start, end in moment.segments
    ]
    for rank, (start, end, score) in enumerate(predicted, start=1):
        found = f"{bar('best' if rank == 1 else 'next', start, end)}</i>"
        rows.append(
            _row(
                f"#{rank}",
                f'<div class="track">{shade}{found}</div>',
                f"{score:.2f}",
            )
        )
        said.append(f"answer {rank} {start:.1f} to {end:.1f} s")
    if curve is not None and len(curve[0]) > 1:
        rows.append(
            _row("score", f'<div class="curve">{shade}{_curve(curve)}</div>')
        )
    rows.append(_row("", f'<div class="axis">{_ticks(duration)}</div>', "s"))
    label = _escape("; ".join(said))
    return (
        f'<div class="timeline" role="img" aria-label="{label}">'
        f"{''.join(rows)}</div>"
    )


def _row(label, content, number=""):
    return (
        f'<div class="row"><span>{label}</span>{content}'
        f"<span>{number}</span></div>"
    )


def _ticks(duration):
    """Labels of about five round times."""
    step = 10.0 ** np.floor(np.log10(duration / 2))
    step *= next(f for f in (1, 2, 5, 10) if duration / (f * step) <= 6)
    return "".join(
        f'<span style="left:{100 * time / duration:.2f}%">{time:g}</span>'
        for time in np.arange(0, 0.97 * duration, step)
    )


def _curve(curve):
    times, scores = (np.asarray(values, float) for values in curve)
    span = scores.max() - scores.min()
    # From one end of the video to the other: each score is of a step.
    step = times[1] - times[0]
    x = 100 * (times - times[0] + step / 2) / (times[-1] - times[0] + step)
    y = 36 - 32 * (scores - scores.min()) / (span or 1)
    points = " ".join(f"{a:.2f},{b:.1f}" for a, b in zip(x, y))
    return (
        '<svg viewBox="0 0 100 40" preserveAspectRatio="none" '
        f'aria-hidden="true"><polyline points="{points}"/></svg>'
    )


def _images(frames):
    """A few frames as images, within the page."""
    import tensorflow as tf

    height, width = frames.shape[1:3]
    count = int(np.clip(round(9 * height / width), 1, 12))
    count = min(count, len(frames))
    index = (np.arange(count) + 0.5) / count * len(frames)
    is_small = height < 64
    step = 1 if is_small else max(1, round(width / 180))
    images = []
    for frame in frames[index.astype(int)]:
        pixels = np.ascontiguousarray(frame[::step, ::step])
        kind, encode = "jpeg", tf.io.encode_jpeg
        if is_small:  # as sharp as it is
            kind, encode = "png", tf.io.encode_png
        data = base64.b64encode(encode(pixels).numpy()).decode()
        images.append(
            f'<img alt="" class="{kind}" width="{pixels.shape[1]}" '
            f'height="{pixels.shape[0]}" '
            f'src="data:image/{kind};base64,{data}">'
        )
    return "".join(images)


_STYLE = """
:root { color-scheme: light dark;
  --page: #fff; --ink: #1b1d1f; --pale: #5b6168; --rule: #d9dce0;
  --card: #f5f6f8; --truth: #009e73; --best: #0072b2; --next: #8fbfdd;
  --s1: #d55e00; --s2: #00815e; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171a; --ink: #e6e8ea; --pale: #a3abb3; --rule: #3b4249;
  --card: #1d2226; --truth: #2cc295; --best: #56b4e9; --next: #35627f;
  --s1: #ff9b5c; --s2: #3fd3a6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.45 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .6rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem; }
h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
p { margin: .2rem 0 .8rem; color: var(--pale); }
b { color: var(--ink); }
dl { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; margin: 0; }
dt { color: var(--pale); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.headline { margin-top: 1.2rem; gap: .8rem; }
.headline div { flex: 1 1 7rem; background: var(--card); padding: .6rem .8rem;
  border-radius: .5rem; }
.headline dd { font-size: 1.5rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .4rem; text-align: right; white-space: nowrap; }
th { font-weight: 500; color: var(--pale); }
th[scope=row], th[scope=rowgroup] { text-align: left; }
th[scope=rowgroup] { color: var(--ink); font-weight: 600;
  border-top: 1px solid var(--rule); padding-top: .7rem;
  white-space: normal; }
pre { overflow-x: auto; background: var(--card); padding: .8rem;
  border-radius: .5rem; font-size: .8rem; }
.charts { display: grid; gap: 1.2rem; margin-top: 1.4rem;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
figure { margin: 0; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
figure > svg { width: 100%; height: auto; font-size: 12px; }
text { fill: var(--pale); }
.grid { stroke: var(--rule); }
.line { fill: none; stroke-width: 2.2; stroke: var(--best); }
.s1 { stroke: var(--s1); stroke-dasharray: 7 3; }
.s2 { stroke: var(--s2); stroke-dasharray: 2 3; }
.s3 { stroke: var(--pale); stroke-dasharray: 1 4; }
.legend { list-style: none; display: flex; flex-wrap: wrap; margin: 0;
  padding: 0 0 0 2rem; gap: .2rem 1.1rem; font-size: .85rem; }
.key { width: 28px; height: 8px; margin-right: .4rem; }
article { background: var(--card); border-radius: .5rem; padding: .8rem;
  margin: 0 0 .9rem; }
article p { font-size: .85rem; margin: .1rem 0 .6rem;
  overflow-wrap: anywhere; }
.row { display: grid; gap: .4rem; align-items: center;
  grid-template-columns: 2.7rem minmax(0, 1fr) 3.2rem;
  font-size: .8rem; color: var(--pale);
  font-variant-numeric: tabular-nums; }
.row > span:last-child { text-align: right; }
.frames { display: flex; gap: 2px; margin-bottom: .3rem; }
.frames img { flex: 1 1 0; min-width: 0; max-width: 10rem; height: auto; }
.frames .png { image-rendering: pixelated; }
.track, .curve { position: relative; height: 1.15rem; overflow: hidden; }
.curve { height: 3rem; border-bottom: 1px solid var(--rule); }
.curve svg { position: absolute; width: 100%; height: 100%; }
.curve polyline { fill: none; stroke: var(--best); stroke-width: 2;
  vector-effect: non-scaling-stroke; }
i { position: absolute; top: .15rem; bottom: .15rem; min-width: 2px;
  border-radius: 2px; }
.shade { top: 0; bottom: 0; background: var(--truth); opacity: .16;
  border-radius: 0; }
.truth { background: var(--truth); } .best { background: var(--best); }
.next { background: var(--next); }
.axis { position: relative; height: 1.2rem; }
.axis span { position: absolute; transform: translateX(-50%); }
.axis span:first-child { transform: none; }
@media (max-width: 30rem) {
  table { font-size: .8rem; }
  th, td { padding: .3rem .15rem; }
  .row { grid-template-columns: 2.2rem minmax(0, 1fr) 2.4rem; gap: .3rem; }
  /* Every other one, so that they can be made out. */
  .frames img:nth-child(even) { display: none; } }
footer { margin-top: 2.5rem; color: var(--pale); font-size: .85rem; }
"""
