"""The bar that a terminal shows: one line that says what is done, how much of it, how fast, and how long it takes."""

from tqdm import tqdm

from components.progress import Progress

_FORMAT = '{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}'


def _format_rate(progress: Progress) -> str:
    if progress.unit == 'bytes':
        return f'{progress.per_second / 1e6:.1f} MB/s'
    return f'{progress.per_second:.{0 if progress.per_second >= 100 else 1}f}/s'


def make_bar(work: Progress, outer: list[Progress], width: int, *, is_ascii: bool) -> str:
    """Draws a bar, such as 'frozen layers  32%|██▌     | 3200/10000, 34.8/s, 03:15 left'.

    Args:
      work: what is being done.
      outer: the work that it is part of; how long that takes is shown too, if there is room.
      width: columns, which the bar fills and never exceeds.
      is_ascii: whether the terminal shows only ASCII.
    """
    if not work.total:
        return work.to_sentence()[:width]
    parts = [_format_rate(work) if work.per_second else f'{tqdm.format_interval(work.seconds)} so far']
    if work.seconds_left is not None:
        parts.append(f'{tqdm.format_interval(work.seconds_left)} left')
    parts += [f'{tqdm.format_interval(each.seconds_left or 0)} in all' for each in outer]
    bar: str = tqdm.format_meter(
        min(work.done, work.total),
        work.total,
        work.seconds,
        ncols=width,
        prefix=work.what,
        ascii=is_ascii,
        unit='',
        unit_scale=work.unit == 'bytes',
        bar_format=_FORMAT,
        postfix=', '.join(parts),
    )
    return bar
