"""The DAG, read and run by Airflow itself, in an environment of its own."""

import json
import os
import sys
from pathlib import Path

import pytest

from mlopsdeploy.package.machines import airflow

from .container import ran

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
task.cwd, task.env = sys.argv[3], json.loads(sys.argv[4])
said["ended"] = []
for task.command in json.loads(sys.argv[2]):
    try:
        task.execute({})
        said["ended"].append("done")
    except AirflowFailException as error:
        said["ended"].append("failed for good")
    except AirflowException as error:
        said["ended"].append("to be tried again")
print("@" + json.dumps(said))
"""


@pytest.fixture(scope="session")
def airflow_python(environment):
    return environment("airflow", "apache-airflow>=3.0,<4")


@pytest.fixture
def run(airflow_python, plan, tmp_path):
    """`run(command, ...)` has the DAG's operator run commands instead of the installed one."""
    [dag] = [text for path, text in airflow(plan("batch", "airflow")).items() if ".py" in path]
    path = tmp_path / "dag.py"
    path.write_text(dag, "utf-8")

    def execute(*commands):
        env = {**os.environ, "PATH": str(Path(sys.executable).parent) + ":/usr/bin:/bin"}
        arguments = [str(path), json.dumps(commands), str(tmp_path), json.dumps(env)]
        home = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "airflow")}
        done = ran([str(airflow_python), "-c", SCRIPT, *arguments], timeout=200, env=home)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.rpartition("@")[2])

    return execute


def test_airflow_reads_the_dag_and_its_task_scores(run, customers, churn_onnx):
    """And whether what a command's exit code says is worth another try."""
    batch = [sys.executable, "-m", "mlopsdeploy", "batch", str(customers), "-m", str(churn_onnx)]
    said = run(batch, *(["/bin/sh", "-c", f"exit {code}"] for code in (2, 1, 143)))
    assert said["dag"] == "fraud-batch"
    assert said["schedule"] == "0 2 * * *"
    assert (said["retries"], said["catchup"], said["active"]) == (3, False, 1)
    assert said["command"][:2] == ["/opt/fraud-batch/venv/bin/mlopsdeploy", "batch"]
    assert said["ended"] == ["done", "failed for good", *["to be tried again"] * 2]
    rows = customers.with_name("customers.predictions.csv").read_text("utf-8").splitlines()
    assert len(rows) == 51
