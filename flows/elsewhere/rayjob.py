"""A KubeRay RayJob from the spec: one run of `apply`, on a Ray cluster that is made for it and goes with it. KubeRay 1.5.1 or later.

Identities and surroundings are those of infra/kubernetes: the service accounts `ray-head` and `ray-worker`, which have the right to the
store, and the ConfigMap `revector-environment`, if there is one. KubeRay makes the cluster's token.
"""

import importlib.metadata
import math
import re
import shlex
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

from flows.elsewhere.submission import CONFIG, MODELS, refuse_local
from flows.show.lines import JSON_LINES
from pipelines.errors import SpecError
from pipelines.spec.declared import Spec
from pipelines.spec.parsing import dump_spec
from pipelines.spec.running import VARIABLE, WorkersSpec
from storage.who import WHERE, new_run_id

FOLDER = "/etc/revector"
"""Of the spec, on the head."""
USER = 10001
"""Of the images."""
KEPT_SECONDS = 600
"""That the cluster stays after the run: to look at it."""
RETRIES = 1
"""KubeRay tries again whatever ended with an error, on a new cluster: also a gate that failed."""
IDLE_SECONDS = 120
READERS = 4
"""The most CPU pods that read beside GPU pods."""
HEAD = {"cpu": "2", "memory": "12Gi", "ephemeral-storage": "20Gi"}
"""The driver is here, and takes differences of large tables on local disk."""
CPU_POD = {"cpu": "4", "memory": "16Gi", "ephemeral-storage": "20Gi"}
CPUS = 4
"""Of a CPU pod; an actor takes one."""
GPU_POD = {"cpu": "7", "memory": "28Gi", "ephemeral-storage": "20Gi"}
"""Of each GPU: no more than the machines with one have."""
MARTS = "marts"
"""The Secret, with the key `uri`, that has the address of the Postgres of marts."""
SUBMITTER = {"cpu": "200m", "memory": "512Mi", "ephemeral-storage": "1Gi"}

Fields = dict[str, Any]


def render(spec: Spec, collection: str, image: str | None, namespace: str, secret: str | None) -> str:
    """The manifest, as YAML. `secret`: a Secret whose keys become environment variables; None: the service accounts have the right.

    Raises SpecError for an image that is not one version, for places of this machine, and for what a cluster that is made for the run
    cannot work out by itself.
    """
    name, declared = spec.collection(collection)
    refuse_local(spec, name, "pods")
    job = _Job(spec, name, _checked(image or declared.run.image), secret, new_run_id())
    said = f"# Run {job.run_id} of {name}. kubectl create or apply -f -; kubectl delete rayjob,configmap {job.name} removes what is left.\n"
    objects = [_config(job, namespace), _ray_job(job, namespace)]
    return said + yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=1000, explicit_start=True)


@dataclass(frozen=True, slots=True)
class _Job:
    spec: Spec
    collection: str
    image: str
    secret: str | None
    run_id: str
    """Of its first attempt; that of each is this and a number more."""

    @property
    def name(self) -> str:
        """At most 47 characters (KubeRay's limit), of those that Kubernetes takes."""
        short = re.sub(r"[^a-z0-9]+", "-", self.collection.lower())[:16].strip("-")
        stamp, _, hexadecimal = self.run_id.partition("-")
        return f"revector-{short}-{stamp[:15].lower()}-{hexadecimal}"

    @property
    def workers(self) -> WorkersSpec:
        return self.spec.collections[self.collection].workers

    @property
    def labels(self) -> Fields:
        return {"app.kubernetes.io/part-of": "revector", "app.kubernetes.io/instance": self.name}

    def pod(self, name: str, account: str | None, resources: Fields, environment: Fields, folders: Fields, **extra: Any) -> Fields:
        """A pod template of one container that may do little, in the words of Kubernetes' restricted standard. `folders`: by path."""
        volumes = {"/tmp": {"name": "tmp", "emptyDir": {}}, **folders}  # noqa: S108  a volume of the pod's own
        container = {
            "name": name,
            "image": self.image,
            "securityContext": _contained(),
            **environment,
            "resources": {"requests": resources, "limits": resources},
            "volumeMounts": [
                {"name": volume["name"], "mountPath": path, **({} if "emptyDir" in volume else {"readOnly": True})}
                for path, volume in volumes.items()
            ],
        }
        spec = {
            **({"serviceAccountName": account} if account else {}),
            **({} if account == "ray-head" else {"automountServiceAccountToken": False}),  # the autoscaler needs it there
            "restartPolicy": "Never",  # asked for by autoscaler v2
            "securityContext": _user(),
            **extra,
            "containers": [container],
            "volumes": list(volumes.values()),
        }
        kind = "revector-submitter" if account is None else "ray"
        return {"metadata": {"labels": {"app.kubernetes.io/name": kind, **self.labels}}, "spec": spec}


def _checked(image: str | None) -> str:
    if image is None:
        raise SpecError("expected a container image, found none: set run.image in the spec, or --image")
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    if "@sha256:" not in image and tag in ("", "latest"):
        raise SpecError(f"expected an image of one version, found {image!r}: name a tag other than latest, or a digest")
    return image


def _contained() -> Fields:
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def _user() -> Fields:
    return {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}}


def _config(job: _Job, namespace: str) -> Fields:
    data = {CONFIG: dump_spec(job.spec, job.collection).decode()}
    metadata = {"name": job.name, "namespace": namespace, "labels": job.labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _ray_job(job: _Job, namespace: str) -> Fields:
    annotations = {"revector.dev/run": job.run_id}
    metadata = {"name": job.name, "namespace": namespace, "labels": job.labels, "annotations": annotations}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            "entrypoint": _entrypoint(job),
            "submissionMode": "K8sJobMode",
            "backoffLimit": RETRIES,
            # no activeDeadlineSeconds: a first load takes what it takes, and what hangs is found by workers.deadline
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "submitterPodTemplate": job.pod("ray-job-submitter", None, SUBMITTER, {}, {}),
            "rayClusterSpec": _cluster(job),
        },
    }


def _entrypoint(job: _Job) -> str:
    """Each attempt is a run of its own, and has its time in its id; a shell puts it there."""
    options = (f"--config={FOLDER}/{CONFIG}", f"--store={job.spec.store}", "--json")
    return f"{shlex.join(('revector', 'apply', job.collection, *options))} --run-id={job.run_id}-$(date +%s)"


def _cluster(job: _Job) -> Fields:
    tmp = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  a volume of the pod's own
    return {
        "rayVersion": importlib.metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": IDLE_SECONDS,
            "securityContext": _contained(),
            "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "1Gi"}},
            "volumeMounts": tmp,
        },
        "headGroupSpec": {
            "resources": {"CPU": "0"},  # no task and no actor: the driver is here, and the only committer needs its memory and disk
            "template": job.pod("ray-head", "ray-head", HEAD, _environment(job, driver=True), _models(job) | _spec(job)),
        },
        "workerGroupSpecs": _groups(job),
    }


def _environment(job: _Job, driver: bool = False) -> Fields:
    sources: list[Fields] = [{"configMapRef": {"name": "revector-environment", "optional": True}}]
    if job.secret:
        sources.append({"secretRef": {"name": job.secret}})
    where = orjson.dumps({"kind": "rayjob", "name": job.name}).decode()
    variables = [{"name": JSON_LINES, "value": "json"}, {"name": WHERE, "value": where}, *_marts(job)]
    return {"envFrom": sources, **({"env": variables} if driver else {})}


def _marts(job: _Job) -> list[Fields]:
    """Where the spec names a Postgres: its address is in a Secret, as for the drivers of infra/kubernetes."""
    named = VARIABLE.fullmatch(job.spec.collections[job.collection].marts.postgres or "")
    return [{"name": named[1], "valueFrom": {"secretKeyRef": {"name": MARTS, "key": "uri", "optional": True}}}] if named else []


def _spec(job: _Job) -> Fields:
    return {FOLDER: {"name": "spec", "configMap": {"name": job.name}}}


def _models(job: _Job) -> Fields:
    """Where the spec names a folder of models: the volume that has them, the same for all pods."""
    declared = job.spec.collections[job.collection]
    needed = any(model.name.startswith(MODELS) for model in (declared.model, *declared.candidates))
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
    return {MODELS.rstrip("/"): claim} if needed else {}


def _groups(job: _Job) -> list[Fields]:
    """CPU pods; and GPU pods, none until the run asks for one, with actors, while the CPU pods read."""
    workers = job.workers
    if workers.actors is None:
        raise SpecError("workers.actors: expected a number for a cluster that is made for the run, found none")
    if not workers.gpus_per_actor:
        return [_group(job, "cpu", 1, math.ceil(workers.actors / CPUS), CPU_POD, _labels(workers))]
    gpus = math.ceil(workers.gpus_per_actor)
    pods = math.ceil(workers.actors * workers.gpus_per_actor / gpus)
    resources = {**GPU_POD, "cpu": str(int(GPU_POD["cpu"]) * gpus), "memory": f"{28 * gpus}Gi", "nvidia.com/gpu": str(gpus)}
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    gpu = _group(job, "gpu", 0, pods, resources, _labels(workers), tolerations=tolerations)
    return [_group(job, "cpu", 0, READERS, CPU_POD, {}), gpu]


def _group(job: _Job, name: str, least: int, most: int, resources: Fields, labels: Fields, **extra: Any) -> Fields:
    """Labels are the group's: in rayStartParams the autoscaler does not see them, and never scales up."""
    template = job.pod("ray-worker", "ray-worker", resources, _environment(job), _models(job), **extra)
    labelled = {"labels": labels} if labels else {}
    return {"groupName": name, "replicas": least, "minReplicas": least, "maxReplicas": most, **labelled, "template": template}


def _labels(workers: WorkersSpec) -> Fields:
    """Of nodes that fit the selector: one of several values is the first; what a node must not have, it has not."""
    wanted = {key: value for key, value in workers.label.items() if not value.startswith("!")}
    return {key: re.split(r"[(),]", value)[1] if value.startswith("in(") else value for key, value in wanted.items()}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as they are, and no anchors: for people to read."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
