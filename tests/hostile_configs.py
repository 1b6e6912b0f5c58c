"""Settings of a model that a stranger might send."""

import base64
import copy
import json
import marshal
import pickle

from tests.hostile_archives import Spy


def _object(module, name, registered=None, **config):
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": registered,
    }


def _function(module, name):
    return _object(module, "function", name) | {"config": name}


def objects(secret):
    """Objects that Keras would make, by what they are."""
    code = compile("__import__('os').system('touch pwned')", "x", "eval")
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {
        "class_name": "__lambda__",
        "config": {"value": [text, None, None], "code": text},
    }
    layers = "keras.layers"
    return {
        "lambda": function,
        "lambda layer": _object(layers, "Lambda", function=function),
        "os.system": _function("os", "system"),
        "load_model": _function("keras.saving", "load_model"),
        "class of os": _object("os", "system", command="touch pwned"),
        "get_file": _object(
            "keras.utils", "get_file", fname="x", origin=f"file://{secret}"
        ),
        "lookup": _object(layers, "StringLookup", vocabulary=secret),
        "saved model": _object(layers, "TFSMLayer", filepath=secret),
        "dense": _object(layers, "Dense", units=2**40),
        "quantized": _object("keras", "QuantizedDTypePolicy", mode="int8"),
        "typespec": _object("os", "__typespec__") | {"spec_name": "system"},
        "registered for ours": _object("os", "system", "acnn_tf>ACNN"),
        "large layer of ours": _object(
            "acnn_tf.layers", "LocalizationHead", "acnn_tf>LocalizationHead"
        ),
        "layer with an object": _object(
            "acnn_tf.layers",
            "AttentionPooling",
            "acnn_tf>AttentionPooling",
            activation=_function("os", "system"),
        ),
        "no name": {"config": {}},
        "list of names": {"module": ["os"], "class_name": ["system"]},
    }


def configs(config, secret):
    """Bytes of `config.json` by what is wrong with them."""
    found = {}

    def add(what, part, name, value):
        changed = copy.deepcopy(config)
        changed[part][name] = value
        found[what] = changed

    for what, hostile in objects(secret).items():
        found[f"{what} for the model"] = hostile
        for name in ("scorer_activation", "context_pooling", "dtype"):
            add(f"{what} as {name}", "config", name, hostile)
    settings = {
        "filters": [2**40, 2**52, 10**6, 10**9, -1, "8", None, [8], 1e300],
        "word_dim": [10**9],
        "embedding_dim": [10**6, 2**31],
        "query_units": [10**7],
        "hidden_dim": [10**8],
        "kernel_sizes": [[1] * 10**5, [10**12 + 1], [2], 1, "abc"],
        "context_size": [3],
        "window_lengths": ["abc", []],
        "vocabulary": [["a", "a"], [f"w{i}" for i in range(150_000)], "x"],
        "context_pooling": ["max", ["mean"]],
        "layers": [[]],
        "name": [["x"], {"a": 1}],
        "dtype": ["float13"],
    }
    for name, values in settings.items():
        for number, value in enumerate(values):
            add(f"setting {name} {number}", "config", name, value)
    for number, shape in enumerate(
        [
            {"clip": [None, None, 10**12], "query": [None, None]},
            {"clip": [None, None, 10**7], "query": [None, None]},
            [2**62],
        ]
    ):
        add(f"shape {number}", "build_config", "input_shape", shape)
    found = {what: json.dumps(one).encode() for what, one in found.items()}
    text = json.dumps(config)
    texts = {
        "nested": "[" * 100_000 + "]" * 100_000,
        "nested objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
        "nan": text.replace('"dropout": 0.3', '"dropout": NaN'),
        "infinity": text.replace('"dropout": 0.3', '"dropout": -Infinity'),
        "overflow": text.replace('"dropout": 0.3', '"dropout": 1e999'),
        "huge integer": text.replace('"filters": 5', '"filters": 1' + "0" * 30),
        "digits": text.replace('"filters": 5', '"filters": ' + "9" * 10**6),
        "empty": "",
        "list": f"[{text}]",
        "string": '"acnn_tf>ACNN"',
        "object": "{}",
        "null": "null",
        "cut": text[:-1],
        "more": text + text,
        "large": text + " " * (20 * 2**20),
        "lists": '{"a": [' + "[]," * 600_000 + "[]]}",
        "pickle": pickle.dumps(Spy()).decode("latin-1"),
    }
    assert text not in texts.values()
    return found | {what: one.encode() for what, one in texts.items()}
