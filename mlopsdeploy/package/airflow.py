"""A DAG for Airflow 3 on workers that have the program installed: no Docker, no cluster."""

from __future__ import annotations

from mlopsdeploy.package.images import model_list
from mlopsdeploy.package.kubernetes import shortest_gap
from mlopsdeploy.package.plan import Plan
from mlopsdeploy.package.rendering import render
from mlopsdeploy.package.systemd import install_script


def airflow(plan: Plan) -> dict[str, str]:
    """The DAG, and the script that installs what it runs."""
    return {
        f"dags/{plan.name.replace('-', '_')}.py": render(
            "dag.py.j2",
            plan,
            dag_id=plan.name,
            description=f"mlopsdeploy batch: {model_list(plan)}",
            gap=shortest_gap(plan.schedule),
        ),
        "install.sh": install_script(
            plan,
            [],
            [f"install -d -o \"${{AIRFLOW_USER:-airflow}}\" '/var/lib/{plan.name}'"],
            static_user=False,
        ),
    }
