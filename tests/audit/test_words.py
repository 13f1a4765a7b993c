"""Durations as people say them, against generated ones."""

import datetime as dt
import re

from hypothesis import example, given
from hypothesis import strategies as st

from audit.templatetags.keyturn import duration

UNITS = {"day": 1440, "hour": 60, "minute": 1}


@given(st.integers(min_value=0, max_value=60 * 24 * 400), st.integers(0, 59))
@example(0, 0)
@example(1, 0)
@example(60, 0)
@example(1440, 59)
def test_words_say_the_duration_to_the_minute(minutes: int, seconds: int) -> None:
    words = duration(dt.timedelta(minutes=minutes, seconds=seconds))
    if minutes == 0:
        assert words == "less than a minute"
        return
    parts = re.findall(r"(\d+) (day|hour|minute)(s?)", words)
    assert " ".join(f"{n} {unit}{s}" for n, unit, s in parts) == words
    assert sum(int(n) * UNITS[unit] for n, unit, _ in parts) == minutes
    assert all((s == "") == (n == "1") for n, _, s in parts)
    assert "0" not in {n for n, _, _ in parts}
