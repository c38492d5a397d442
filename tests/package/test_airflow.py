"""The DAG, read and run by Airflow itself, in an environment of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlopsdeploy.package.machines import airflow

# Reads the DAG as Airflow's scheduler does, then runs its task's operator.
SCRIPT = """
import json, runpy, sys, warnings
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException

found = runpy.run_path(sys.argv[1])
[dag] = [value for value in found.values() if isinstance(value, DAG)]
[task] = dag.tasks
said = {
    "dag": dag.dag_id, "schedule": dag.schedule, "retries": task.retries, "cwd": task.cwd,
    "catchup": dag.catchup, "active": dag.max_active_runs, "command": task.command,
}
task.command, task.cwd, task.env = json.loads(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
for _ in range(int(sys.argv[5])):
    try:
        said["output"] = task.execute({})
        said["ended"] = "done"
    except AirflowFailException as error:
        said["ended"] = "failed for good"
    except AirflowException as error:
        said["ended"] = "to be tried again"
print("@" + json.dumps(said))
"""


@pytest.fixture(scope="session")
def airflow_python(environment):
    return environment("airflow", "apache-airflow>=3.0,<4")


@pytest.fixture
def run(airflow_python, plan, tmp_path):
    """`run(command)` has the DAG's operator run a command instead of the installed one."""
    [dag] = [text for path, text in airflow(plan("batch", "airflow")).items() if ".py" in path]
    path = tmp_path / "dag.py"
    path.write_text(dag, "utf-8")

    def execute(command, times=1):
        env = {**os.environ, "PATH": str(Path(sys.executable).parent) + ":/usr/bin:/bin"}
        done = subprocess.run(
            [
                str(airflow_python), "-c", SCRIPT, str(path), json.dumps(command), str(tmp_path),
                json.dumps(env), str(times),
            ],
            capture_output=True, text=True, check=False, timeout=200,
            env={**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.rpartition("@")[2])

    return execute


def test_airflow_reads_the_dag_and_its_task_scores(run, customers, churn_onnx):
    said = run(
        [sys.executable, "-m", "mlopsdeploy", "batch", str(customers), "-m", str(churn_onnx)]
    )
    assert said["dag"] == "fraud-batch"
    assert said["schedule"] == "0 2 * * *"
    assert (said["retries"], said["catchup"], said["active"]) == (3, False, 1)
    assert said["command"][:2] == ["/opt/fraud-batch/venv/bin/mlopsdeploy", "batch"]
    assert said["ended"] == "done"
    rows = customers.with_name("customers.predictions.csv").read_text("utf-8").splitlines()
    assert len(rows) == 51


@pytest.mark.parametrize(
    ("code", "ended"),
    [(2, "failed for good"), (1, "to be tried again"), (143, "to be tried again")],
)
def test_exit_codes_are_understood(run, code, ended):
    assert run(["/bin/sh", "-c", f"exit {code}"])["ended"] == ended
