"""Jobs are plain msgpack: reading one runs no code, and writing one shows no secret."""

import pickle
from typing import Any

import msgspec
import pytest
from arq.jobs import DeserializationError, deserialize_job, serialize_job, serialize_result

from hookseal.queue.serializer import job_deserializer, job_serializer
from hookseal.secrets.core.material import SecretMaterial

JOB: dict[str, Any] = {"t": None, "f": "deliver", "a": ["acme", "e", "d"], "k": {}, "et": 1_700_000_000_000}


@pytest.mark.req("DEL-02")
def test_a_job_is_read_as_it_was_written() -> None:
    """A job is read as it was written, by hookseal and by any msgpack reader."""
    raw = job_serializer(JOB)

    assert JOB == job_deserializer(raw) == msgspec.msgpack.decode(raw)


@pytest.mark.req("DEL-02")
def test_arqs_functions_read_and_write_jobs() -> None:
    """With it, the functions of arq write and read a job."""
    raw = serialize_job("deliver", ("acme", "e", "d"), {}, None, 1_700_000_000_000, serializer=job_serializer)
    job = deserialize_job(raw, deserializer=job_deserializer)

    assert ["deliver", "acme", "e", "d", {}] == [job.function, *job.args, job.kwargs]


@pytest.mark.req("DEL-02")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused(protocol: int) -> None:
    """No protocol of pickle is read, so a foreign job runs no code."""
    pickled = pickle.dumps(JOB, protocol)

    with pytest.raises(msgspec.DecodeError):
        job_deserializer(pickled)
    with pytest.raises(DeserializationError):
        deserialize_job(pickled, deserializer=job_deserializer)


@pytest.mark.parametrize("raw", [b"", b"\xc1", msgspec.msgpack.encode([1]), job_serializer(JOB)[:-1], b"\x81\x01\x01"])
def test_other_values_than_a_job_are_refused(raw: bytes) -> None:
    """Anything but a whole msgpack map with text keys is not a job."""
    with pytest.raises(msgspec.DecodeError):
        job_deserializer(raw)


@pytest.mark.req("DEL-02")
def test_an_exception_is_written_as_its_class() -> None:
    """An exception as a result is written as the name of its class, without its text."""
    raw = serialize_result(
        *("deliver", ("acme",), {}, 1, 0, False, ValueError("postgresql://u:hunter2@h/d"), 0, 0, "ref", "queue"),
        job_id="d",
        serializer=job_serializer,
    )

    assert raw is not None
    assert "ValueError" == job_deserializer(raw)["r"]
    assert b"hunter2" not in raw


@pytest.mark.req("DEL-02")
def test_a_secret_is_written_as_its_class() -> None:
    """A secret that is put into a job by mistake is written as the name of its class."""
    raw = job_serializer({**JOB, "a": [SecretMaterial(b"whsec_canary")]})

    assert ["SecretMaterial"] == job_deserializer(raw)["a"]
    assert b"canary" not in raw
