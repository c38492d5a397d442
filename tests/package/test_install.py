"""install.sh and what it leaves behind, run for real in a root of its own (see container.py)."""

import re
import shutil

import pytest

from . import container

PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.fixture(scope="module")
def machine(packaged, side_by_side, tmp_path_factory):
    """A machine on which the cron target's install.sh was run, for texts in two languages."""
    container.needed()
    model = f"{side_by_side[0]},sentiment-zh"
    folder = packaged("batch", "cron", model=model, input="reviews.csv", output="scored.csv")
    container.hashed(folder)
    root = container.Root(tmp_path_factory.mktemp("machine") / "root")
    (root.path / "etc" / "cron.d").mkdir(exist_ok=True)
    shutil.copytree(folder, root.inside("/deploy"))
    command = root.command(["./install.sh"], env={**PATH, **container.index()}, cwd="/deploy")
    done = container.ran(command, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return root


def user(machine):
    passwd = machine.inside("/etc/passwd").read_text("utf-8")
    return re.search(r"(?m)^bert-batch:[^:]*:(\d+:\d+):", passwd)[1]


def test_the_crontabs_line_runs_as_its_user(machine):
    home = machine.inside("/var/lib/bert-batch")
    texts = ["Arrived in two days and works like a charm.", "很好吃，下次还来", "太差了"]
    (home / "reviews.csv").write_text("\n".join(["review", *texts]), "utf-8")
    crontab = machine.inside("/etc/cron.d/bert-batch").read_text("utf-8").splitlines()
    *_, name, program = crontab[-1].split()
    assert crontab[-1].startswith("0 2 * * * ")
    assert name == "bert-batch"
    command = machine.command([program], env=PATH, user=user(machine), network=False)
    done = container.ran(command)
    assert (done.returncode, done.stdout) == (0, ""), done  # no mail
    header, *rows = (home / "scored.csv").read_text("utf-8").splitlines()
    assert header.startswith("review,label,score")
    assert [row.partition(",")[0] for row in rows] == [text.partition(",")[0] for text in texts]

    (home / "reviews.csv").unlink()
    done = container.ran(command)
    assert done.returncode == 2
    assert "ended with code 2" in done.stdout  # the mail, with the reason
    assert "reviews.csv" in done.stdout


def test_the_user_can_change_nothing_of_the_program(machine):
    command = machine.command(
        ["/bin/sh", "-c", "echo x >> /opt/bert-batch/batch.yaml"], env=PATH, user=user(machine)
    )
    done = container.ran(command)
    assert done.returncode
    assert "ermission denied" in done.stderr
