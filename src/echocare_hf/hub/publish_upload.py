"""Upload in one commit: either all files are in the repository, or it is as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .publish_refusals import leftover


class Uploaded(NamedTuple):
    """A repository after the commit.

    Attributes:
        repo_id, commit: organisation and name, and the commit that holds the files.
        endpoint: the address of the Hub.
        url: of the repository.
        private: whether it is.
        removed: files of an older version that the commit took away.
        changed: False if the repository already held all of it.
    """

    repo_id: str
    commit: str
    endpoint: str
    url: str
    private: bool
    removed: list[str]
    changed: bool


class Hub:
    """A repository on the Hub that files go to.

    Args:
        repo_id: organisation and name.
        kind: "model" or "dataset".
        token: to sign in with; by default the one that is stored.
    """

    def __init__(self, repo_id: str, kind: str, token: str | None) -> None:
        self.repo_id, self.kind = repo_id, kind
        endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
        self.api = HfApi(endpoint=endpoint, token=token)
        self.endpoint = endpoint

    def check_access(self, private: bool | None) -> None:
        """Signs in, and looks whether the repository, if there is one, may be seen by those the user means.

        Args:
            private: True for --private, False for --public, None for neither.

        Raises:
            ValueError: without a valid token or a connection; if the repository is public and the user has not said --public.
        """
        with one_line(self.endpoint, self.repo_id):
            self.api.whoami()
            info = self._info()
        if info is not None and not info.private and private is not False:
            raise ValueError(
                f"{self.repo_id}: is public already; say --public to publish there, or make it private on the Hub first"
            )

    def _info(self) -> Any:
        """What the Hub says of the repository, None if there is none."""
        try:
            return self.api.repo_info(self.repo_id, repo_type=self.kind)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None

    def upload(self, folder: Path, message: str, private: bool) -> Uploaded:
        """Makes the repository if there is none, and commits all files at once.

        Args:
            folder: all of it goes up.
            message: of the commit.
            private: who sees a new repository; an existing one changes from private to public after the commit, never back.

        Raises:
            ValueError: if anything fails; the repository then holds what it held before.
        """
        with one_line(self.endpoint, self.repo_id):
            self.api.create_repo(self.repo_id, repo_type=self.kind, private=private, exist_ok=True)
            info: Any = self.api.repo_info(self.repo_id, repo_type=self.kind)
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            names = [path.relative_to(folder).as_posix() for path in paths]
            old = leftover({one.rfilename for one in info.siblings or []} - set(names))
            operations: list[Any] = [CommitOperationAdd(name, path) for name, path in zip(names, paths, strict=True)]
            operations += [CommitOperationDelete(name) for name in old]
            commit = self.api.create_commit(
                self.repo_id, operations, commit_message=message, repo_type=self.kind, parent_commit=info.sha
            )
            if info.private and not private:
                self.api.update_repo_settings(self.repo_id, repo_type=self.kind, private=False)
            prefix = "datasets/" if self.kind == "dataset" else ""
            return Uploaded(
                repo_id=self.repo_id,
                commit=commit.oid,
                endpoint=self.endpoint,
                url=f"{self.endpoint}/{prefix}{self.repo_id}",
                private=bool(info.private and private),
                removed=old,
                changed=commit.oid != info.sha,
            )


def check_repo_id(repo_id: str) -> None:
    """ValueError unless it is an organisation or user, a slash and a name that the Hub takes."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"--repo-id {repo_id!r}: is no id of the Hub ({' '.join(str(error).split())})") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"--repo-id {repo_id!r}: names no organisation or user; write ORGANISATION/NAME")


@contextmanager
def one_line(endpoint: str, repo_id: str) -> Iterator[None]:
    """Errors of the Hub and of the network as ValueErrors of one line with the cure."""
    again = "the repository holds what it held before; give the same command again"
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise ValueError("HF_HUB_OFFLINE is set, so nothing can be published; unset it, or use --dry-run") from error
    except LocalTokenNotFoundError as error:
        raise ValueError(f"{endpoint}: you are not signed in; run `hf auth login`, or give --token") from error
    except HfHubHTTPError as error:
        raise ValueError(_reason(error, endpoint, repo_id, again)) from error
    except (HTTPError, OSError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise ValueError(_reason(cause, endpoint, repo_id, again)) from error
        why = " ".join((str(cause) or type(cause).__name__).split())[:200]
        raise ValueError(f"{endpoint}: the upload to {repo_id} was interrupted ({why}); {again}") from error


def _reason(error: HfHubHTTPError, endpoint: str, repo_id: str, again: str) -> str:
    status = error.response.status_code if error.response is not None else None
    said = " ".join(str(error.server_message or error).split())[:200]
    if status == 401:
        return f"{endpoint}: does not know this token; run `hf auth login`, or give --token with one that may write"
    if status == 403:
        return f"{repo_id}: the token may not write there ({said}); use one with write access to this organisation"
    if status in (409, 412):
        return f"{repo_id}: was changed by somebody else meanwhile; nothing of this upload is in it. Look at the change and publish again"
    if isinstance(error, BadRequestError):
        return f"{repo_id}: {endpoint} refuses it ({said}); {again}"
    return f"{endpoint}: the upload to {repo_id} failed ({said}); {again}"


__all__ = ["Hub", "Uploaded", "check_repo_id", "one_line"]
