"""A trained model's arrays under plain names, in the forms that other programs store them in."""

import pathlib

import numpy as np

EPSILON = 1e-6  # of tx's layer normalisation


class Weights:
    """The parameters of one model.

    Args:
      model: the dict of config.model.
      arrays: {"encoder_0/self_attention/query/kernel": array, ...}.
    """

    def __init__(self, model: dict, arrays: dict[str, np.ndarray]):
        self.model, self._arrays = model, arrays

    def linear(self, prefix: str, *names: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns weight (outputs, inputs) and bias of the projections prefix/name, their outputs side by side."""
        kernels = [self._arrays[f"{prefix}/{name}/kernel"] for name in names]
        biases = [
            self._arrays.get(f"{prefix}/{name}/bias", np.zeros(kernel.shape[1], np.float32))
            for name, kernel in zip(names, kernels, strict=True)
        ]
        return np.ascontiguousarray(np.concatenate(kernels, axis=1).T), np.concatenate(biases)

    def norm(self, prefix: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns scale and bias of the layer normalisation prefix/norm, or of prefix where that is one itself."""
        prefix = f"{prefix}/norm" if f"{prefix}/norm/scale" in self._arrays else prefix
        return self._arrays[f"{prefix}/scale"], self._arrays[f"{prefix}/bias"]

    def tree(self) -> dict:
        """The parameters as tx has them: nested dicts."""
        tree = {}
        for path, array in self._arrays.items():
            *names, leaf = path.split("/")
            node = tree
            for name in names:
                node = node.setdefault(name, {})
            node[leaf] = array
        return tree

    @property
    def output(self) -> np.ndarray:
        """Matrix (vocab, d_model) of the output projection."""
        return self._arrays["embedding"]

    @property
    def embedding(self) -> np.ndarray:
        """The same with a row of zeros for token 0: what goes into encoder and decoder, before it is scaled."""
        return np.concatenate([np.zeros_like(self.output[:1]), self.output[1:]])

    def positions(self, side: str, length: int) -> np.ndarray:
        """Returns what is added to the scaled embeddings of `length` positions: (length, d_model), float32.

        On the side "source" that includes the vector of the target space.
        """
        if self.model["positions"] == "learned":
            table = self._arrays[f"{side}_position/table"][:length]
            if self.model["scale_positions"]:
                table = table * np.float32(self.model["d_model"] ** 0.5)
        elif self.model["positions"] == "none":
            table = np.zeros((length, self.model["d_model"]), np.float32)
        else:
            table = sinusoids(self.model, length)
        if side == "source" and self.model["target_spaces"]:
            table = table + self._arrays["target_space"][0]
        return table


def sinusoids(model: dict, length: int) -> np.ndarray:
    """Returns tx's sinusoids (length, d_model), float32, in the layout that the model has."""
    half = model["d_model"] // 2
    exponent = np.arange(half) / max(half - 1 if model["sinusoid_endpoint"] else half, 1)
    frequency = (10000.0**-exponent).astype(np.float32)
    angle = np.arange(length, dtype=np.float32)[:, None] * frequency
    pair = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    if model["sinusoid_layout"] == "interleaved":
        pair = pair.swapaxes(1, 2)
    return np.ascontiguousarray(pair.reshape(length, model["d_model"]), np.float32)


def flat(params: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the leaves of nested parameters as {"path/of/names": array}."""
    arrays = {}
    for name, value in params.items():
        if hasattr(value, "items"):
            arrays |= flat(value, f"{prefix}{name}/")
        else:
            arrays[prefix + name] = np.asarray(value, np.float32)
    return arrays


def save(arrays: dict[str, np.ndarray], file: pathlib.Path) -> None:
    np.savez(file, **arrays)


def load(model: dict, file: str) -> Weights:
    with np.load(file) as arrays:
        return Weights(model, dict(arrays))
