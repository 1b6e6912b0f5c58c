"""Which versions of a model there are, and those that take requests."""

import gc
import os
import threading
import weakref

from absl import logging
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_status_pb2

from export.protocol.errors import ServingError
from export.protocol.signatures import Servable
from export.protocol.version_numbers import version_number

_State = get_model_status_pb2.ModelVersionStatus.State


class Versions:
    """Serves the newest versions in a folder and watches for newer ones.

    A version is a folder whose name is an integer, with a `saved_model.pb`.
    Where there are more than `num_versions`, a new one is loaded and warmed up
    beside the old ones and then takes the place of the oldest at once; that
    one goes when the last request on it is answered. A version that does not
    load is tried again once its files have changed. Inputs of its warm-up
    requests have `max_bytes` at most.
    """

    def __init__(self, model_name, base_path, max_bytes, num_versions=1):
        self.model_name = model_name
        self._base_path = base_path
        self._max_bytes = max_bytes
        self._num_versions = num_versions
        self._serving = {}  # replaced, never changed: others read it
        self._no_versions = set()  # folders that were told of
        # Of each version its state and, if it failed, the error.
        self._states = {}
        self._failed = {}  # version -> its files when it failed
        self._leaving = {}  # version -> weak reference to its servable
        self._stop = threading.Event()

    def watch(self, seconds):
        """Looks for versions from a thread of its own, until `stop`."""

        def poll():
            while not self._stop.wait(seconds):
                try:
                    self.poll()
                except Exception:
                    logging.exception("Looking for versions failed.")

        threading.Thread(target=poll, name="versions", daemon=True).start()

    def stop(self):
        """Ends the watching and reports what is there as unloading."""
        self._stop.set()

    def poll(self):
        """Looks for versions once and loads the newest that load."""
        self._forget_left()
        newest = []
        for version in sorted({*self._serving, *self._find()}, reverse=True):
            if len(newest) == self._num_versions:
                break
            if version in self._serving or self._try(version):
                newest.append(version)

    def _find(self):
        """Versions whose folders are there."""
        try:
            names = os.listdir(self._base_path)
        except OSError:
            return []
        found = []
        for name in names:
            path = os.path.join(self._base_path, name, "saved_model.pb")
            if not name.isdecimal() or not os.path.isfile(path):
                continue
            version = version_number(name)
            if version is not None:
                found.append(version)
            elif name not in self._no_versions:
                self._no_versions.add(name)
                logging.warning(
                    "%s is no version: expected an integer below 2**63 "
                    "without leading zeros. Rename the folder.",
                    os.path.dirname(path),
                )
        return found

    def _try(self, version):
        """Whether a version loads that has not failed with the same files."""
        path = os.path.join(self._base_path, str(version))
        files = _files(path)
        if self._failed.get(version) == files:
            return False
        if self._load(path, version):
            self._failed.pop(version, None)
            return True
        self._failed[version] = files
        return False

    def _load(self, path, version):
        self._states[version] = _State.LOADING, None
        logging.info("Loading version %d from %s", version, path)
        try:
            servable = Servable(path, version)
            count = servable.warm_up(self._max_bytes)
        except Exception as error:
            logging.exception("Version %d does not load: %s", version, path)
            self._states[version] = _State.END, error
            return False
        serving = {**self._serving, version: servable}
        left = sorted(serving)[: -self._num_versions]
        self._leaving |= {old: weakref.ref(serving.pop(old)) for old in left}
        self._serving = serving
        self._states[version] = _State.AVAILABLE, None
        self._states |= dict.fromkeys(left, (_State.UNLOADING, None))
        logging.info("Serving version %d, %d warm-ups", version, count)
        return True

    def _forget_left(self):
        """Notes which old versions no request holds any more."""
        if self._leaving:
            # A loaded SavedModel refers to itself, and so do errors: of
            # requests whose client went away, for example.
            gc.collect()
        for version, servable in list(self._leaving.items()):
            if servable() is None:
                del self._leaving[version]
                self._states[version] = _State.END, None
                logging.info("Version %d is unloaded", version)

    @property
    def available(self):
        """List of the versions that take requests."""
        return sorted(self._serving)

    def find(self, model_spec):
        """Returns the servable that a `ModelSpec` asks for."""
        version = self._version_of(model_spec)
        serving = self._serving
        if version is None:
            version = max(serving)
        unknown = None
        if version not in serving:
            unknown = f"version {version}"
        elif model_spec.version_label:
            unknown = f"version label `{model_spec.version_label[:100]}`"
        if unknown:
            raise ServingError(
                "NOT_FOUND",
                f"The model `{self.model_name}` has no {unknown}. Ask for one "
                f"of the versions {sorted(serving)}, or for none in "
                "particular.",
            )
        return serving[version]

    def _version_of(self, model_spec):
        """The version that a `ModelSpec` names, or None."""
        if model_spec.name != self.model_name:
            raise ServingError(
                "NOT_FOUND",
                f"There is no model `{model_spec.name[:100]}` here, only "
                f"`{self.model_name}`.",
            )
        version = model_spec.version.value
        if not model_spec.HasField("version") or (
            # Some clients write 0 where they mean none in particular.
            version == 0 and 0 not in self._states
        ):
            return None
        return version

    def status(self, model_spec):
        """Returns a `GetModelStatusResponse`, the newest version first."""
        version = self._version_of(model_spec)
        states = dict(self._states)
        if version is not None:
            if version not in states:
                raise ServingError(
                    "NOT_FOUND",
                    f"The model `{self.model_name}` has no version {version}. "
                    f"There are {sorted(states)}.",
                )
            states = {version: states[version]}
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, error) in sorted(states.items(), reverse=True):
            if self._stop.is_set() and state == _State.AVAILABLE:
                state = _State.UNLOADING
            status = response.model_version_status.add(
                version=version, state=state
            ).status
            status.error_code = error_codes_pb2.OK
            if error is not None:
                status.error_code = getattr(
                    error, "error_code", error_codes_pb2.UNKNOWN
                )
                status.error_message = str(error)[:1000]
        return response


def _files(path):
    """Names, sizes and times of all files: they differ while some is copied."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            try:
                stat = os.stat(file)
            except OSError:
                continue
            found.append((file, stat.st_size, stat.st_mtime_ns))
    return sorted(found)
