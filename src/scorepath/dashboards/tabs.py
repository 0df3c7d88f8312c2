"""What fills TensorBoard's Custom Scalars and HParams tabs, of one run or of many."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scorepath.config import leaves
from scorepath.run.changes import OF_THE_COMMAND
from scorepath.sweeps.names import key_of, shortest_endings

HParam = bool | str | float
METRICS = {  # columns of the HParams tab: tag -> its name there
    "final/return_mean": "return",
    "final/return_low": "95 % from",
    "final/return_high": "to",
    "final/env_steps_per_second": "steps/s",
    "final/solved_at_env_steps": "solved at",
    "final/env_steps": "env steps",
}
_GROUPS = ("env", "dist", "estimator", "baseline", "policy", "optimizer", "lr_schedule")
_ALWAYS = (*_GROUPS, "seed")
_NO_COLUMNS = (*OF_THE_COMMAND, "logger", "callbacks", "record_episode", "hydra")  # what a run shows, not what it is


def layout() -> Any:
    """The Custom Scalars tab: what is looked at first, and the interval of the return as a band around it."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # noqa: PLC0415 (slow)
    from tensorboard.compat.proto.tensor_pb2 import TensorProto  # noqa: PLC0415
    from tensorboard.compat.proto.types_pb2 import DT_STRING  # noqa: PLC0415
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata  # noqa: PLC0415

    def lines(title: str, *tags: str) -> Any:
        names = [f"^{tag}$" for tag in tags]
        return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=names))

    def band(title: str, value: str, lower: str, upper: str) -> Any:
        series = layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
        return layout_pb2.Chart(title=title, margin=layout_pb2.MarginChartContent(series=[series]))

    charts = {
        "return": [
            band("evaluation, with its 95 % interval", "eval/return_mean", "eval/return_low", "eval/return_high"),
            lines("episodes of training", "rollout/episode_return_mean"),
        ],
        "learning": [
            lines("loss", "train/surrogate_loss"),
            lines("entropy", "train/entropy"),
            lines("norm of the gradient", "train/grad_norm"),
            lines("learning rate", "train/learning_rate"),
        ],
        "gradient": [
            lines("variance", "gradient/variance"),
            lines("signal-to-noise ratio", "gradient/snr"),
            lines("noise scale", "gradient/noise_scale"),
        ],
        "speed": [lines("env steps per second", "time/env_steps_per_second")],
    }
    categories = [layout_pb2.Category(title=title, chart=of_it) for title, of_it in charts.items()]
    text = layout_pb2.Layout(category=categories).SerializeToString()
    value = Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=TensorProto(dtype=DT_STRING, string_val=[text]))
    # by hand, for TensorBoard's own way to a summary takes TensorFlow
    value.metadata.CopyFrom(SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME)))
    return Summary(value=[value])


def experiment(rows: Sequence[Mapping[str, HParam]]) -> Any:
    """The columns of the HParams tab: those of these rows, each sorted by its kind, and the results."""
    from tensorboard.plugins.hparams import plugin_data_pb2  # noqa: PLC0415 (slow)
    from tensorboard.plugins.hparams import summary_v2 as hp  # noqa: PLC0415

    keys = list(dict.fromkeys(key for row in rows for key in row))
    short = shortest_endings(keys)
    columns = []
    for key in keys:
        values = [row[key] for row in rows if key in row]
        if all(isinstance(value, float) for value in values):
            domain: Any = hp.RealInterval(float(min(values)), float(max(values)))
        else:
            domain = hp.Discrete(sorted({value for value in values if isinstance(value, type(values[0]))}))
        columns.append(hp.HParam(key, domain, display_name=short[key]))
    summary = hp.hparams_config_pb(columns, [hp.Metric(tag, display_name=name) for tag, name in METRICS.items()])
    data = summary.value[0].metadata.plugin_data
    told = plugin_data_pb2.HParamsPluginData.FromString(data.content)
    for info in told.experiment.hparam_infos:
        info.differs = len({row.get(info.name) for row in rows}) > 1  # it shows five, those that differ first
    data.content = told.SerializeToString()
    return summary


def session(name: str, hparams: Mapping[str, HParam]) -> Any:
    """A run's row of the HParams tab."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb  # noqa: PLC0415 (slow)

    return hparams_pb(dict(hparams), trial_id=name)


def session_end() -> Any:
    """That the run of a row has ended well."""
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 (slow)
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2  # noqa: PLC0415

    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=metadata.create_summary_metadata(data))
    return Summary(value=[value])


def keys_of(overrides: Iterable[str]) -> list[str]:
    """The groups and values that a run was told, and those that are always shown: its columns of the HParams tab."""
    told = [key_of(text) for text in overrides if key_of(text).partition(".")[0] not in _NO_COLUMNS]
    return list(dict.fromkeys((*_ALWAYS, *told)))


def hparams_of(config: Mapping[str, Any], choices: Mapping[str, Any], keys: Iterable[str]) -> dict[str, HParam]:
    """What a run has in these columns, each of a kind by which TensorBoard can sort it.

    Args:
        config: plain containers.
        choices: group -> the chosen option.
        keys: groups, and keys of the config; of a key with others below it, each of those.
    """
    values = leaves(config)
    row: dict[str, HParam] = {}
    for key in keys:
        if key in choices:
            row[key] = str(choices[key])
        else:
            below = {name: value for name, value in values.items() if name == key or name.startswith(f"{key}.")}
            row |= {name: _hparam(value) for name, value in below.items() if value is not None}
    return row


def _hparam(value: Any) -> HParam:
    if isinstance(value, bool | str):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # a list; a whole number beyond all that JSON's readers take
        return str(value)
