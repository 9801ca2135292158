"""A model that is loaded when it is first needed, and held once at a time."""

from collections.abc import Callable
from typing import Any

from isara_jax.models.decoder import Decoder
from isara_jax.models.lora import Adapters


class ModelHandle:
    """A model that is loaded when it is first needed, and held once.

    Finetuning reuses its buffers, so it takes the model away from here.
    """

    def __init__(self, load: Callable[[], Decoder], model: Decoder | None = None):
        self._load = load
        self._model = model

    def __call__(self) -> Decoder:
        if self._model is None:
            self._model = self._load()
        return self._model

    @property
    def adapters(self) -> Adapters | None:
        """Returns what makes a base into the model, where it is trained as that."""
        return None

    def take(self) -> Any:
        """Returns what is trained, here the model, and forgets it."""
        model, self._model = self(), None
        return model

    def drop(self) -> None:
        """Frees the memory; a later call loads the model again."""
        self._model = None


class LoraModelHandle(ModelHandle):
    """A model that is trained as adapters on a base which stays.

    `merge` makes the model of the adapters, when it is first needed.
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

    def take(self) -> Adapters:
        """Returns the adapters, and forgets them and the model."""
        adapters = self.adapters
        self.drop()
        return adapters

    def drop(self) -> None:
        """Frees the memory; a later call loads and merges again."""
        super().drop()
        self._adapters = None
