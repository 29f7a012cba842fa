"""Published weights: one error if a file cannot be downloaded, without half a minute of retries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from mmcam.errors import WeightsError, reason_of

TIMEOUT = 10
"""The longest wait for the Hugging Face hub to answer, in seconds."""


@contextmanager
def download_errors(title: str, source: str, reason: str | None = None) -> Iterator[None]:
    """In this context, a failed download of the weights of a model becomes a `WeightsError`.

    Args:
        title: the model's name.
        source: the address of the weights.
        reason: why the download fails, if known; when None, the exception's message gives it.

    Raises:
        WeightsError: the weights cannot be downloaded from `source`.
    """
    try:
        yield
    except (OSError, HTTPException) as error:
        raise WeightsError(
            f"the weights of {title} cannot be loaded from {source} "
            f"({reason or reason_of(error)}); give a file instead (--weights FILE), or 'random' "
            "for an untrained model"
        ) from error


@contextmanager
def without_retries() -> Iterator[str | None]:
    """In this context, libraries do not wait for a Hugging Face hub that does not answer.

    huggingface_hub has no setting for the number of its retries, which take 23 seconds per file. If
    the hub does not answer once, its offline mode is on in this context: files in its cache are
    found, and others are missing at once. Yields the reason why the hub does not answer, or None.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    reason = _unreachable()
    constants.HF_HUB_OFFLINE = before or reason is not None
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = before


def _unreachable() -> str | None:
    """Why the hub does not answer a request, sent as its library sends all; None if it does."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
    except Exception as error:  # of the HTTP library, which differs between versions
        return reason_of(error)
    return None
