"""Whether the Hub knows a model, asked once and answered at once: loading it would try again for a minute and more."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name

from aligner.errors import Problem

# The base class of what the client's HTTP library raises; naming it through the client leaves the library its choice.
CONNECTION_ERRORS: type[Exception] = HfHubHTTPError.__bases__[0]
SECONDS = 10.0


def unknown_model(model_id: str) -> Problem | None:
    """Why a Hub id that is no folder here cannot be loaded, or None where it can or where loading will tell.

    Models in the Hub's cache are not asked for. Any other answer of a server than "there is none" is left to the
    loader, as mirrors do not have all of the Hub's calls.
    """
    if _is_cached(model_id):
        return None
    here = f'no folder "{model_id}" is here, so it is taken for a model of the Hub, and'
    if constants.HF_HUB_OFFLINE:
        remedy = "check the folder; for a model of the Hub, unset HF_HUB_OFFLINE"
        return Problem(
            model_id, f"{here} the client is set to stay offline and has it not in its cache", remedy
        )
    try:
        HfApi().model_info(model_id, timeout=SECONDS)
    except HFValidationError:
        remedy = "check the folder; an id of the Hub is owner/name"
        return Problem(model_id, f'no folder "{model_id}" is here, and it is no id of the Hub', remedy)
    except RepositoryNotFoundError:
        remedy = "check the folder or the id (owner/name); for a private model, `hf auth login`"
        return Problem(model_id, f"{here} the Hub has none of that name, or not for you", remedy)
    except HfHubHTTPError:
        return None
    except (CONNECTION_ERRORS, OSError) as error:
        remedy = "check the folder; for a model of the Hub, the network"
        return Problem(model_id, f"{here} the Hub cannot be reached ({error})", remedy)
    return None


def _is_cached(model_id: str) -> bool:
    """Some revision of it lies here; which one is asked for is the loader's business."""
    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model_id, repo_type="model")).is_dir()
