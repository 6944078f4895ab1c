"""The variables in a `.keras` or `.weights.h5` file, read and written quickly."""

import h5py
import numpy as np
from keras.src.saving import saving_lib

_ALL = h5py.h5s.ALL
_NUMBERS = "fiu"


class QuickStore(saving_lib.H5IOStore):
    """Keras' store, for which a network of thousands of variables is no work.

    The files are the same. Keras wraps and unwraps each value in several objects of h5py, which
    takes ten times as long as to read or write it. Whatever is not a plain array of numbers, or
    lies behind a link to another place, is left to Keras, which has rules for it.
    """

    @classmethod
    def take_over(cls, store: object) -> None:
        """Makes a store of Keras a quick one, if it is of the kind that is known here."""
        if type(store) is saving_lib.H5IOStore:
            store.__class__ = cls

    def get(self, path):
        values = self._plain_values(f"{path}/vars" if path else "vars")
        if values is None:
            return super().get(path)
        self._h5_entry_path, self._h5_entry_group = path, values
        self._h5_entry_initialized = True
        return self

    def __getitem__(self, key):
        value = self._h5_entry_group.get(key)
        return value if isinstance(value, np.ndarray) else super().__getitem__(key)

    def __setitem__(self, key, value):
        value = np.asarray(value)
        if value.dtype.kind not in _NUMBERS or not self._h5_entry_initialized:
            super().__setitem__(key, value)
            return
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_obj_track_times(False)
        dataset = h5py.h5d.create(
            self._h5_entry_group.id,
            key.encode(),
            h5py.h5t.py_create(value.dtype, logical=True),
            h5py.h5s.create_simple(value.shape)
            if value.shape
            else h5py.h5s.create(h5py.h5s.SCALAR),
            options,
        )
        dataset.write(_ALL, _ALL, np.ascontiguousarray(value))

    def _plain_values(self, path):
        """Returns the arrays of a group by name; None if it is not there, or not plain."""
        group = self.h5_file.id
        for name in path.encode().split(b"/"):
            if not (name and _is_plain_link(group, name)):
                return None
            group = h5py.h5o.open(group, name)
            if not isinstance(group, h5py.h5g.GroupID):
                return None
        values = {}
        for number in range(group.get_num_objs()):
            name = group.get_objname_by_idx(number)
            values[name.decode()] = value = _plain_value(group, name)
            if value is None:
                return None
        return values


def _is_plain_link(group, name):
    return name in group and group.links.get_info(name).type == h5py.h5l.TYPE_HARD


def _plain_value(group, name):
    if not _is_plain_link(group, name):
        return None
    dataset = h5py.h5o.open(group, name)
    if not isinstance(dataset, h5py.h5d.DatasetID) or dataset.dtype.kind not in _NUMBERS:
        return None
    options = dataset.get_create_plist()
    value_bytes = int(np.prod(dataset.shape)) * dataset.dtype.itemsize
    is_plain = (
        options.get_layout() == h5py.h5d.CONTIGUOUS
        and options.get_external_count() == 0
        and dataset.get_storage_size() == value_bytes
        and h5py.h5a.get_num_attrs(dataset) == 0
    )
    if not is_plain:
        return None
    value = np.empty(dataset.shape, dataset.dtype)
    dataset.read(_ALL, _ALL, value)
    return value
