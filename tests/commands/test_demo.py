import subprocess
import sys

import pytest
from django.conf import settings


@pytest.mark.slow
def test_the_demo_plays_to_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "demo", "--quiet-start"],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every step did what it says." in done.stdout
