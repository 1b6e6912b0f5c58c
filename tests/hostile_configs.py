"""Settings of a model that a stranger might send."""

import base64
import copy
import json
import marshal
import pickle

from tests.hostile_archives import Spy


def _function(module, name, registered=None):
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": registered or name,
    }


def _object(module, name, **config):
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": None,
    }


def _lambda():
    code = compile("__import__('os').system('touch pwned')", "x", "eval")
    text = base64.b64encode(marshal.dumps(code)).decode()
    return {
        "class_name": "__lambda__",
        "config": {"value": [text, None, None], "code": text},
    }


def objects(secret):
    """Objects that no model has, by what they are."""
    layers = "keras.layers"
    return {
        "lambda": _lambda(),
        "lambda layer": _object(layers, "Lambda", function=_lambda()),
        "os.system": _function("os", "system"),
        "subprocess": _function("subprocess", "Popen"),
        "builtins": _function("builtins", "eval"),
        "builtin activation": _function("builtins", "relu"),
        "class of os": _object("os", "system", command="touch pwned"),
        "get_file": _object(
            "keras.utils", "get_file", fname="x", origin=f"file://{secret}"
        ),
        "get_file function": _function("keras.utils", "get_file"),
        "load_model": _function("keras.saving", "load_model"),
        "internal": _object("keras.src.layers.core.lambda_layer", "Lambda"),
        "keras_hub": _object("keras_hub.models", "Backbone"),
        "lookup": _object(layers, "StringLookup", vocabulary=secret),
        "saved model": _object(layers, "TFSMLayer", filepath=secret),
        "dense": _object(layers, "Dense", units=2**40),
        "quantized": _object("keras", "QuantizedDTypePolicy", mode="int8"),
        "no module": {"class_name": "Adam", "config": {}},
        "numpy": {
            "class_name": "__numpy__",
            "config": {"value": [], "dtype": "O"},
        },
        "tensor": {
            "class_name": "__tensor__",
            "config": {"value": 0, "dtype": "int8"},
        },
        "typespec": {
            "class_name": "__typespec__",
            "module": "os",
            "spec_name": "system",
            "registered_name": None,
            "config": [],
        },
        "registered for ours": {
            **_object("os", "system"),
            "registered_name": "acnn_tf>ACNN",
        },
        "ours for registered": {
            **_object("acnn_tf.models.acnn", "ACNN"),
            "registered_name": "os>system",
        },
        "shared": {
            **_object("keras.optimizers", "Adam"),
            "shared_object_id": 1,
        },
        "built": {
            **_object("keras.optimizers", "Adam"),
            "build_config": {"input_shape": [2**40, 2**40]},
        },
        "list of names": {"module": ["os"], "class_name": ["system"]},
    }


def configs(config, secret):
    """Bytes of `config.json` by what is wrong with them."""
    places = {
        "scorer_activation": ("config",),
        "vocabulary": ("config",),
        "dtype": ("config",),
        "loss": ("compile_config",),
        "optimizer": ("compile_config",),
        "input_shape": ("build_config",),
    }
    found = {}
    for what, hostile in objects(secret).items():
        found[f"{what} for the model"] = hostile
        for name, (part,) in places.items():
            changed = copy.deepcopy(config)
            changed.setdefault(part, {})[name] = hostile
            found[f"{what} in {name}"] = changed
    settings = {
        "filters": [2**40, 2**52, 10**6, -1, "8", None, [8], 1e300],
        "word_dim": [10**9],
        "embedding_dim": [10**6, 2**31],
        "query_units": [10**7],
        "hidden_dim": [10**8],
        "kernel_sizes": [[1] * 10**6, [10**12 + 1], [2]],
        "window_lengths": [[1.0] * 10**5, "abc", []],
        "vocabulary": [["a", "a"], [f"w{i}" for i in range(150_000)], "x"],
        "layers": [[]],
        "name": [["x"], {"a": 1}],
        "dtype": ["float13"],
    }
    for name, values in settings.items():
        for number, value in enumerate(values):
            changed = copy.deepcopy(config)
            changed["config"][name] = value
            found[f"setting {name} {number}"] = changed
    for number, shape in enumerate(
        [
            {"clip": [None, None, 10**12], "query": [None, None]},
            {"clip": [None, None, 10**7], "query": [None, None]},
            {"clip": [1] * 10**5, "query": []},
            [2**62],
            "x",
            None,
        ]
    ):
        changed = copy.deepcopy(config)
        changed["build_config"] = {"input_shape": shape}
        found[f"shape {number}"] = changed
    changed = copy.deepcopy(config)
    changed["build_config"] = {"shapes_dict": {"a": [2**40]}}
    found["shapes"] = changed
    for layers in ([], [_object("keras.layers", "Lambda")]):
        changed = copy.deepcopy(config)
        changed["config"] = {
            "name": "x",
            "layers": layers,
            "input_layers": [],
            "output_layers": [],
        }
        found[f"functional {len(layers)}"] = changed
    found = {what: json.dumps(one).encode() for what, one in found.items()}
    text = json.dumps(config)
    texts = {
        "nested": "[" * 100_000 + "]" * 100_000,
        "nested a little": '{"a":' + "[" * 40 + "]" * 40 + "}",
        "nested objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
        "key twice": text[:-1] + ', "module": "os"}',
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
    encoded = {what: one.encode() for what, one in texts.items()}
    assert all(one != text.encode() for one in encoded.values())
    encoded["not utf-8"] = text.encode("utf-16")
    encoded["byte order"] = text.encode("utf-8-sig")
    return {**found, **encoded}
