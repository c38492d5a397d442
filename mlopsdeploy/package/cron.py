"""A nightly run by cron: a crontab for /etc/cron.d and the script that it calls."""

from __future__ import annotations

from mlopsdeploy.package.plan import Plan
from mlopsdeploy.package.rendering import render
from mlopsdeploy.package.systemd import install_script


def cron(plan: Plan) -> dict[str, str]:
    """The crontab, the script that keeps a log, and the one that installs both."""
    crontab = f"{plan.name}.cron"
    installed = [
        ("run.sh", f"{plan.home}/run.sh", 755),
        (crontab, f"/etc/cron.d/{plan.name}", 644),
    ]
    return {
        crontab: render("crontab.j2", plan),
        "run.sh": render("run_batch.sh.j2", plan),
        "install.sh": install_script(plan, installed, [], static_user=True),
    }
