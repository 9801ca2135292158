"""A model that is loaded when it is first needed, and held once at a time."""

from collections.abc import Callable
from typing import Any

from isara_jax.models.decoder import Decoder
from isara_jax.models.lora import Adapters


class ModelHandle:
    """A model that is loaded when it is first needed, and then kept in memory."""

    def __init__(self, load: Callable[[], Decoder], model: Decoder | None = None):
        self._load = load
        self._model = model

    def __call__(self) -> Decoder:
        if self._model is None:
            self._model = self._load()
        return self._model

    @property
    def adapters(self) -> Adapters | None:
        """The adapters that are trained in place of the model; None: the model is."""
        return None

    def donate(self) -> Any:
        """Returns what is trained and forgets it, as finetuning donates its buffers."""
        model, self._model = self(), None
        return model

    def unload(self) -> None:
        """Frees the memory; a later call loads the model again."""
        self._model = None


class LoraModelHandle(ModelHandle):
    """A model that is trained as adapters on a frozen base.

    `merge` makes the model of the adapters when it is first needed.
    """

    def __init__(
        self,
        load: Callable[[], Adapters],
        adapters: Adapters | None = None,
        *,
        merge: Callable[[Adapters], Decoder],
    ):
        super().__init__(lambda: merge(self.adapters))
        self._load_adapters = load
        self._adapters = adapters

    @property
    def adapters(self) -> Adapters:
        if self._adapters is None:
            self._adapters = self._load_adapters()
        return self._adapters

    def donate(self) -> Adapters:
        """Returns the adapters, and forgets them and the merged model."""
        adapters = self.adapters
        self.unload()
        return adapters

    def unload(self) -> None:
        """Frees the memory; a later call loads and merges again."""
        super().unload()
        self._adapters = None
