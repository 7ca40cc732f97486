"""Training scripts with autologging work unchanged, and what they log can be registered, loaded and asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from .conftest import Server

SCRIPT = """
    import json, sys
    import mlflow, numpy as np
    from sklearn.datasets import make_classification
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment("autolog")
    features, truth = make_classification(200, 4, random_state=0)
    {fit}
    run = mlflow.last_active_run()
    (model,) = run.outputs.model_outputs
    uri = f"models:/{{model.model_id}}"
    version = mlflow.register_model(uri, "{name}")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("{name}", "best", version.version)
    loaded = mlflow.pyfunc.load_model("models:/{name}@best")
    again = mlflow.pyfunc.load_model(f"runs:/{{run.info.run_id}}/model")
    answer = np.asarray(loaded.predict(features[:5])).tolist()
    assert answer == np.asarray(again.predict(features[:5])).tolist()
    print(json.dumps({{
        "metrics": run.data.metrics, "params": run.data.params, "status": run.info.status, "answer": answer,
        "datasets": [item.dataset.name for item in run.inputs.dataset_inputs],
        "expected": np.asarray(direct).tolist(), "version": version.version,
        "artifacts": [item.path for item in client.list_logged_model_artifacts(model.model_id)]
        if hasattr(client, "list_logged_model_artifacts") else None,
    }}))
"""
FITS = {
    "sklearn": """
    from sklearn.linear_model import LogisticRegression
    mlflow.sklearn.autolog()
    direct = LogisticRegression(C=0.5).fit(features, truth).predict(features[:5])
    """,
    "xgboost": """
    import xgboost
    mlflow.xgboost.autolog()
    data = xgboost.DMatrix(features, truth)
    made = xgboost.train({"max_depth": 2, "objective": "binary:logistic"}, data, 5, evals=[(data, "train")])
    direct = made.predict(xgboost.DMatrix(features[:5]))
    """,
    "lightgbm": """
    import lightgbm
    mlflow.lightgbm.autolog()
    data = lightgbm.Dataset(features, truth)
    made = lightgbm.train({"num_leaves": 4, "objective": "binary", "verbose": -1}, data, 5, valid_sets=[data])
    direct = made.predict(features[:5])
    """,
}
PARAM = {"sklearn": ("C", "0.5"), "xgboost": ("max_depth", "2"), "lightgbm": ("num_leaves", "4")}
METRIC = {"sklearn": "training_accuracy_score", "xgboost": "train-logloss", "lightgbm": "training-binary_logloss"}


@pytest.mark.parametrize(
    ("server", "library"),
    [("sqlite", "sklearn"), ("postgresql", "sklearn"), ("sqlite", "xgboost"), ("sqlite", "lightgbm")],
    indirect=["server"],
)
def test_autologging(server: Server, tmp_path: Path, library: str) -> None:
    script = tmp_path / "train.py"
    fit = textwrap.indent(textwrap.dedent(FITS[library]).strip(), "    ").strip()
    script.write_text(textwrap.dedent(SCRIPT.format(fit=fit, name=f"auto {library}")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), server.url],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        # MLflow would import the model again in a process of its own to list its packages; then it takes its defaults.
        env={**os.environ, "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    key, value = PARAM[library]
    assert told["params"][key] == value
    assert METRIC[library] in told["metrics"]
    assert told["status"] == "FINISHED"
    assert told["datasets"]
    assert told["answer"] == pytest.approx(told["expected"], abs=1e-6)
    assert told["version"] == "1"
